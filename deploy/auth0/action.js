'use strict';

/**
 * Auth0 post-login Action: puts the user's email into the tokens, where holdfast looks for it.
 *
 * The idea: say it in every form that Auth0 lets through. Auth0 drops a claim it does not allow without a word and
 * without failing the login, and which forms it drops depends on the API, the scopes and the grant (README.md, "Which
 * form arrives where"). A token that carries its email needs no call to /userinfo, and so no share of its rate limit.
 *
 *   direct      email, email_verified                      only if the login asked for the scope `email`
 *   nested      user: { email, email_verified }            not on Auth0's own APIs
 *   namespaced  https://…/email, https://…/email_verified  always; this is the form to rely on
 *               https://…/user: { email, email_verified }
 *               https://…/session_id                     the session, in access tokens: what a logout ends
 *               https://…/amr, /acr, /auth_time          how and when the user logged in, in access tokens
 *
 * It must never fail a login, whatever the event looks like: nothing here throws, denies, waits or calls out. No
 * dependencies; Node 18 and 22. Log lines never hold an email or a secret.
 *
 * Secrets, both optional:
 *   HOLDFAST_NAMESPACE         https URL that you control, not under an Auth0 domain, without query or fragment.
 *                              Default: the identifier of the API that the login asks for, if it is such a URL.
 *   HOLDFAST_REQUIRE_VERIFIED  `true` leaves out an email that is not verified. Default: off.
 */

// Auth0 ignores claims whose namespace lies under one of these, so such a namespace would be a silent mistake.
const AUTH0_DOMAINS = ['auth0.com', 'webtask.io', 'webtask.run'];

// More than 100 KB of custom claims is the one thing that does fail a login. With these bounds the claims of this
// Action stay under 8 KB. 254 is also the longest address that holdfast takes (RFC 5321, erratum 1690).
const LONGEST_EMAIL = 254;
const LONGEST_NAMESPACE = 200;
const LONGEST_SESSION = 256;
const LONGEST_METHOD = 128;
const MOST_METHODS = 16;

// What an application writes into `acr_values` to have Auth0 ask for another factor.
const MULTI_FACTOR = 'http://schemas.openid.net/pape/policies/2007/06/multi-factor';

exports.onExecutePostLogin = async (event, api) => {
  try {
    const secrets = event.secrets || {};
    const profile = emailProfile(event.user, isOn(secrets.HOLDFAST_REQUIRE_VERIFIED));
    const session = sessionOf(event.session);
    const authentication = Object.entries(authenticationOf(event.authentication));
    if (!profile && !session && authentication.length === 0) return;

    const claims = profile ? [...Object.entries(profile), ['user', profile]] : [];
    const namespace = chooseNamespace(secrets.HOLDFAST_NAMESPACE, event.resource_server);
    if (namespace) {
      if (session) set(api, 'accessToken', `${namespace}/session_id`, session);
      for (const [name, value] of authentication) set(api, 'accessToken', `${namespace}/${name}`, value);
      for (const [name, value] of [...claims]) claims.push([`${namespace}/${name}`, value]);
    }
    for (const [name, value] of claims) {
      set(api, 'accessToken', name, value);
      set(api, 'idToken', name, value);
    }
  } catch {
    // The error is not printed: its message could quote the event.
    console.log('holdfast: the login event is not of the known shape; no email was added, the login goes on');
  }
};

/** What is known of the email: `{ email, email_verified? }`, or null if there is none to give. */
function emailProfile(user, requireVerified) {
  const email = user && user.email;
  if (typeof email !== 'string' || email === '' || email.length > LONGEST_EMAIL) return null;
  if (requireVerified && user.email_verified !== true) return null;
  // Unknown is not the same as false: a connection that does not say leaves the claim out.
  return typeof user.email_verified === 'boolean' ? { email, email_verified: user.email_verified } : { email };
}

/**
 * The id of the session, or null. By it a logout at Auth0 ends the tokens of this session alone. Auth0 puts `sid` into
 * ID and logout tokens, and does not allow it in an access token; so it goes there under the namespace.
 */
function sessionOf(session) {
  const id = session && session.id;
  return typeof id === 'string' && id !== '' && id.length <= LONGEST_SESSION ? id : null;
}

/**
 * How and when the user logged in: `{ amr?, acr?, auth_time? }`. Routes can require it. The time is that of the latest
 * factor, in seconds. Auth0 reserves the plain names, so they go under the namespace.
 */
function authenticationOf(authentication) {
  const methods = authentication && Array.isArray(authentication.methods) ? authentication.methods : [];
  const isMethod = (one) => one && typeof one.name === 'string' && one.name !== '' && one.name.length <= LONGEST_METHOD;
  const known = methods.filter(isMethod).slice(0, MOST_METHODS);
  const times = known.map((one) => (typeof one.timestamp === 'string' ? Date.parse(one.timestamp) : NaN));
  const latest = Math.floor(Math.max(...times.filter(Number.isFinite)) / 1000);
  const names = [...new Set(known.map((one) => one.name))];
  return {
    ...(names.length > 0 && { amr: names }),
    ...(names.includes('mfa') && { acr: MULTI_FACTOR }),
    ...(Number.isFinite(latest) && latest >= 0 && { auth_time: latest }),
  };
}

/** A switch that a typo cannot turn off: anything but nothing or "false" is on. */
function isOn(secret) {
  return secret != null && !['', 'false'].includes(String(secret).trim().toLowerCase());
}

/** The namespace without a trailing slash, or null. A bad secret is reported, and then the default takes its place. */
function chooseNamespace(secret, resourceServer) {
  if (secret != null && secret !== '') {
    const namespace = checkNamespace(secret);
    if (namespace) return namespace;
    console.log('holdfast: HOLDFAST_NAMESPACE is not usable: it must be an https URL outside auth0.com, webtask.io ' +
      'and webtask.run, without query or fragment; the identifier of the API is used instead, if it is one');
  }
  const namespace = checkNamespace(resourceServer && resourceServer.identifier);
  if (!namespace) {
    console.log('holdfast: no namespace, so no namespaced email claim: set the secret HOLDFAST_NAMESPACE');
  }
  return namespace;
}

function checkNamespace(text) {
  if (typeof text !== 'string' || text.length > LONGEST_NAMESPACE) return null;
  const trimmed = text.trim();
  // The URL parser repairs what it is given (drops tabs and newlines, turns backslashes); a name must not be guessed.
  if (/[\s\\?#@]/.test(trimmed)) return null;
  let url;
  try {
    url = new URL(trimmed);
  } catch {
    return null;
  }
  const host = url.hostname.replace(/\.+$/, '');
  if (url.protocol !== 'https:' || AUTH0_DOMAINS.some((own) => host === own || host.endsWith(`.${own}`))) return null;
  return (url.origin + url.pathname).replace(/\/+$/, '');
}

/** One claim that cannot be set must not keep the others from being set. */
function set(api, token, name, value) {
  try {
    api[token].setCustomClaim(name, value);
  } catch {
    console.log(`holdfast: a claim could not be set on the ${token}; the login goes on`);
  }
}
