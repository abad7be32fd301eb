// An MCP server that knows nothing of tokens: holdfast has checked who asks, and the proxy says it in headers.
import { createServer } from 'node:http';
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';

const service = createServer(async (request, response) => {
  if (request.url !== '/mcp') {
    response.writeHead(404).end();
    return;
  }
  // Each request stands alone: no session that another user could take over.
  const server = new McpServer({ name: 'example', version: '1.0.0' });
  server.registerTool('whoami', { description: 'Says who is asking' }, ({ requestInfo }) => ({
    content: [{ type: 'text', text: `You are ${requestInfo.headers['x-user-email']}` }],
  }));
  const transport = new StreamableHTTPServerTransport({ sessionIdGenerator: undefined });
  response.on('close', () => server.close());
  await server.connect(transport);
  await transport.handleRequest(request, response);
});

// Only the proxy may reach it: any other client could claim to be any user.
service.listen(4192, '127.0.0.1');
