"""How far a call is, as those who follow its turn hear of it."""

import asyncio

import pytest
from sqlalchemy import text

from agent_server.caller import Caller
from agent_server.db import Database, new_id
from agent_server.protocols.ai_sdk.stream import UIMessageEncoder
from agent_server.tool import ToolContext, tool
from agent_server.turns.attempt import Attempt, Outcome
from agent_server.turns.events import Done, Event, Numbered, ToolCalled, ToolProgress, ToolReturned
from tests.conftest import everything
from tests.turns.ledger import call, read_log, read_turn, replica

GO_ON: asyncio.Event
MANY = 10_000


@pytest.fixture(autouse=True)
def go_on() -> None:
    global GO_ON
    GO_ON = asyncio.Event()


@tool(scope="conversations:read", effect="read")
async def read_pages(context: ToolContext) -> str:
    """Say how far it is, and wait."""
    await context.report_progress(1, 3, "Reading page 1")
    await GO_ON.wait()
    return "read"


@tool(scope="conversations:write", effect="stored")
async def count_up(context: ToolContext) -> str:
    """Say how far it is far too often."""
    await context.log("never shown", level="debug")
    for n in range(MANY):
        await context.report_progress(n, MANY, "x" * 10_000 + "\x00")
        if n % 100 == 0:
            await asyncio.sleep(0)
    return "counted"


@tool(scope="outside:write", effect="once")
async def send_slowly(context: ToolContext) -> str:
    """Something outside, of which nothing may be left half done."""
    await context.report_progress(1, 2, "Connected")
    await GO_ON.wait()
    await context.report_progress(2, 2, "Sent")
    return "sent"


async def test_followers_hear_how_far_a_call_is_while_it_runs(database: Database, me: Caller) -> None:
    async def run(attempt: Attempt) -> Outcome:
        await call(database, attempt, read_pages)
        return Outcome("assistant")

    async with replica(database, run) as here:
        turn = await here.send(me)
        async with asyncio.timeout(30):
            async for numbered in here.hub.follow(turn.owner_id, turn.id, 0):
                if numbered is not None:
                    break
        assert numbered is not None
        assert numbered.event == ToolProgress("call_1", 1, 3, "Reading page 1")
        GO_ON.set()
        events = [n.event for n in await here.read_to_the_end(turn)]
        assert [type(event) for event in events] == [ToolProgress, ToolReturned, Done]
        assert [n.event for n in await read_log(database, turn)] == events


async def test_a_tool_that_says_too_much_leaves_a_short_log(database: Database, me: Caller) -> None:
    async def run(attempt: Attempt) -> Outcome:
        await call(database, attempt, count_up)
        return Outcome("assistant")

    async with replica(database, run) as here:
        turn = await here.send(me)
        await here.read_to_the_end(turn)
        told = [n.event for n in await read_log(database, turn) if isinstance(n.event, ToolProgress)]
        assert 1 <= len(told) < MANY / 100
        assert {event.message for event in told} == {"x" * 500}
        assert (await read_turn(database, turn)).status == "done"


async def test_a_stop_does_not_cut_off_a_call_outside_that_says_how_far_it_is(database: Database, me: Caller) -> None:
    async def run(attempt: Attempt) -> Outcome:
        await call(database, attempt, send_slowly)
        return Outcome("assistant")

    async with replica(database, run) as here:
        turn = await here.send(me)
        async with asyncio.timeout(30):
            async for numbered in here.hub.follow(turn.owner_id, turn.id, 0):
                if numbered is not None and isinstance(numbered.event, ToolProgress):
                    break
        async with everything(database) as session:
            await session.execute(text("update turn set cancel = true where id = :id"), {"id": turn.id})
        GO_ON.set()
        events = [n.event for n in await here.read_to_the_end(turn)]
        assert [event.output for event in events if isinstance(event, ToolReturned)] == ["sent"]


def test_a_chat_client_has_the_last_of_it_in_one_part_and_none_that_comes_late() -> None:
    encoder = UIMessageEncoder(new_id(), new_id())
    events: list[Event] = [
        ToolCalled("a", "read_pages", {}),
        ToolProgress("a", 1, 3, "Reading page 1"),
        ToolProgress("a", 2, 3, None),
        ToolReturned("a", "read_pages", "read"),
        ToolProgress("a", 3, 3, None),
    ]
    parts = [part for n, event in enumerate(events, 1) for part in encoder.feed(Numbered(n, event))]
    told = [part for part in parts if part["type"] == "data-progress"]
    assert [(part["id"], part["data"]["done"], part["data"]["message"]) for part in told] == [
        ("a", 1, "Reading page 1"),
        ("a", 2, None),
    ]
    assert parts[-1]["type"] == "tool-output-available"
