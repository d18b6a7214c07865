// node shop.mjs [PORT]: a server of the TypeScript SDK of 2026, over HTTP at PORT or over standard input and output.
import { createServer } from 'node:http';
import { Readable } from 'node:stream';
import { createMcpHandler, McpServer } from '@modelcontextprotocol/server';
import { serveStdio } from '@modelcontextprotocol/server/stdio';
import { z } from 'zod';

function createShop(context) {
    const shop = new McpServer({ name: 'shop', version: '1' });
    shop.registerTool(
        'find_price',
        {
            description: 'Find the price of an article.',
            inputSchema: z.object({ article: z.string() }),
            outputSchema: z.object({ cents: z.number(), era: z.string() })
        },
        async ({ article }) => ({
            content: [{ type: 'text', text: article }],
            structuredContent: { cents: 1250, era: context.era }
        })
    );
    shop.registerTool(
        'place_order',
        { description: 'Order an article.', inputSchema: z.object({ article: z.string() }) },
        async ({ article }, extra) => ({
            content: [{ type: 'text', text: `${article} ${JSON.stringify(extra.mcpReq._meta ?? {})}` }]
        })
    );
    return shop;
}

const [port] = process.argv.slice(2);
if (port === undefined) {
    serveStdio(createShop);
} else {
    const handler = createMcpHandler(createShop);
    createServer(async (incoming, outgoing) => {
        const body = ['GET', 'HEAD'].includes(incoming.method) ? undefined : Readable.toWeb(incoming);
        const request = new Request(`http://localhost:${port}${incoming.url}`, {
            method: incoming.method,
            headers: incoming.headers,
            body,
            duplex: 'half'
        });
        const response = await handler.fetch(request);
        outgoing.writeHead(response.status, Object.fromEntries(response.headers));
        if (response.body) Readable.fromWeb(response.body).pipe(outgoing);
        else outgoing.end();
    }).listen(Number(port), '127.0.0.1', () => console.log('listening'));
}
