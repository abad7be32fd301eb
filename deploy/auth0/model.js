'use strict';

/**
 * A model of the part of Auth0 that stands between an Action and the tokens, for tests.
 *
 * The idea: what an Action sets is not what a token carries. Auth0 drops claims in silence, and a test that only
 * records `setCustomClaim` calls would prove nothing. Each rule below names where it was read:
 *
 *   [create]   https://auth0.com/docs/secure/tokens/json-web-tokens/create-custom-claims
 *   [migrate]  https://auth0.com/docs/troubleshoot/product-lifecycle/past-migrations/custom-claims-migration
 *   [jwe]      https://auth0.com/docs/get-started/apis/configure-json-web-encryption
 *   [ropg]     https://community.auth0.com/t/api-accesstoken-setcustomclaim-does-not-set-the-custom-email-claim/125226
 *
 * Where the documentation leaves room, the model takes the stricter reading, and the comment says so.
 */

const fs = require('node:fs');
const path = require('node:path');
const vm = require('node:vm');

/** Names that Auth0 uses itself; setting one is ignored on every token. [create] [migrate] */
const RESTRICTED_CLAIMS = Object.freeze(`
  acr act active amr at_hash ath attest aud auth_time authorization_details azp c_hash client_id cnf cty dest
  entitlements events exp groups gty htm htu iat internalService iss jcard jku jti jwe jwk kid may_act mky nbf nonce
  object_id org_id org_name orig origid permissions roles rph s_hash sid sip_callid sip_cseq_num sip_date sip_from_tag
  sip_via_branch sub sub_jwk toe txn typ uuid vot vtm x5t#S256
`.trim().split(/\s+/));

/** OIDC user profile claims, and the scope without which each is left out of any token. [migrate], OIDC Core 5.4 */
const PROFILE_CLAIM_SCOPES = Object.freeze({
  address: 'address',
  birthdate: 'profile',
  email: 'email',
  email_verified: 'email',
  family_name: 'profile',
  gender: 'profile',
  given_name: 'profile',
  locale: 'profile',
  middle_name: 'profile',
  name: 'profile',
  nickname: 'profile',
  phone_number: 'phone',
  phone_number_verified: 'phone',
  picture: 'profile',
  preferred_username: 'profile',
  profile: 'profile',
  updated_at: 'profile',
  website: 'profile',
  zoneinfo: 'profile',
});

/** Names and values of all custom claims of one token; each token has its own allowance. [migrate] */
const MOST_CLAIM_BYTES = 100 * 1024;

/** Domains under which a namespace is ignored. [migrate] */
const AUTH0_DOMAINS = Object.freeze(['auth0.com', 'webtask.io', 'webtask.run']);

/** Grants in which profile claims set on the access token do not arrive. Observed, not documented. [ropg] */
const PASSWORD_PROTOCOLS = Object.freeze(['oauth2-password', 'oauth2-resource-owner']);

/** More than 100 KB of custom claims: the one mistake that fails the whole login. [migrate] */
class LoginFailed extends Error {}

/**
 * Runs the Action file for one login, as Auth0 would, and tells what the tokens carry.
 *
 * @param {object} [options]
 * @param {string} [options.tenant] host of the tenant
 * @param {string} [options.audience] identifier of the API; absent: none was asked for
 * @param {string[]} [options.scopes] default: openid, profile, email
 * @param {string} [options.protocol] `event.transaction.protocol`; default: authorization code flow
 * @param {boolean} [options.encrypted] the API has a JWE key
 * @param {object} [options.user] `event.user`; null leaves it out
 * @param {object} [options.secrets] `event.secrets`
 * @param {object} [options.session] `event.session`; without it the event has none
 * @param {object} [options.authentication] `event.authentication`; without it the event has none
 * @param {string} [options.file] the Action; default: action.js beside this file
 * @returns {Promise<{access_token_format: string, access_token_claims: object, id_token_claims: object,
 *   userinfo: object, dropped: {token: string, name: string, why: string}[], log: string[]}>}
 * @throws {LoginFailed} if a token would carry more than 100 KB of custom claims
 */
async function login(options = {}) {
  const transaction = describe(options);
  const log = [];
  const action = loadAction(options.file, log);
  const { api, issue } = createApi(transaction);
  await action.onExecutePostLogin(makeEvent(transaction, options), api);
  return { ...issue(), log };
}

/** Loads an Action with the globals of Auth0's runtime and no `require`: an Action without dependencies needs none. */
function loadAction(file = path.join(__dirname, 'action.js'), log = []) {
  const module = { exports: {} };
  const console = { log: (...words) => log.push(words.join(' ')) };
  const context = vm.createContext({ module, exports: module.exports, console, URL });
  vm.runInContext(fs.readFileSync(file, 'utf8'), context, { filename: file });
  return module.exports;
}

