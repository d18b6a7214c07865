"""The tools and the content of a process as MCP clients have them."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from agent_server.caller import Caller
from agent_server.errors import InvalidInput, name_known, quote_value
from agent_server.mcp.carrying import carry_questions
from agent_server.mcp.offers import Offers
from agent_server.readable import create_documents
from agent_server.server import Server
from agent_server.settings import Settings
from agent_server.version import VERSION
from agent_server.workspace import Workspace

if TYPE_CHECKING:
    from mcp.server.lowlevel import Server as McpServer


def create_mcp(
    server: Server,
    caller: Caller,
    toolset: str | None = None,
    *,
    start: Callable[[], Awaitable[object]] | None = None,
) -> "McpServer":
    """The MCP server for one client, who is `caller`, of the whole workspace or of a toolset. `start` has this process run
    turns and tasks, if it does not yet; without it there are no tasks. Raises InvalidInput for a toolset that is not there."""
    from agent_server.mcp.agents import AskAgent  # noqa: PLC0415  # heavy
    from agent_server.mcp.server import create_mcp_server  # noqa: PLC0415  # heavy

    declared = server.workspace.toolsets
    if toolset is not None and toolset not in declared:
        raise InvalidInput(f"toolset: there is no toolset {quote_value(toolset)}; {name_known(toolset, declared)}")
    offers = Offers(server.workspace)
    offers = offers if toolset is None else offers.narrow(toolset)
    tasks = None if start is None else carry_questions(server, lambda: server, start)
    described = None if toolset is None else declared[toolset].description
    return create_mcp_server(
        server.runtime,
        offers.workspace.tools,
        name=server.settings.title,
        version=VERSION,
        instructions=described or tell_instructions(server.workspace, server.settings),
        caller=lambda: caller,
        documents=create_documents(server.database) if offers.has_content else None,
        offers=offers,
        agents=AskAgent(lambda: server, start, tasks=tasks is not None) if offers.asks else None,
        tasks=tasks,
        start=start,
    )


def tell_instructions(workspace: Workspace, settings: Settings) -> str:
    """What an MCP client is told of this server."""
    if settings.mcp_instructions:
        return settings.mcp_instructions
    lines = [f"- {agent.name}: {agent.description}" for agent in workspace.specialists]
    return "Tools and content of this server. Its specialists, when asked by chat:\n" + "\n".join(lines)
