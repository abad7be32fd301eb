// Prints one JSON object for tests/independent.rs: {jwks, tokens: [{alg, token, proof}]}, for the issuer, the audience, the
// time, the method and the URL in its arguments: access tokens that are bound to a key, and DPoP proofs by that key. Made by
// the npm package `jose`, which shares no code with holdfast's own libraries.
import { createHash, randomUUID } from 'node:crypto';
import { createRequire } from 'node:module';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const modules = process.env.HOLDFAST_TEST_NODE_MODULES;
const { SignJWT, calculateJwkThumbprint, exportJWK, generateKeyPair } = await import(
  pathToFileURL(createRequire(resolve(modules, 'package.json')).resolve('jose')).href
);

const [issuer, audience, now, htm, htu] = process.argv.slice(2);
const signing = await generateKeyPair('ES256', { extractable: true });
const tokens = [];

for (const alg of ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'EdDSA']) {
  const { publicKey, privateKey } = await generateKeyPair(alg, { extractable: true, modulusLength: 2048 });
  const jwk = await exportJWK(publicKey);
  const token = await new SignJWT({ email: 'alice@example.com', cnf: { jkt: await calculateJwkThumbprint(jwk) } })
    .setProtectedHeader({ alg: 'ES256', kid: 'issuer', typ: 'at+jwt' })
    .setIssuer(issuer)
    .setAudience(audience)
    .setSubject(`auth0|${alg}`)
    .setIssuedAt(Number(now))
    .setExpirationTime(Number(now) + 600)
    .sign(signing.privateKey);
  const ath = createHash('sha256').update(token).digest('base64url');
  const proof = await new SignJWT({ htm, htu, ath, jti: randomUUID() })
    .setProtectedHeader({ alg, typ: 'dpop+jwt', jwk })
    .setIssuedAt(Number(now))
    .sign(privateKey);
  tokens.push({ alg, token, proof });
}

const key = { ...(await exportJWK(signing.publicKey)), alg: 'ES256', kid: 'issuer', use: 'sig' };
console.log(JSON.stringify({ jwks: { keys: [key] }, tokens }));
