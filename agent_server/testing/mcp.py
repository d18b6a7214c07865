"""An MCP client of the server under test, without a socket."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from mcp import Client

from agent_server.mcp.process import create_mcp
from agent_server.testing.server import AgentCaller


@asynccontextmanager
async def mcp_client(caller: AgentCaller, **options: Any) -> AsyncIterator[Client]:
    """A client that acts as `caller`; `options` are those of `mcp.Client`."""
    failure: Exception | None = None
    async with Client(create_mcp(caller.agent_server.server, caller.caller), **options) as client:
        try:
            yield client
        except Exception as error:  # noqa: BLE001  # raised below: the client's task groups would put it into groups
            failure = error
    if failure is not None:
        raise failure