/** The `api` object of the post-login trigger, and `issue()`, which says what arrived. */
function createApi(transaction) {
  const dropped = [];
  const access = {};
  const id = {};

  const setter = (token, claims) => (name, value) => {
    const why = refusal(token, name, transaction);
    // Defined rather than assigned: a claim may be called __proto__.
    if (why) dropped.push({ token, name, why });
    else Object.defineProperty(claims, name, { value, enumerable: true, configurable: true, writable: true });
    return api;
  };
  const api = {
    accessToken: { setCustomClaim: setter('access', access) },
    idToken: { setCustomClaim: setter('id', id) },
  };

  const issue = () => {
    const id_token_claims = serialize(id, 'ID token');
    return {
      access_token_format: accessTokenFormat(transaction),
      access_token_claims: serialize(access, 'access token'),
      id_token_claims,
      // /userinfo shows custom claims too [migrate]. Strict reading: those of the ID token, not of the access token.
      userinfo: { ...id_token_claims },
      dropped,
    };
  };
  return { api, issue };
}

/** Why Auth0 leaves this claim out of this token, or null if it arrives. */
function refusal(token, name, { audience, tenant, scopes, protocol }) {
  if (RESTRICTED_CLAIMS.includes(name)) return 'restricted name';

  const namespace = namespaceHost(name);
  if (namespace !== null) return isUnder(namespace, AUTH0_DOMAINS) ? 'namespace of Auth0' : null;

  if (Object.hasOwn(PROFILE_CLAIM_SCOPES, name)) {
    if (!scopes.includes(PROFILE_CLAIM_SCOPES[name])) return 'scope not requested';
    if (token === 'access' && PASSWORD_PROTOCOLS.includes(protocol)) return 'password grant';
  }
  // [create] allows profile claims on access tokens without excepting Auth0's own APIs from the rule on private names.
  // Strict reading: there, neither arrives.
  if (token === 'access' && isAuth0Api(audience, tenant)) return 'private name on an API of Auth0';
  return null;
}

/** The host of a namespaced name ('urn:auth0' counts as Auth0's), or null if the name is not namespaced. [create] */
function namespaceHost(name) {
  if (/^urn:auth0(:|$)/i.test(name)) return AUTH0_DOMAINS[0];
  if (/^urn:/i.test(name)) return '';
  if (!/^https?:\/\//i.test(name)) return null;
  try {
    return new URL(name).hostname.replace(/\.+$/, '');
  } catch {
    return null;
  }
}

/** The rule means the APIs that Auth0 runs, not those that a tenant registers; /userinfo is excepted. [migrate] */
function isAuth0Api(audience, tenant) {
  if (!audience || !URL.canParse(audience)) return false;
  const { hostname, pathname } = new URL(audience);
  const ours = hostname === tenant || isUnder(hostname, ['auth0.com', 'auth0app.com']);
  return ours && ['/api', '/api/v2', '/mfa'].includes(pathname.replace(/\/+$/, ''));
}

function isUnder(host, domains) {
  return domains.some((domain) => host === domain || host.endsWith(`.${domain}`));
}

/** An API's access token is a signed JWT, or that JWT encrypted [jwe]; without an API nobody but Auth0 can read it. */
function accessTokenFormat({ audience, tenant, encrypted }) {
  if (!audience || audience === `https://${tenant}/userinfo`) return 'opaque';
  return encrypted ? 'compact-nested-jwe' : 'jwt';
}

/** Claims as they are after the wire. */
function serialize(claims, token) {
  const json = JSON.stringify(claims);
  if (Buffer.byteLength(json) > MOST_CLAIM_BYTES) throw new LoginFailed(`custom claims of the ${token} exceed 100 KB`);
  return JSON.parse(json);
}

function describe({ tenant = 'tenant.eu.auth0.com', audience, scopes, protocol, encrypted }) {
  return {
    tenant,
    audience,
    scopes: scopes ?? ['openid', 'profile', 'email'],
    protocol: protocol ?? 'oidc-basic-profile',
    encrypted: encrypted ?? false,
  };
}

/** The `event` of the post-login trigger, as far as an Action for claims can care. */
function makeEvent({ tenant, audience, scopes, protocol }, { user, session, authentication, secrets = {} }) {
  const event = {
    client: { client_id: 'client', name: 'Web', metadata: {} },
    connection: { id: 'con_1', name: 'Username-Password-Authentication', strategy: 'auth0' },
    request: { hostname: tenant, ip: '192.0.2.1', method: 'GET', query: {}, body: {} },
    secrets,
    stats: { logins_count: 1 },
    tenant: { id: tenant.split('.')[0] },
    transaction: { protocol, requested_scopes: scopes },
    user: user === undefined
      ? { user_id: 'auth0|1', email: 'ada@example.com', email_verified: true, app_metadata: {}, user_metadata: {} }
      : user,
  };
  if (audience) event.resource_server = { identifier: audience };
  if (session !== undefined) event.session = session;
  if (authentication !== undefined) event.authentication = authentication;
  if (user === null) delete event.user;
  return event;
}

module.exports = { LoginFailed, RESTRICTED_CLAIMS, createApi, describe, loadAction, login };
