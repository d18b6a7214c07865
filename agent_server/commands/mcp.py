"""agent-server mcp"""

from agent_server.commands.context import CommandContext
from agent_server.mcp.process import create_mcp
from agent_server.mcp.stdio import serve_stdio


async def mcp(context: CommandContext, toolset: str | None) -> None:
    server = await context.server()
    caller = await context.caller()
    await serve_stdio(create_mcp(server, caller, toolset))
