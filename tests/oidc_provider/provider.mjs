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
//                                            `aud` replaces the audience of a JWT, `sid` names its session
//   {"do": "logout", "id", "sid", "uri"}     sends a logout token for the client `web` to this address; the
//                                            answer is {} if it is accepted
//   {"do": "rotate"}                         starts the provider anew, with other keys, at the same address
//   {"do": "calls"}                          the calls of /userinfo since the last time that this was asked
import { generateKeyPairSync } from 'node:crypto';
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

function resourceServer(alg, accessTokenFormat) {
  return { audience: API, scope: SCOPE, accessTokenFormat, accessTokenTTL: 3600, jwt: { sign: { alg } } };
}

// Claims of the next JWT that differ from what the provider itself would write.
let overrides = {};

function start(issuer) {
  return new Provider(issuer, {
    clients: [
      {
        client_id: 'machine',
        client_secret: 'a secret of the test alone',
        grant_types: ['client_credentials'],
        redirect_uris: [],
        response_types: [],
      },
      {
        client_id: 'web',
        client_secret: 'another',
        redirect_uris: ['https://app.example.com/callback'],
        backchannel_logout_uri: 'http://127.0.0.1/backchannel-logout', // the command names the port
        backchannel_logout_session_required: true,
      },
    ],
    scopes: ['openid', 'email', 'read'],
    claims: { openid: ['sub'], email: ['email', 'email_verified'] },
    cookies: { keys: ['of the test alone'] },
    findAccount: (_, id) => ({
      accountId: id,
      claims: () => ({ sub: id, email: `${id}@example.com`, email_verified: true }),
    }),
    jwks: {
      keys: [
        key('rsa', { modulusLength: 2048 }),
        key('ec', { namedCurve: 'P-256' }),
        key('ed25519', {}),
      ],
    },
    features: {
      backchannelLogout: { enabled: true },
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      dPoP: { enabled: true },
      resourceIndicators: { enabled: true, getResourceServerInfo: () => resourceServer('RS256', 'jwt') },
    },
    formats: { customizers: { jwt: (_ctx, _token, jwt) => Object.assign(jwt.payload, overrides) } },
  });
}

let provider;
let calls = 0;
const server = createServer((request, response) => {
  if (request.url === '/me') {
    calls += 1;
  }
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

async function user({ id, resource = false, format = 'jwt', alg = 'RS256', aud, sid }) {
  const client = await provider.Client.find('web');
  const grant = new provider.Grant({ accountId: id, clientId: 'web' });
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
    token.resourceServer = new provider.ResourceServer(API, resourceServer(alg, format));
  }
  overrides = { ...(aud && { aud }), ...(sid && { sid }) };
  const value = await token.save();
  overrides = {};
  return value;
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
    case 'rotate':
      provider = start(issuer);
      return {};
    case 'calls': {
      const answer = { calls };
      calls = 0;
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
