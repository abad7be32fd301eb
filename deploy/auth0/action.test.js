'use strict';

/**
 * action.js, the very file that is deployed, against the model of Auth0 in model.js.
 *
 * Run: node --test deploy/auth0/action.test.js
 */

const assert = require('node:assert/strict');
const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const { describe: group, test } = require('node:test');

const { LoginFailed, RESTRICTED_CLAIMS, createApi, describe, loadAction, login } = require('./model.js');

const API = 'https://api.example.com';
const NAMESPACE = 'https://claims.example.com';
const SECRETS = { HOLDFAST_NAMESPACE: NAMESPACE };
const TENANT = 'tenant.eu.auth0.com';

const DIRECT = { email: 'ada@example.com', email_verified: true };
const NESTED = { user: DIRECT };
const NAMESPACED = namespaced(NAMESPACE);

function namespaced(namespace, profile = DIRECT) {
  const claims = { [`${namespace}/user`]: profile };
  for (const [name, value] of Object.entries(profile)) claims[`${namespace}/${name}`] = value;
  return claims;
}

function profileOf(email, email_verified) {
  return { user_id: 'auth0|1', email, email_verified };
}

group('the session', () => {
  const session = { id: 'aBcD1234' };

  test('its id arrives under the namespace, in the access token alone', async () => {
    const result = await login({ audience: API, secrets: SECRETS, session });
    const claim = { [`${NAMESPACE}/session_id`]: 'aBcD1234' };
    assert.deepEqual(result.access_token_claims, { ...DIRECT, ...NESTED, ...NAMESPACED, ...claim });
    assert.deepEqual(result.id_token_claims, { ...DIRECT, ...NESTED, ...NAMESPACED });
  });

  test('it arrives without an email, too', async () => {
    const result = await login({ audience: API, secrets: SECRETS, session, user: { user_id: 'auth0|1' } });
    assert.deepEqual(result.access_token_claims, { [`${NAMESPACE}/session_id`]: 'aBcD1234' });
    assert.deepEqual(result.id_token_claims, {});
  });

  for (const unfit of [null, {}, { id: '' }, { id: 7 }, { id: 'x'.repeat(257) }, 'aBcD1234']) {
    test(`${JSON.stringify(unfit).slice(0, 30)} is no session, and the login goes on`, async () => {
      const result = await login({ audience: API, secrets: SECRETS, session: unfit });
      assert.deepEqual(result.access_token_claims, { ...DIRECT, ...NESTED, ...NAMESPACED });
    });
  }
});

group('how and when the user logged in', () => {
  const claims = async (methods) => {
    const authentication = Array.isArray(methods) ? { methods } : methods;
    const result = await login({ audience: API, secrets: SECRETS, authentication, user: { user_id: 'auth0|1' } });
    assert.deepEqual(result.id_token_claims, {});
    const names = Object.entries(result.access_token_claims).map(([name, value]) => [name.replace(`${NAMESPACE}/`, ''), value]);
    return Object.fromEntries(names);
  };
  const pwd = { name: 'pwd', timestamp: '2026-11-27T10:00:00.900Z' };
  const mfa = { name: 'mfa', timestamp: '2026-11-27T10:05:00.900Z' };
  const acr = 'http://schemas.openid.net/pape/policies/2007/06/multi-factor';

  test('the factors and the time of the latest arrive under the namespace, in the access token alone', async () => {
    assert.deepEqual(await claims([pwd]), { amr: ['pwd'], auth_time: 1795773600 });
    assert.deepEqual(await claims([mfa, pwd]), { amr: ['mfa', 'pwd'], acr, auth_time: 1795773900 });
    assert.deepEqual(await claims([pwd, pwd]), { amr: ['pwd'], auth_time: 1795773600 });
  });

  test('what cannot be read is left out, and the login goes on', async () => {
    for (const unfit of [null, {}, 'mfa', { methods: null }, { methods: 'mfa' }, [null, 7, {}, { name: 7 }, { name: '' }]]) {
      assert.deepEqual(await claims(unfit), {});
    }
    for (const timestamp of [undefined, null, 7, 'yesterday', '', '1960-01-01T00:00:00Z']) {
      assert.deepEqual(await claims([{ name: 'pwd', timestamp }]), { amr: ['pwd'] });
    }
    assert.deepEqual(await claims([{ name: 'x'.repeat(129), timestamp: pwd.timestamp }]), {});
    const many = Array.from({ length: 100 }, (_, number) => ({ name: `m${number}`, timestamp: pwd.timestamp }));
    assert.equal((await claims(many)).amr.length, 16);
  });
});

