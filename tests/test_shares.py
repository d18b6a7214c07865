"""Nobody takes everything: calls of one response, of one turn, and of one caller are bounded."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from agent_server import Caller, ToolContext, TooMany, new_id, tool
from agent_server.calls.call import Runtime, call_tool
from agent_server.db import Database
from agent_server.errors import Unavailable, WorkspaceInvalid
from agent_server.settings import Settings
from agent_server.testing import Call, Calls, Say, ScriptedOpenAI, scripted_openai
from agent_server.tool import Effect
from agent_server.workspace import load_workspace
from tests.server import Start
from tests.turns.ledger import until


@pytest.fixture
async def model() -> AsyncIterator[ScriptedOpenAI]:
    async with scripted_openai([]) as model:
        yield model


async def test_of_a_response_with_hundreds_of_calls_twenty_are_made_and_the_conversation_goes_on(
    start: Start, model: ScriptedOpenAI
) -> None:
    many = Calls(tuple(Call("create_task", {"title": f"t{n}"}, f"c{n}") for n in range(300)))
    async with start(openai_base_url=model.url, model="m") as client:
        model.script = [many, Say("done"), Say("again")]
        body = {"message": "x", "agent": "tasks", "stream": False}
        answer = (await client.http.post("/api/chat", json=body, headers=client.auth)).json()
        assert (answer["status"], answer["text"]) == ("done", "done")
        assert [use["input"]["title"] for use in answer["tools"]] == [f"t{n}" for n in range(20)]
        assert all(use["output"] for use in answer["tools"])
        body = {**body, "id": answer["conversation_id"]}
        assert (await client.http.post("/api/chat", json=body, headers=client.auth)).json()["text"] == "again"
    for request in model.requests[1:]:
        asked = [call["id"] for m in request["messages"] for call in m.get("tool_calls") or ()]
        told = [m["tool_call_id"] for m in request["messages"] if m["role"] == "tool"]
        assert asked == told
        assert set(told) <= {f"c{n}" for n in range(20)}


@pytest.mark.parametrize("effect", ["read", "keyed"])
async def test_four_calls_of_a_turn_run_at_the_same_time(
    start_other: Callable[..., Any], model: ScriptedOpenAI, tmp_path: Path, effect: Effect
) -> None:
    running = [0, 0]

    @tool(scope="work:do", effect=effect)
    async def work(context: ToolContext, n: int) -> int:
        """Work for a while, and say how many worked at the same time at most."""
        running[0] += 1
        running[1] = max(running)
        await asyncio.sleep(0.05)
        running[0] -= 1
        return running[1]

    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "helper.md").write_text("---\nname: helper\ndescription: Helps.\n---\nHelp.\n")
    workspace = load_workspace(tmp_path)
    agents = {name: replace(agent, tools=("work",)) for name, agent in workspace.agents.items()}
    workspace = replace(workspace, tools={**workspace.tools, "work": work}, agents=agents)
    model.script = [Calls(tuple(Call("work", {"n": n}, f"c{n}") for n in range(12))), Say("done")]
    async with start_other(root=tmp_path, workspace=workspace, openai_base_url=model.url, model="m") as client:
        answer = await client.ask("go")
    assert max(use["output"] for use in answer["tools"]) == 4
    assert len(answer["tools"]) == 12


@dataclass
class Gate:
    """Holds calls until a test lets them go. `begun` counts those that have made a statement."""

    begun: int = 0
    ten: asyncio.Event = field(default_factory=asyncio.Event)
    open: asyncio.Event = field(default_factory=asyncio.Event)


async def _hold(context: ToolContext, how: str) -> str:
    match how:
        case "statement":
            await context.session.execute(text("select 1"))
        case "connection":
            await context.session.connection()
        case "sync":
            await context.session.run_sync(lambda session: session.scalar(text("select 1")))
    gate = context.resource(Gate)
    gate.begun += 1
    if gate.begun == 10:
        gate.ten.set()
    await gate.open.wait()
    return how


@tool(scope="work:do", effect="stored")
async def hold_stored(context: ToolContext, how: str) -> str:
    """Hold a connection."""
    return await _hold(context, how)


@tool(scope="work:do", effect="read")
async def hold_read(context: ToolContext, how: str) -> str:
    """Hold a connection."""
    return await _hold(context, how)


@tool(scope="work:do", effect="keyed")
async def hold_keyed(context: ToolContext, how: str) -> str:
    """Hold a connection, beside working elsewhere."""
    return await _hold(context, how)


@tool(scope="work:do", effect="read")
async def look(context: ToolContext) -> int:
    """Make one statement."""
    return int((await context.session.execute(text("select 7"))).scalar_one())


def runtime_with(database: Database, gate: Gate) -> Runtime:
    return Runtime(settings=Settings(database_pool_timeout=0.3), database=database, resources={Gate: gate})


@pytest.mark.parametrize("how", ["statement", "connection", "sync"])
@pytest.mark.parametrize("hold", [hold_stored, hold_read, hold_keyed])
async def test_slow_calls_of_one_caller_leave_connections_to_others(
    url: str, me: Caller, other: Caller, hold: Any, how: str
) -> None:
    database = Database(url, pool_size=4, pool_timeout=0.3)
    runtime = runtime_with(database, gate := Gate())
    calls = [asyncio.create_task(call_tool(runtime, hold, {"how": how}, caller=me, surface="rest")) for _ in range(8)]
    done, held = await asyncio.wait(calls, timeout=5, return_when=asyncio.FIRST_EXCEPTION)
    while len(done) < 6:
        more, held = await asyncio.wait(held, return_when=asyncio.FIRST_COMPLETED)
        done |= more
    assert all(isinstance(call.exception(), TooMany) for call in done)
    assert gate.begun == 2
    assert database.pool_status()["checked_out"] <= 2
    for _ in range(3):
        assert await call_tool(runtime, look, {}, caller=other, surface="rest") == 7
    gate.open.set()
    assert await asyncio.gather(*held) == [how, how]
    assert await asyncio.gather(*(call_tool(runtime, look, {}, caller=me, surface="rest") for _ in range(6))) == [7] * 6
    await database.close()


@given(size=st.integers(2, 12), callers=st.integers(1, 8), calls=st.integers(1, 8))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_however_many_callers_hold_connections_some_are_left_and_the_rest_is_told_that_the_server_is_busy(
    url: str, size: int, callers: int, calls: int
) -> None:
    database = Database(url, pool_size=size, pool_timeout=0.05)
    runtime = Runtime(
        settings=Settings(database_pool_timeout=0.05), database=database, resources={Gate: (gate := Gate())}
    )
    crowd = [Caller(id=new_id(), kind="user", scopes=frozenset({"*"})) for _ in range(callers)]
    held = [
        asyncio.create_task(call_tool(runtime, hold_read, {"how": "statement"}, caller=caller, surface="rest"))
        for caller in crowd
        for _ in range(calls)
    ]
    most = min(callers * min(calls, max(1, size // 2)), max(1, size - max(1, size // 4)))

    async def settled() -> bool:
        return gate.begun == most and sum(call.done() for call in held) == len(held) - most

    await until(settled)
    assert database.pool_status()["checked_out"] <= most < max(size, 2)
    async with database.transaction() as session:  # whatever is no call of a tool
        assert (await session.execute(text("select 7"))).scalar_one() == 7
    refused = [call.exception() for call in held if call.done()]
    assert all(isinstance(error, TooMany | Unavailable) and error.retry_after for error in refused)
    assert all("busy" in str(error) for error in refused if isinstance(error, Unavailable))
    gate.open.set()
    await asyncio.wait(held)
    await database.close()


async def test_calls_that_hold_no_connection_are_not_held_up(url: str, me: Caller) -> None:
    database = Database(url, pool_size=2, pool_timeout=5)
    runtime = runtime_with(database, gate := Gate())
    calls = [
        asyncio.create_task(call_tool(runtime, hold_keyed, {"how": "nothing"}, caller=me, surface="rest"))
        for _ in range(10)
    ]
    await asyncio.wait_for(gate.ten.wait(), 10)
    gate.open.set()
    assert await asyncio.gather(*calls) == ["nothing"] * 10
    await database.close()


@tool(scope="work:do", effect="stored", per_hour=3)
async def limited(context: ToolContext, fails: bool = False) -> str:
    """Do what may be done three times an hour."""
    if fails:
        raise TooMany("of its own")
    return "done"


async def test_a_tool_is_called_so_often_an_hour_by_a_caller_and_from_a_network(database: Database, me: Caller) -> None:
    runtime = Runtime(settings=Settings(), database=database)

    async def call(caller: Caller, **arguments: Any) -> bool:
        try:
            await call_tool(runtime, limited, arguments, caller=caller, surface="rest")
        except TooMany as error:
            return error.message == "of its own"
        return True

    # What fails counts, or it could be tried for ever.
    assert [await call(me, fails=n == 0) for n in range(5)] == [True] * 3 + [False] * 2
    guests = [replace(me, id=new_id(), network="one") for _ in range(5)]
    assert [await call(guest) for guest in guests] == [True] * 3 + [False] * 2
    assert await call(replace(guests[4], network="two"))
    assert not [name for name in await _keys(database) if str(me.id) in name]


async def _keys(database: Database) -> list[str]:
    async with database.transaction() as session:
        return [key for (key,) in await session.execute(text("select key from rate"))]


def test_a_limit_of_nothing_is_a_mistake() -> None:
    with pytest.raises(WorkspaceInvalid, match="per_hour is a number from 1"):

        @tool(scope="work:do", effect="read", per_hour=-1)
        async def never(context: ToolContext) -> str:
            """Never."""
            return json.dumps(None)
