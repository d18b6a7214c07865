// A task as the TypeScript SDK's own client has it: node tasks.mjs URL FOLDER
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { ElicitRequestSchema } from "@modelcontextprotocol/sdk/types.js";

const [url, folder] = process.argv.slice(2);
const say = (message) => console.log(JSON.stringify(message));
const client = new Client({ name: "test", version: "1" }, { capabilities: { elicitation: { form: {} } } });
client.setRequestHandler(ElicitRequestSchema, async (request) => {
  say({ asked: request.params.message });
  return { action: "accept", content: { size: 41 } };
});
await client.connect(new StreamableHTTPClientTransport(new URL(url)));
await client.listTools();
const tasks = client.experimental.tasks;
for (const call of [{ name: "write_line", arguments: { folder, line: "typescript" } }, { name: "fit", arguments: {} }]) {
  for await (const message of tasks.callToolStream(call)) {
    if (message.type === "taskCreated") say({ created: message.task.taskId });
    if (message.type === "result") say({ result: message.result.content[0].text });
    if (message.type === "error") say({ error: String(message.error) });
  }
}
say({ listed: (await tasks.listTasks()).tasks.map((task) => task.status) });
await client.close();
