"""A call that its client no longer wants."""

import asyncio

import pytest
from mcp import Client

from agent_server.caller import Caller
from agent_server.calls.call import Runtime
from agent_server.db import Database
from agent_server.mcp.server import create_mcp_server
from agent_server.settings import Settings
from tests.conftest import everything
from tests.mcp.conftest import Mode, Notebook
from tests.mcp.notes import TOOLS, Gate, Notes


async def cancelled_once_begun(calling: "asyncio.Task[object]", gate: Gate) -> None:
    """The timeout only keeps a broken build from hanging: the tool itself would wait for an hour."""
    async with asyncio.timeout(20):
        await gate.begun.wait()
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        await gate.stopped.wait()
    gate.begun.clear()
    gate.stopped.clear()


async def test_a_client_that_leaves_stops_its_call_and_nothing_of_it_is_kept(notebook: Notebook, mode: Mode) -> None:
    async def call() -> None:
        async with notebook.client(mode) as client:
            await client.call_tool("wait_forever", {})

    await cancelled_once_begun(asyncio.create_task(call()), notebook.gate)

    assert await notebook.notes() == []


async def test_stopped_calls_give_their_connections_back(notebook: Notebook, mode: Mode) -> None:
    for _ in range(10):  # more than the pool has
        calling = asyncio.create_task(notebook.post(mode, "tools/call", {"name": "wait_forever", "arguments": {}}))
        await cancelled_once_begun(calling, notebook.gate)

    async with notebook.client(mode) as client:
        result = await client.call_tool("list_notes", {})
    assert result.structured_content == {"result": []}


async def test_a_call_is_stopped_by_notice_over_a_lasting_connection(
    database: Database, settings: Settings, gate: Gate, me: Caller, mode: Mode
) -> None:
    """As over stdio, where there is no request to hang up."""
    server = create_mcp_server(
        Runtime(settings=settings, database=database, resources={Gate: gate}),
        TOOLS,
        name="notes",
        version="1.0",
        instructions="",
        caller=lambda: me,
    )
    async with Client(server, mode="auto" if mode == "modern" else mode) as client:
        await cancelled_once_begun(asyncio.create_task(client.call_tool("wait_forever", {})), gate)
        result = await client.call_tool("list_notes", {})

    assert result.structured_content == {"result": []}
    async with everything(database) as session:
        assert await Notes(session, me).texts() == []
