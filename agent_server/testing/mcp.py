"""An MCP client of the server under test, without a socket."""

from typing import Any

from mcp import Client

from agent_server.app import create_mcp
from agent_server.testing.server import AgentCaller


def mcp_client(caller: AgentCaller, **options: Any) -> Client:
    """A client that acts as `caller`, to be opened with `async with`; `options` are those of `mcp.Client`."""
    return Client(create_mcp(caller.agent_server.server, caller.caller), **options)
