"""A call that its client no longer wants."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp import Client

from agent_server.caller import Caller
from agent_server.calls.call import Runtime
from agent_server.db import Database, new_id
from agent_server.identity.credentials import issue_key
from agent_server.identity.resolver import resolve_caller
from agent_server.mcp import OpenCalls, mcp_app
from agent_server.mcp.open_calls import name_request
from agent_server.mcp.server import create_mcp_server
from agent_server.settings import Settings
from agent_server.signals import CallLeft, Signals
from tests.conftest import everything
from tests.mcp.conftest import HELLO, Mode, Notebook, serve_mcp
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


@contextlib.asynccontextmanager
async def waiting_call(
    notebook: Notebook, session: str | None, id: int | str = 7
) -> AsyncIterator["asyncio.Task[Any]"]:
    """A call that has begun and waits for an hour, as a client of before 2026 makes it."""
    body = {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "wait_forever", "arguments": {}}}
    calling = asyncio.create_task(notebook.send(body, {"Mcp-Session-Id": session}))
    async with asyncio.timeout(20):
        await notebook.gate.begun.wait()
    yield calling
    calling.cancel()
    await asyncio.gather(calling, return_exceptions=True)


def _tell(signals: Signals, id: UUID) -> None:
    signals.send(CallLeft(id))


async def begin_session(notebook: Notebook) -> str:
    return str((await notebook.post("legacy", "initialize", HELLO)).headers["Mcp-Session-Id"])


async def say_left(notebook: Notebook, session: str | None, id: Any = 7) -> int:
    notice = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id, "reason": "timeout"}}
    return (await notebook.send(notice, {"Mcp-Session-Id": session})).status_code


async def test_a_notice_stops_the_call_it_names_and_nothing_of_it_is_kept(notebook: Notebook) -> None:
    session = await begin_session(notebook)
    async with waiting_call(notebook, session) as calling, asyncio.timeout(20):
        assert await say_left(notebook, session) == 202
        await notebook.gate.stopped.wait()
        answer = await calling
    assert answer.status_code == 200
    assert "result" not in answer.text
    assert await notebook.notes() == []


async def test_a_notice_of_another_caller_session_or_request_stops_nothing(notebook: Notebook) -> None:
    session, other_session = await begin_session(notebook), await begin_session(notebook)
    assert session != other_session
    async with everything(notebook.database) as session_of_database:
        key = (await issue_key(session_of_database, new_id(), name="other", scopes=["*"])).text
    async with waiting_call(notebook, session) as calling:
        await say_left(replace(notebook, key=key), session)
        await say_left(notebook, other_session)
        await say_left(notebook, None)
        for id in ("7", 8, None, True, [7], {"id": 7}, "x" * 100_000):
            await say_left(notebook, session, id)
        assert not notebook.gate.stopped.is_set()
        assert not calling.done()
        notebook.gate.open.set()
        assert '"result"' in (await calling).text


async def test_a_notice_that_reaches_another_replica_stops_the_call(
    database: Database, settings: Settings, gate: Gate, me: Caller, notebook: Notebook
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        replicas = []
        for _ in range(2):
            signals = Signals(database, new_id())
            calls = OpenCalls(partial(_tell, signals))
            signals.call_left = calls.leave_here
            await signals.start()
            stack.push_async_callback(signals.close)
            app = mcp_app(
                Runtime(settings=settings, database=database, resources={Gate: gate}),
                TOOLS,
                name="notes",
                version="1.0",
                instructions="",
                resolve=partial(resolve_caller, database),
                calls=calls,
            )
            replicas.append(replace(notebook, url=await stack.enter_async_context(serve_mcp(app))))
        first, second = replicas
        session = await begin_session(second)
        async with waiting_call(first, session), asyncio.timeout(20):
            assert await say_left(second, session) == 202
            await gate.stopped.wait()
    assert await notebook.notes() == []


async def test_a_notice_that_comes_before_its_call_stops_it(notebook: Notebook) -> None:
    session = await begin_session(notebook)
    await say_left(notebook, session)
    body = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "wait_forever", "arguments": {}}}
    async with asyncio.timeout(20):
        answer = await notebook.send(body, {"Mcp-Session-Id": session})
    assert "result" not in answer.text
    assert await notebook.notes() == []


NAMES = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers())


@given(st.tuples(st.text(), NAMES), st.tuples(st.text(), NAMES))
def test_requests_are_named_apart(one: tuple[str, Any], other: tuple[str, Any]) -> None:
    me, somebody = (Caller(id=UUID(int=n), kind="user", scopes=frozenset()) for n in (1, 2))
    names = [name_request(caller, *request) for caller in (me, somebody) for request in (one, other)]
    for request, name in zip((one, other) * 2, names, strict=True):
        assert (name is None) == (not request[0] or type(request[1]) not in (int, str))
    given_names = [name for name in names if name is not None]
    same = (one[0], type(one[1]), one[1]) == (other[0], type(other[1]), other[1])
    assert len(set(given_names)) == len(given_names) // (2 if same else 1)
