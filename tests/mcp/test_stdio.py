"""The same server over standard input and output, as a process of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from inline_snapshot import snapshot
from mcp import Client, StdioServerParameters
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, TextContent

from agent_server.caller import Caller
from agent_server.db import Database
from tests import zygote
from tests.conftest import ROOT, everything
from tests.mcp.asking_tools import ASKING
from tests.mcp.conftest import Mode
from tests.mcp.notes import TOOLS, Notes


@asynccontextmanager
async def started(url: str, me: Caller, mode: Mode, *scopes: str) -> AsyncIterator[Client]:
    program, *arguments = zygote.command("tests.mcp.stdio_server", url, str(me.id), *scopes)
    parameters = StdioServerParameters(command=program, args=arguments, cwd=ROOT)
    async with Client(parameters, mode="auto" if mode == "modern" else mode) as client:
        yield client


async def test_the_tools_and_the_documents_are_served(url: str, database: Database, me: Caller, mode: Mode) -> None:
    async with started(url, me, mode, "*") as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == sorted({**TOOLS, **ASKING})
        added = await client.call_tool("add_note", {"text": "Buy fins"})
        assert len((await client.list_resources()).resources) == 2

    assert added.structured_content == {"text": "Buy fins", "topic": None}
    async with everything(database) as session:
        assert await Notes(session, me).texts() == ["Buy fins"]


async def test_what_a_tool_prints_does_not_reach_the_protocol(url: str, me: Caller, mode: Mode) -> None:
    async with started(url, me, mode, "*") as client:
        result = await client.call_tool("chatter", {})

    assert result.content == [TextContent(text="said it")]


async def test_failures_are_told_as_over_http(url: str, me: Caller, mode: Mode) -> None:
    async with started(url, me, mode, "*") as client:
        result = await client.call_tool("fail", {"how": "missing"})
        with pytest.raises(MCPError) as unknown:
            await client.call_tool("add_notes", {})

    assert (result.is_error, result.content) == (True, [TextContent(text="not_found: There is no note 7")])
    assert unknown.value.code == INVALID_PARAMS


async def test_a_missing_scope_is_an_error_of_the_protocol(url: str, me: Caller, mode: Mode) -> None:
    async with started(url, me, mode, "notes:read") as client:
        assert "add_note" not in [tool.name for tool in (await client.list_tools()).tools]
        with pytest.raises(MCPError) as refused:
            await client.call_tool("add_note", {"text": "Buy fins"})

    assert refused.value.error.model_dump() == snapshot(
        {
            "code": -32600,
            "message": "forbidden: add_note needs the scope notes:write, which this caller lacks",
            "data": {"code": "forbidden", "scope": "notes:write"},
        }
    )
