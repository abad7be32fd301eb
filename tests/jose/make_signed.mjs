// Prints one JSON object for tests/independent.rs: {jwks, key, tokens: [{alg, signed, nested}]}, for the issuer, the
// audience and the time in its arguments. Made by the npm package `jose`, which shares no code with holdfast's own
// libraries.
import { createRequire } from 'node:module';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const modules = process.env.HOLDFAST_TEST_NODE_MODULES;
const { CompactEncrypt, SignJWT, exportJWK, generateKeyPair } = await import(
  pathToFileURL(createRequire(resolve(modules, 'package.json')).resolve('jose')).href
);

const [issuer, audience, now] = process.argv.slice(2);
const sealing = await generateKeyPair('RSA-OAEP-256', { extractable: true, modulusLength: 2048 });
const keys = [];
const tokens = [];

for (const alg of ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'EdDSA']) {
  const { publicKey, privateKey } = await generateKeyPair(alg, { extractable: true, modulusLength: 2048 });
  keys.push({ ...(await exportJWK(publicKey)), alg, kid: alg, use: 'sig' });
  const signed = await new SignJWT({ email: 'alice@example.com', name: 'Zoë' })
    .setProtectedHeader({ alg, kid: alg, typ: 'at+jwt' })
    .setIssuer(issuer)
    .setAudience(audience)
    .setSubject(`auth0|${alg}`)
    .setIssuedAt(Number(now))
    .setExpirationTime(Number(now) + 600)
    .sign(privateKey);
  const nested = await new CompactEncrypt(new TextEncoder().encode(signed))
    .setProtectedHeader({ alg: 'RSA-OAEP-256', enc: 'A256GCM', cty: 'JWT' })
    .encrypt(sealing.publicKey);
  tokens.push({ alg, signed, nested });
}

console.log(JSON.stringify({ jwks: { keys }, key: await exportJWK(sealing.privateKey), tokens }));