group('which form arrives where', () => {
  test('a signed token for an API carries every form, and so do the ID token and /userinfo', async () => {
    const result = await login({ audience: API, secrets: SECRETS });
    const all = { ...DIRECT, ...NESTED, ...NAMESPACED };
    assert.equal(result.access_token_format, 'jwt');
    assert.deepEqual(result.access_token_claims, all);
    assert.deepEqual(result.id_token_claims, all);
    assert.deepEqual(result.userinfo, all);
    assert.deepEqual(result.dropped, []);
    assert.deepEqual(result.log, []);
  });

  test('an encrypted token carries the same claims as the signed one inside it', async () => {
    const signed = await login({ audience: API, secrets: SECRETS });
    const encrypted = await login({ audience: API, secrets: SECRETS, encrypted: true });
    assert.equal(encrypted.access_token_format, 'compact-nested-jwe');
    assert.deepEqual(encrypted.access_token_claims, signed.access_token_claims);
  });

  for (const audience of [undefined, `https://${TENANT}/userinfo`]) {
    test(`an opaque token (audience ${audience}) gets its email from /userinfo`, async () => {
      const result = await login({ audience, secrets: SECRETS });
      assert.equal(result.access_token_format, 'opaque');
      assert.deepEqual(result.userinfo, { ...DIRECT, ...NESTED, ...NAMESPACED });
    });
  }

  test('without the scope email the direct form is dropped and the others arrive', async () => {
    const result = await login({ audience: API, secrets: SECRETS, scopes: ['openid'] });
    assert.deepEqual(result.access_token_claims, { ...NESTED, ...NAMESPACED });
    assert.deepEqual(result.id_token_claims, { ...NESTED, ...NAMESPACED });
  });

  test('after a password grant the direct form is missing from the access token only', async () => {
    const result = await login({ audience: API, secrets: SECRETS, protocol: 'oauth2-password' });
    assert.deepEqual(result.access_token_claims, { ...NESTED, ...NAMESPACED });
    assert.deepEqual(result.id_token_claims, { ...DIRECT, ...NESTED, ...NAMESPACED });
  });

  for (const audience of [`https://${TENANT}/api/v2/`, `https://${TENANT}/api`, 'https://tenant.auth0app.com/mfa']) {
    test(`on Auth0's own API ${audience} only the namespaced form arrives`, async () => {
      const result = await login({ audience, secrets: SECRETS });
      assert.deepEqual(result.access_token_claims, NAMESPACED);
      assert.deepEqual(result.id_token_claims, { ...DIRECT, ...NESTED, ...NAMESPACED });
    });
  }
});

group('the email', () => {
  const absent = {
    'no user': null,
    'no email': { user_id: 'sms|1' },
    'a null email': profileOf(null, true),
    'an empty email': profileOf('', true),
    'an email that is a number': profileOf(42, true),
    'an email that is a list': profileOf(['ada@example.com'], true),
    'an email that is an object': profileOf({ toString: () => 'ada@example.com' }, true),
    'an email that is longer than any address': profileOf(`${'a'.repeat(255)}@example.com`, true),
    'an email that alone would fail the login': profileOf('a'.repeat(200_000), true),
  };
  for (const [what, user] of Object.entries(absent)) {
    test(`${what} sets no claim at all`, async () => {
      const result = await login({ audience: API, secrets: SECRETS, user });
      assert.deepEqual(result.access_token_claims, {});
      assert.deepEqual(result.id_token_claims, {});
      assert.deepEqual(result.dropped, []);
    });
  }

  test('the longest address that holdfast takes arrives', async () => {
    const email = `${'a'.repeat(242)}@example.com`;
    assert.equal(email.length, 254);
    const result = await login({ audience: API, secrets: SECRETS, user: profileOf(email, true) });
    assert.equal(result.access_token_claims.email, email);
  });

  test('an email outside ASCII arrives as it is', async () => {
    const email = 'zoë@bücher.example';
    const result = await login({ audience: API, secrets: SECRETS, user: profileOf(email, true) });
    assert.equal(result.access_token_claims[`${NAMESPACE}/email`], email);
  });

  test('an unverified email arrives and says so in every form', async () => {
    const result = await login({ audience: API, secrets: SECRETS, user: profileOf('ada@example.com', false) });
    const unverified = { email: 'ada@example.com', email_verified: false };
    assert.deepEqual(result.access_token_claims, {
      ...unverified, user: unverified, ...namespaced(NAMESPACE, unverified),
    });
  });

  for (const email_verified of [undefined, null, 'true', 1]) {
    test(`email_verified that is ${JSON.stringify(email_verified)} is left out, not guessed`, async () => {
      const user = profileOf('ada@example.com', email_verified);
      const result = await login({ audience: API, secrets: SECRETS, user });
      const unknown = { email: 'ada@example.com' };
      assert.deepEqual(result.access_token_claims, { ...unknown, user: unknown, ...namespaced(NAMESPACE, unknown) });
    });
  }
});

