// An MCP client. It knows the URL of a server, and perhaps a token:
//
//     node client.mjs http://127.0.0.1:8080/mcp [TOKEN]
//
// If the server wants another token or any at all, the library finds out where to log in: from the challenge to the
// metadata, from there to the authorization server. A real client then opens a browser; this one prints the URL.
import { UnauthorizedError } from '@modelcontextprotocol/sdk/client/auth.js';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';

const [url, token] = process.argv.slice(2);
const redirectUrl = 'http://127.0.0.1:33418/callback';
const authProvider = {
  redirectUrl,
  clientMetadata: { client_name: 'example', redirect_uris: [redirectUrl] },
  clientInformation: () => ({ client_id: 'example-client' }),
  tokens: () => token && { access_token: token, token_type: 'Bearer' },
  saveTokens: () => {},
  saveCodeVerifier: () => {},
  codeVerifier: () => '',
  redirectToAuthorization: (login) => console.log(`Log in at ${login}`),
};

const client = new Client({ name: 'example', version: '1.0.0' });
try {
  await client.connect(new StreamableHTTPClientTransport(new URL(url), { authProvider }));
  const { content } = await client.callTool({ name: 'whoami' });
  console.log(content[0].text);
} catch (error) {
  if (!(error instanceof UnauthorizedError)) {
    throw error;
  }
} finally {
  await client.close();
}
