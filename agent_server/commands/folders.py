"""agent-server prompt render | tool list: what is read of the workspace's folders alone"""

from agent_server.commands.context import CommandContext
from agent_server.commands.terminal import say, show
from agent_server.tool import describe


async def list_tools(context: CommandContext, as_json: bool) -> None:
    tools = context.workspace.tools.values()
    if as_json:
        show([describe(tool) for tool in tools])
        return
    for tool in tools:
        say(f"{tool.name:<24} {tool.effect:<7} {tool.scope:<22} {tool.description.partition(chr(10))[0]}")