group('HOLDFAST_REQUIRE_VERIFIED', () => {
  const loginWith = async (HOLDFAST_REQUIRE_VERIFIED, email_verified) => {
    const secrets = { ...SECRETS, HOLDFAST_REQUIRE_VERIFIED };
    const user = profileOf('ada@example.com', email_verified);
    return (await login({ audience: API, secrets, user })).access_token_claims;
  };

  for (const on of ['true', 'TRUE', ' true\n', 'yes', '1', 'tru']) {
    test(`${JSON.stringify(on)} leaves out all that is not verified`, async () => {
      for (const email_verified of [false, undefined, null, 'true', 1]) {
        assert.deepEqual(await loginWith(on, email_verified), {});
      }
      assert.equal((await loginWith(on, true)).email, 'ada@example.com');
    });
  }
  for (const off of [undefined, null, '', 'false', 'False ']) {
    test(`${JSON.stringify(off)} lets an unverified email through`, async () => {
      assert.equal((await loginWith(off, false)).email, 'ada@example.com');
    });
  }
});

group('HOLDFAST_NAMESPACE', () => {
  const good = {
    'https://claims.example.com': NAMESPACE,
    'https://claims.example.com/': NAMESPACE,
    ' https://claims.example.com///\n': NAMESPACE,
    'HTTPS://Claims.Example.COM': NAMESPACE,
    'https://claims.example.com:443': NAMESPACE,
    'https://example.com/tenants/one/': 'https://example.com/tenants/one',
    'https://auth0.com.example.com': 'https://auth0.com.example.com',
    'https://notauth0.com': 'https://notauth0.com',
  };
  for (const [secret, namespace] of Object.entries(good)) {
    test(`${JSON.stringify(secret)} is taken as ${namespace}`, async () => {
      const result = await login({ audience: API, secrets: { HOLDFAST_NAMESPACE: secret } });
      assert.deepEqual(result.access_token_claims, { ...DIRECT, ...NESTED, ...namespaced(namespace) });
      assert.deepEqual(result.log, []);
    });
  }

  const bad = [
    'http://claims.example.com', 'claims.example.com', 'https://', 'ftp://claims.example.com', 'javascript:alert(1)',
    'urn:auth0:claims', 'urn:example:claims', '__proto__', 'constructor', '/', '   ', 'https://user:pw@example.com',
    'https://claims.example.com?x=1', 'https://claims.example.com/#', 'https://claims.exa\nmple.com',
    'https:\\\\claims.example.com', `https://example.com/${'a'.repeat(200)}`,
    'https://auth0.com', 'https://tenant.eu.auth0.com/', 'https://AUTH0.com', 'https://auth0.com.',
    'https://x.webtask.io', 'https://x.webtask.run', 'https://%61uth0.com', 42, true, {}, ['https://claims.example.com'],
  ];
  for (const secret of bad) {
    test(`${JSON.stringify(secret)} is refused aloud, and the API's identifier takes its place`, async () => {
      const result = await login({ audience: API, secrets: { HOLDFAST_NAMESPACE: secret } });
      assert.deepEqual(result.access_token_claims, { ...DIRECT, ...NESTED, ...namespaced(API) });
      assert.deepEqual(result.dropped, []);
      assert.equal(result.log.length, 1);
      assert.match(result.log[0], /^holdfast: HOLDFAST_NAMESPACE is not usable: /);
    });
  }

  for (const secrets of [{}, null, undefined, { HOLDFAST_NAMESPACE: '' }]) {
    test(`secrets ${JSON.stringify(secrets)} fall back to the API's identifier in silence`, async () => {
      const result = await login({ audience: `${API}/`, secrets });
      assert.deepEqual(result.access_token_claims, { ...DIRECT, ...NESTED, ...namespaced(API) });
      assert.deepEqual(result.log, []);
    });
  }

  for (const audience of [undefined, 'orders-api', 'http://api.example.com', `https://${TENANT}/api/v2/`]) {
    test(`with no secret and the API ${audience} there is no namespaced form, and the log says what to do`, async () => {
      const result = await login({ audience });
      assert.deepEqual(result.id_token_claims, { ...DIRECT, ...NESTED });
      assert.equal(result.log.length, 1);
      assert.match(result.log[0], /^holdfast: no namespace, .* set the secret HOLDFAST_NAMESPACE$/);
    });
  }

  test('no log line holds the email or a secret', async () => {
    const secret = 'http://hunter2.example.com';
    const { log } = await login({ audience: 'orders-api', secrets: { HOLDFAST_NAMESPACE: secret } });
    assert.equal(log.length, 2);
    assert.doesNotMatch(log.join('\n'), /hunter2|ada@/);
  });
});

