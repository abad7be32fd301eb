#!/usr/bin/env node
'use strict';

/**
 * Prints, as JSON, the custom claims that one login gets from the Action: action.js run through model.js.
 * Tests in other languages sign these claims and feed the token to holdfast.
 */

const { parseArgs } = require('node:util');
const { login } = require('./model.js');

const USAGE = `usage: node emit.js [--audience URL] [--namespace URL] [--email E] [--verified true|false] [--user JSON]
                    [--require-verified true|false] [--scope "openid email"] [--protocol NAME] [--tenant HOST]
                    [--authentication JSON] [--encrypted]

  --authentication  event.authentication
  --user       members laid over event.user; null: the event has no user
  --email ""   a user without an email
Standard members (iss, sub, aud, exp) are not printed: they are not the Action's.
`;

main(process.argv.slice(2)).catch((error) => {
  process.stderr.write(`${error.message}\n\n${USAGE}`);
  process.exitCode = 2;
});

async function main(args) {
  const text = { type: 'string' };
  const { values } = parseArgs({
    args,
    options: {
      audience: text, namespace: text, email: text, verified: text, user: text, 'require-verified': text, scope: text,
      protocol: text, tenant: text, authentication: text, encrypted: { type: 'boolean' },
    },
  });

  const { access_token_format, access_token_claims, id_token_claims, userinfo } = await login({
    tenant: values.tenant,
    audience: values.audience,
    scopes: values.scope?.split(' ').filter(Boolean),
    protocol: values.protocol,
    encrypted: values.encrypted,
    user: makeUser(values),
    authentication: values.authentication && JSON.parse(values.authentication),
    secrets: {
      ...(values.namespace !== undefined && { HOLDFAST_NAMESPACE: values.namespace }),
      ...(values['require-verified'] !== undefined && { HOLDFAST_REQUIRE_VERIFIED: values['require-verified'] }),
    },
  });
  const result = { access_token_format, access_token_claims, id_token_claims, userinfo };
  process.stdout.write(`${JSON.stringify(result, null, 2)}\n`);
}

function makeUser({ email = 'ada@example.com', verified = 'true', user = '{}' }) {
  if (!['true', 'false'].includes(verified)) throw new Error('--verified must be true or false');
  const over = JSON.parse(user);
  if (over === null) return null;
  if (typeof over !== 'object' || Array.isArray(over)) throw new Error('--user must be a JSON object or null');
  const known = email === '' ? {} : { email, email_verified: verified === 'true' };
  return { user_id: 'auth0|1', ...known, ...over };
}
