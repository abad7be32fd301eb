// An OpenID provider for tests/oidc_provider.rs: the npm package `oidc-provider`, which the OpenID Foundation has
// certified. The argument is the directory that has the package in its `node_modules`.
//
// Each line on stdin is a command, each line on stdout its answer, both JSON. The first line is {issuer}. The process ends
// with its stdin.
//
//   {"do": "machine"}                        a token of a client, by the client-credentials grant; with `dpop`, a proof for
//                                            the token endpoint, one that is bound to its key
//   {"do": "user", "id", ...}                a token of a user, for /userinfo alone. With `"resource": true` for the
//                                            API; then `format` is "jwt" or "opaque", `alg` the signature, and
//                                            `aud` replaces the audience of a JWT, `sid` names its session, and
//                                            `encrypt` {alg, enc} encrypts it. `client` gets it, default `web`
//   {"do": "revoke", "token"}                ends an opaque token
//   {"do": "jwks"}                           the private keys that open what is encrypted for holdfast, as a JWK set
//   {"do": "userinfo", "payload", "header"}  from now on /userinfo answers with this, signed by the provider's RSA key;
//                                            without a payload, with what the provider says
//   {"do": "auth_method", "method"}          starts it again: clients authenticate by this method alone
//   {"do": "logout", "id", "sid", "uri"}     sends a logout token for the client `web` to this address; the
//                                            answer is {} if it is accepted
//   {"do": "rotate"}                         starts the provider again, with other keys, at the same address
//   {"do": "calls"}                          the calls of /userinfo and of introspection since the last time that this was
//                                            asked
//
// Answers come in chunks, of unknown length, as from servers that compress or stream.
import { createPrivateKey, createPublicKey, createSecretKey, generateKeyPairSync, randomBytes, sign } from 'node:crypto';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

console.info = console.warn = () => {}; // notices about settings for production

const { default: Provider } = await import(
  pathToFileURL(createRequire(resolve(process.argv[2], 'package.json')).resolve('oidc-provider')).href
);

const API = 'https://api.example.com';
const SCOPE = 'read openid email';

let keys = 0;
function key(type, options) {
  keys += 1;
  return { ...generateKeyPairSync(type, options).privateKey.export({ format: 'jwk' }), use: 'sig', kid: `key-${keys}` };
}

// Those of holdfast.
const own = [
  generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey,
  generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey,
  createSecretKey(randomBytes(32)),
];

function encryption({ alg, enc }) {
  const [rsa, ec, secret] = own;
  const key = alg.startsWith('RSA') ? createPublicKey(rsa) : alg.startsWith('ECDH') ? createPublicKey(ec) : secret;
  return { alg, enc, key };
}

function resourceServer(alg, accessTokenFormat, encrypt) {
  const jwt = { sign: { alg }, ...(encrypt && { encrypt: encryption(encrypt) }) };
  return { audience: API, scope: SCOPE, accessTokenFormat, accessTokenTTL: 3600, jwt };
}

const ALGORITHMS = ['RS256', 'PS256', 'ES256', 'EdDSA'];

function signsUserinfo(client_id, more) {
  return {
    client_id,
    client_secret: 'of a client that asks for signed answers',
    redirect_uris: ['https://app.example.com/callback'],
    token_endpoint_auth_method: method,
    ...more,
  };
}

let rsa; // the provider's private key, as a JWK
let method = 'client_secret_basic';

// Claims of the next JWT that differ from what the provider itself would write.
let overrides = {};

function start(issuer) {
  rsa = key('rsa', { modulusLength: 2048 });
  return new Provider(issuer, {
    clients: [
      {
        client_id: 'machine',
        client_secret: 'a secret of the test alone',
        grant_types: ['client_credentials'],
        redirect_uris: [],
        response_types: [],
        token_endpoint_auth_method: method,
      },
      {
        client_id: 'holdfast:1',
        client_secret: 's3cret: with+all %kinds&of="characters',
        grant_types: [],
        redirect_uris: [],
        response_types: [],
        token_endpoint_auth_method: method,
      },
      ...ALGORITHMS.map((alg) => signsUserinfo(`signed-${alg}`, { userinfo_signed_response_alg: alg })),
      signsUserinfo('sealed', {
        userinfo_signed_response_alg: 'ES256',
        userinfo_encrypted_response_alg: 'RSA-OAEP-256',
        userinfo_encrypted_response_enc: 'A128CBC-HS256',
        jwks: { keys: [{ ...createPublicKey(own[0]).export({ format: 'jwk' }), use: 'enc' }] },
      }),
      {
        client_id: 'web',
        client_secret: 'another',
        token_endpoint_auth_method: method,
        redirect_uris: ['https://app.example.com/callback'],
        backchannel_logout_uri: 'http://127.0.0.1/backchannel-logout', // the command names the port
        backchannel_logout_session_required: true,
      },
    ],
    clientAuthMethods: [method],
    enabledJWA: { userinfoSigningAlgValues: ALGORITHMS },
    scopes: ['openid', 'email', 'read'],
    claims: { openid: ['sub'], email: ['email', 'email_verified'] },
    cookies: { keys: ['of the test alone'] },
    findAccount: (_, id) => ({
      accountId: id,
      claims: () => ({ sub: id, email: `${id}@example.com`, email_verified: true }),
    }),
    jwks: {
      keys: [
        rsa,
        key('ec', { namedCurve: 'P-256' }),
        key('ed25519', {}),
      ],
    },
    features: {
      backchannelLogout: { enabled: true },
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      dPoP: { enabled: true },
      encryption: { enabled: true },
      introspection: { enabled: true, allowedPolicy: (_ctx, client) => client.clientId === 'holdfast:1' },
      jwtUserinfo: { enabled: true },
      resourceIndicators: { enabled: true, getResourceServerInfo: () => resourceServer('RS256', 'jwt') },
    },
    formats: { customizers: { jwt: (_ctx, _token, jwt) => Object.assign(jwt.payload, overrides) } },
  });
}

