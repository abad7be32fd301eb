// Prints one JSON line for each token that tests/jose.rs must open: {alg, enc, zip, key, token, payload}.
// Made by the npm package `jose`, which shares no code with holdfast's own libraries.
import { randomBytes } from 'node:crypto';
import { createRequire } from 'node:module';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const modules = process.env.HOLDFAST_TEST_NODE_MODULES;
const { CompactEncrypt, exportJWK, generateKeyPair } = await import(
  pathToFileURL(createRequire(resolve(modules, 'package.json')).resolve('jose')).href
);

const CONTENT_KEY_BYTES = { A128GCM: 16, A256GCM: 32, 'A128CBC-HS256': 32, 'A256CBC-HS512': 64 };
const CURVES = ['P-256', 'P-384', 'P-521'];

async function print(alg, enc, sealingKey, jwk, parties) {
  const payload = JSON.stringify({ sub: 'auth0|jose', alg, enc, name: 'Zoë Ünïcode', salt: randomBytes(9).toString('hex') });
  const jwe = new CompactEncrypt(new TextEncoder().encode(payload)).setProtectedHeader({ alg, enc });
  if (parties) {
    jwe.setKeyManagementParameters({ apu: randomBytes(5), apv: randomBytes(7) });
  }
  console.log(JSON.stringify({ alg, enc, zip: null, key: jwk, token: await jwe.encrypt(sealingKey), payload }));
}

for (const enc of Object.keys(CONTENT_KEY_BYTES)) {
  const secret = (bytes) => {
    const key = randomBytes(bytes);
    return [new Uint8Array(key), { kty: 'oct', k: key.toString('base64url') }];
  };
  await print('dir', enc, ...secret(CONTENT_KEY_BYTES[enc]));
  await print('A128KW', enc, ...secret(16));
  await print('A256KW', enc, ...secret(32));
}

for (const alg of ['RSA-OAEP', 'RSA-OAEP-256', 'RSA-OAEP-384', 'RSA-OAEP-512']) {
  const { publicKey, privateKey } = await generateKeyPair(alg, { extractable: true, modulusLength: 2048 });
  const jwk = await exportJWK(privateKey);
  for (const enc of Object.keys(CONTENT_KEY_BYTES)) {
    await print(alg, enc, publicKey, jwk);
  }
}

for (const alg of ['ECDH-ES', 'ECDH-ES+A128KW', 'ECDH-ES+A256KW']) {
  for (const crv of CURVES) {
    const { publicKey, privateKey } = await generateKeyPair(alg, { extractable: true, crv });
    const jwk = await exportJWK(privateKey);
    for (const enc of Object.keys(CONTENT_KEY_BYTES)) {
      await print(alg, enc, publicKey, jwk, false);
      await print(alg, enc, publicKey, jwk, true);
    }
  }
}