group('a login never fails', () => {
  const action = loadAction();
  const working = () => createApi(describe({ audience: API }));
  const throwing = () => { throw new Error('ada@example.com'); };

  const events = {
    'undefined': undefined,
    'null': null,
    'a string': 'event',
    'empty': {},
    'a machine-to-machine event, without a user': { client: { client_id: 'm2m' }, secrets: SECRETS },
    'frozen': Object.freeze({ user: Object.freeze({ ...DIRECT }), secrets: Object.freeze({}) }),
    'one whose user throws': { get user() { throw new Error('ada@example.com'); } },
    'one whose secrets throw': { user: DIRECT, secrets: new Proxy({}, { get: throwing }) },
    'one whose secret cannot be a string': { user: DIRECT, secrets: { HOLDFAST_REQUIRE_VERIFIED: Object.create(null) } },
    'one whose API throws': { user: DIRECT, secrets: {}, resource_server: { get identifier() { throw new Error(); } } },
  };
  for (const [what, event] of Object.entries(events)) {
    test(`event: ${what}`, async () => {
      await assert.doesNotReject(action.onExecutePostLogin(event, working().api));
    });
  }

  const apis = {
    'undefined': undefined,
    'empty': {},
    'one whose setters throw': {
      accessToken: { setCustomClaim: throwing }, idToken: { setCustomClaim: throwing },
    },
    'one whose setter is not a function': { accessToken: { setCustomClaim: 1 }, idToken: null },
  };
  for (const [what, api] of Object.entries(apis)) {
    test(`api: ${what}`, async () => {
      await assert.doesNotReject(action.onExecutePostLogin({ user: DIRECT, secrets: SECRETS }, api));
    });
  }

  test('an access token that cannot be written to does not keep the email out of the ID token', async () => {
    const { api, issue } = working();
    const log = [];
    await loadAction(undefined, log).onExecutePostLogin(
      { user: DIRECT, secrets: SECRETS },
      { idToken: api.idToken, accessToken: { setCustomClaim: throwing } },
    );
    assert.deepEqual(issue().id_token_claims, { ...DIRECT, ...NESTED, ...NAMESPACED });
    assert.doesNotMatch(log.join('\n'), /ada@/);
  });

  test('the claims of the longest email and namespace stay under 8 KB, even if every character has to be escaped', async () => {
    const secrets = { HOLDFAST_NAMESPACE: `https://example.com/${'n'.repeat(180)}` };
    const result = await login({ audience: API, secrets, user: profileOf('\u0000'.repeat(254), true) });
    assert.equal(result.log.length, 0);
    assert.equal(result.access_token_claims.user.email.length, 254);
    assert.ok(Buffer.byteLength(JSON.stringify(result.access_token_claims)) < 8192);
  });

  test('20,000 events of any shape neither throw nor set a claim that Auth0 would refuse to any user', async () => {
    const random = generator(0x5eed);
    let withEmail = 0;
    for (let round = 0; round < 20_000; round += 1) {
      const event = randomEvent(random);
      const { api, issue } = working();
      await action.onExecutePostLogin(event, api);
      const { id_token_claims, dropped } = issue();
      assert.deepEqual(dropped, []);
      for (const [name, value] of Object.entries(id_token_claims)) {
        assert.match(name, /^(https:\/\/[^?#\s]+\/)?(email|email_verified|user)$/);
        if (name.endsWith('email')) assert.equal(value, event.user.email);
      }
      withEmail += 'email' in id_token_claims;
    }
    // Or the loop would prove nothing.
    assert.ok(withEmail > 1000 && withEmail < 19_000, `${withEmail} events had an email`);
  });
});

group('the file as it is deployed', () => {
  test('needs no module, and exports the one handler', () => {
    assert.deepEqual(Object.keys(loadAction()), ['onExecutePostLogin']);
    assert.doesNotMatch(fs.readFileSync(path.join(__dirname, 'action.js'), 'utf8'), /\brequire\(|\bimport\b/);
  });

  test('holds no marker that the Deploy CLI would replace', () => {
    assert.doesNotMatch(fs.readFileSync(path.join(__dirname, 'action.js'), 'utf8'), /@@\w+@@|##\w+##/);
  });

  test('loads with require, too', () => {
    assert.equal(typeof require('./action.js').onExecutePostLogin, 'function');
  });
});

group('the model drops what Auth0 drops', () => {
  const set = (options, name, value = 'x') => {
    const { api, issue } = createApi(describe(options));
    api.accessToken.setCustomClaim(name, value);
    api.idToken.setCustomClaim(name, value);
    return issue();
  };
  const arrives = (token, options, name) => Object.hasOwn(set(options, name)[`${token}_token_claims`], name);

  for (const name of RESTRICTED_CLAIMS) {
    test(`the restricted name ${name}, in silence, but not its namespaced form`, () => {
      assert.deepEqual(set({ audience: API }, name).access_token_claims, {});
      assert.deepEqual(set({ audience: API }, name).id_token_claims, {});
      assert.ok(arrives('access', { audience: API }, `${NAMESPACE}/${name}`));
    });
  }

  test('the list of restricted names is the documented one, and email is not on it', () => {
    assert.equal(RESTRICTED_CLAIMS.length, 60);
    assert.equal(new Set(RESTRICTED_CLAIMS).size, 60);
    for (const name of ['email', 'email_verified', 'user']) assert.ok(!RESTRICTED_CLAIMS.includes(name));
  });

  test('namespaces of Auth0, on every token', () => {
    const hosts = ['auth0.com', 'tenant.eu.auth0.com', 'example.webtask.io', 'example.webtask.run', 'AUTH0.COM.'];
    for (const host of hosts) {
      for (const scheme of ['http', 'https']) {
        assert.deepEqual(set({ audience: API }, `${scheme}://${host}/email`).access_token_claims, {});
        assert.deepEqual(set({ audience: API }, `${scheme}://${host}/email`).id_token_claims, {});
      }
    }
    assert.ok(!arrives('access', { audience: API }, 'urn:auth0:email'));
    assert.ok(arrives('access', { audience: API }, 'urn:example:email'));
    assert.ok(arrives('access', { audience: API }, 'https://auth0.com.example.com/email'));
  });

  test('private names on the access tokens of its own APIs, and on no other', () => {
    const own = { audience: `https://${TENANT}/api/v2/` };
    assert.ok(!arrives('access', own, 'user'));
    assert.ok(arrives('id', own, 'user'));
    assert.ok(arrives('access', own, `${NAMESPACE}/user`));
    assert.ok(arrives('access', { audience: `https://${TENANT}/userinfo` }, 'user'));
    assert.ok(arrives('access', { audience: API }, 'user'));
    assert.ok(arrives('access', { audience: 'https://api.example.com/api/v2/' }, 'user'));
    const customDomain = { tenant: 'login.example.com', audience: 'https://login.example.com/api/v2/' };
    assert.ok(!arrives('access', customDomain, 'user'));
  });

  test('a profile claim whose scope was not asked for', () => {
    assert.ok(arrives('access', { audience: API, scopes: ['email'] }, 'email'));
    for (const token of ['access', 'id']) assert.ok(!arrives(token, { audience: API, scopes: ['profile'] }, 'email'));
    assert.ok(arrives('access', { audience: API, scopes: ['profile'] }, 'family_name'));
    assert.ok(!arrives('access', { audience: API, scopes: ['email'] }, 'family_name'));
  });

  test('nothing by a name that means something to JavaScript', () => {
    const claims = set({ audience: API }, '__proto__', { email: 'eve@example.com' }).id_token_claims;
    assert.ok(Object.hasOwn(claims, '__proto__'));
    assert.equal(claims.email, undefined);
    assert.ok(arrives('access', { audience: API }, 'constructor'));
  });

  test('and it fails the login when one token holds more than 100 KB, counting each token by itself', () => {
    const half = 'x'.repeat(51 * 1024);
    const { api, issue } = createApi(describe({ audience: API }));
    api.accessToken.setCustomClaim('one', half);
    api.idToken.setCustomClaim('one', half);
    assert.doesNotThrow(issue);
    api.idToken.setCustomClaim(`${NAMESPACE}/two`, half);
    assert.throws(issue, LoginFailed);
  });
});

group('emit.js', () => {
  const command = path.join(__dirname, 'emit.js');
  const emit = (...args) => JSON.parse(execFileSync(process.execPath, [command, ...args], { encoding: 'utf8' }));

  test('prints what the model lets through', () => {
    const bob = { email: 'bob@example.com', email_verified: false };
    const result = emit('--audience', API, '--namespace', NAMESPACE, '--email', bob.email, '--verified', 'false');
    assert.deepEqual(result.access_token_claims, { ...bob, user: bob, ...namespaced(NAMESPACE, bob) });
  });

  test('takes a whole user, the absence of one, and the other switches', () => {
    assert.equal(emit('--audience', API, '--user', '{"email":"eve@example.com"}').id_token_claims.email, 'eve@example.com');
    assert.deepEqual(emit('--audience', API, '--user', 'null').id_token_claims, {});
    assert.deepEqual(emit('--audience', API, '--email', '').id_token_claims, {});
    assert.deepEqual(emit('--audience', API, '--verified', 'false', '--require-verified', 'true').id_token_claims, {});
    assert.equal(emit('--audience', API, '--scope', 'openid').access_token_claims.email, undefined);
    assert.equal(emit('--audience', API, '--encrypted').access_token_format, 'compact-nested-jwe');
    assert.equal(emit().access_token_format, 'opaque');
  });

  for (const args of [['--nope'], ['--verified', 'perhaps'], ['--user', '{'], ['--user', '[]'], ['stray']]) {
    test(`refuses ${args.join(' ')} with code 2 and its usage`, () => {
      assert.throws(
        () => execFileSync(process.execPath, [command, ...args], { stdio: 'pipe' }),
        (error) => error.status === 2 && /usage: /.test(error.stderr) && error.stdout.length === 0,
      );
    });
  }
});

/** A small generator (mulberry32): the same events in every run. */
function generator(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

function randomEvent(random) {
  const pick = (...choices) => choices[Math.floor(random() * choices.length)];
  const junk = () => pick(
    undefined, null, true, false, 0, NaN, '', ' ', '\r\n', '\u0000', 'true', '__proto__', '\ud800', 'a'.repeat(300),
    [], ['x'], {}, Object.create(null), () => 'x', Symbol('x'), 10n, new Date(NaN),
    new Proxy({}, { get() { throw new Error(); } }),
  );
  const either = (...sound) => (random() < 0.6 ? pick(...sound) : junk());
  return either({
    user: either({
      email: either('ada@example.com', 'zoë@bücher.example', 'not an address'),
      email_verified: either(true, false),
    }),
    secrets: either({
      HOLDFAST_NAMESPACE: either(NAMESPACE, `${NAMESPACE}/`, 'https://x.auth0.com', 'http://x', 'https://a.example/é'),
      HOLDFAST_REQUIRE_VERIFIED: either('true', 'false'),
    }),
    resource_server: either({ identifier: either(API, 'orders', 'https://tenant.auth0.com/api/v2/') }),
  });
}