let provider;
let calls = 0;
let introspections = 0;
let userinfo; // what /userinfo answers, if it is not the provider's answer
const server = createServer((request, response) => {
  const end = response.end.bind(response);
  const isUserinfo = request.url === '/me';
  calls += isUserinfo;
  introspections += request.url === '/token/introspection';
  response.end = (given) => {
    const isReplaced = isUserinfo && userinfo && response.statusCode === 200;
    const body = Buffer.from((isReplaced ? userinfo : given) ?? '');
    if (isReplaced) {
      response.setHeader('content-type', 'application/jwt');
    }
    if (body.length > 1) {
      response.removeHeader('content-length');
      response.write(body.subarray(0, body.length / 2));
      return end(body.subarray(body.length / 2));
    }
    return end(given);
  };
  provider.callback()(request, response);
});
await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
const issuer = `http://127.0.0.1:${server.address().port}`;
provider = start(issuer);

async function machine({ dpop }) {
  const response = await fetch(`${issuer}/token`, {
    method: 'POST',
    headers: {
      authorization: `Basic ${btoa(`machine:${encodeURIComponent('a secret of the test alone')}`)}`,
      ...(dpop && { dpop }),
    },
    body: new URLSearchParams({ grant_type: 'client_credentials', resource: API, scope: 'read' }),
  });
  const { access_token: token, error_description: error } = await response.json();
  if (!token) {
    throw new Error(`no token by client credentials: ${response.status}: ${error}`);
  }
  return token;
}

async function user({ id, resource = false, format = 'jwt', alg = 'RS256', aud, sid, encrypt, client: of = 'web' }) {
  const client = await provider.Client.find(of);
  const grant = new provider.Grant({ accountId: id, clientId: of });
  grant.addOIDCScope('openid email');
  grant.addResourceScope(API, SCOPE);
  const token = new provider.AccessToken({
    accountId: id,
    client,
    grantId: await grant.save(),
    gty: 'authorization_code',
    scope: 'openid email',
  });
  if (resource) {
    token.resourceServer = new provider.ResourceServer(API, resourceServer(alg, format, encrypt));
  }
  overrides = { ...(aud && { aud }), ...(sid && { sid }) };
  const value = await token.save();
  overrides = {};
  return value;
}

function jwt(header, payload) {
  const encode = (part) => Buffer.from(JSON.stringify(part)).toString('base64url');
  const input = `${encode({ alg: 'RS256', kid: rsa.kid, ...header })}.${encode(payload)}`;
  const signature = sign('sha256', Buffer.from(input), createPrivateKey({ key: rsa, format: 'jwk' }));
  return `${input}.${signature.toString('base64url')}`;
}

async function logout({ id, sid, uri }) {
  const client = await provider.Client.find('web');
  client.backchannelLogoutUri = uri;
  await client.backchannelLogout(id, sid);
}

async function obey(command) {
  switch (command.do) {
    case 'machine':
      return { token: await machine(command) };
    case 'user':
      return { token: await user(command) };
    case 'logout':
      await logout(command);
      return {};
    case 'revoke':
      await (await provider.AccessToken.find(command.token)).destroy();
      return {};
    case 'jwks':
      return { keys: own.map((each) => each.export({ format: 'jwk' })) };
    case 'userinfo':
      userinfo = command.payload && jwt(command.header, command.payload);
      return {};
    case 'auth_method':
      method = command.method;
      provider = start(issuer);
      return {};
    case 'rotate':
      provider = start(issuer);
      return {};
    case 'calls': {
      const answer = { calls, introspections };
      calls = introspections = 0;
      return answer;
    }
    default:
      throw new Error(`no such command: ${command.do}`);
  }
}

console.log(JSON.stringify({ issuer }));
for await (const line of createInterface({ input: process.stdin })) {
  const answer = await obey(JSON.parse(line)).catch((error) => ({ error: String(error.stack) }));
  console.log(JSON.stringify(answer));
}
process.exit(0);
