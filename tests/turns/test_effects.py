"""The four effects: what is left of a call that is cut off or stopped at any point, and what the next attempt does."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from sqlalchemy import event, text

from agent_server.caller import Caller
from agent_server.conversations.models import Conversation
from agent_server.conversations.repository import ConversationRepository
from agent_server.db import Database
from agent_server.errors import AgentServerError, Conflict, DidNotHappen, Unavailable, WorkspaceInvalid
from agent_server.tool import Tool, ToolContext, tool
from agent_server.turns.attempt import Attempt, Outcome
from agent_server.turns.events import Cancelled, ToolCalled, ToolReturned
from agent_server.turns.models import Turn
from agent_server.turns.writer import StopRequested
from tests.conftest import everything
from tests.turns.ledger import Replica, call, count, kill, never, read_turn, replica, until


@dataclass
class World:
    """What is outside the database, and the points at which a run is held there until it dies or goes on."""

    holds: list[str] = field(default_factory=list)
    """The points still to stop at, each once."""
    survives: str | None = None
    """The point from which whoever is held there goes on; at the others it ends, as its process would."""
    ended: int = 0
    """How many runs have come to an end, of whatever kind."""
    did: list[str] = field(default_factory=list)
    """The keys of the effects that happened."""
    runs: int = 0
    """How often the tool was begun."""
    asked: int = 0
    cancelled: int = 0
    finds: Any = None
    """What `reconcile` returns or raises."""
    held: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def reach(self, point: str) -> None:
        if point not in self.holds:
            return
        self.holds.remove(point)
        self.held.put_nowait(point)
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if point != self.survives:
            raise asyncio.CancelledError

    async def is_held(self) -> None:
        async with asyncio.timeout(20):
            await self.held.get()


WORLD: World


@pytest.fixture
def world() -> World:
    global WORLD
    WORLD = World()
    return WORLD


async def _act(happen: Callable[[], Awaitable[Any]] | None = None, key: str = "") -> str:
    WORLD.runs += 1
    await WORLD.reach("started")
    if happen:
        await happen()
    if key:
        WORLD.did.append(key)
    await WORLD.reach("acted")
    return "did it"


@tool(scope="outside:read", effect="read")
async def look_up(context: ToolContext) -> str:
    """Something that changes nothing."""
    return await _act()


@tool(scope="conversations:write", effect="stored")
async def note_down(context: ToolContext) -> str:
    """Something in this database."""
    return await _act(lambda: context.repository(ConversationRepository).add(Conversation(title="noted")))


@tool(scope="outside:write", effect="keyed")
async def charge_card(context: ToolContext) -> str:
    """Something that knows a key."""
    return await _act(key=context.idempotency_key)


@tool(scope="outside:write", effect="once")
async def send_letter(context: ToolContext) -> str:
    """Something that nobody can ask about."""
    return await _act(key=context.idempotency_key)


async def find_label(context: ToolContext) -> str | None:
    """What the printer says of the label."""
    WORLD.asked += 1
    finds = WORLD.finds
    await WORLD.reach("asked")
    if isinstance(finds, Exception):
        raise finds
    if callable(finds):
        return str(await finds(context))
    return finds if finds is None else f"{finds} {context.idempotency_key.partition(':')[2]}"


@tool(scope="outside:write", effect="once", reconcile=find_label)
async def print_label(context: ToolContext) -> str:
    """Something that can be asked about."""
    return await _act(key=context.idempotency_key)


EFFECTS = [look_up, note_down, charge_card, send_letter]


def _calls(tool: Tool[..., Any], told: list[str]) -> Callable[[Attempt], Awaitable[Outcome]]:
    """A run that calls the tool, and notes what the model is told."""

    async def run(attempt: Attempt) -> Outcome:
        try:
            if attempt.number == 1:
                await attempt.writer.append(ToolCalled("call_1", tool.name, {}))
            await WORLD.reach("called")
            told.append(await _answer(attempt, tool))
            return Outcome()
        finally:
            WORLD.ended += 1

    return run


async def _answer(attempt: Attempt, tool: Tool[..., Any]) -> str:
    try:
        answer = await call(attempt.writer.database, attempt, tool)
    except Unavailable:  # as in a turn of the orchestrator's: it ends the attempt
        raise
    except AgentServerError as error:
        answer = error.message if error.code == "internal" else f"{error.code}: {error.message}"
    await WORLD.reach("recorded")
    return str(answer)


async def _noted(database: Database) -> int:
    async with everything(database) as session:
        return int(
            (await session.execute(text("select count(*) from conversation where title = 'noted'"))).scalar_one()
        )


async def _audit(database: Database) -> list[str]:
    async with everything(database) as session:
        return list((await session.execute(text("select outcome from audit order by at"))).scalars())


async def _states(database: Database) -> list[str]:
    async with everything(database) as session:
        return list((await session.execute(text("select state from tool_call"))).scalars())


async def _taken_over(database: Database, me: Caller, run: Callable[[Attempt], Awaitable[Outcome]], times: int) -> Turn:
    """A turn whose attempts are held and taken over so many times, and then comes to its end."""
    async with replica(database, run) as a, replica(database, run) as b, replica(database, run) as c:
        turn = await a.send(me)
        for _ in range(times):
            await WORLD.is_held()
            await kill(database, turn)
        events = [n.event for n in await b.read_to_the_end(turn)]
        WORLD.go_on.set()
        returned = [event for event in events if isinstance(event, ToolReturned)]
        assert len(returned) == 1
        assert [n.event for n in await c.read_to_the_end(turn)] == events
    return turn


@pytest.mark.parametrize(
    ("tool", "point", "runs", "did", "knows"),
    [
        *(
            (tool, point, runs, did, True)
            for tool, did in ((look_up, 0), (note_down, 1), (charge_card, 1))
            for point, runs in (("called", 1), ("started", 2), ("acted", 2), ("recorded", 1))
        ),
        (send_letter, "called", 1, 1, True),
        (send_letter, "started", 1, 0, False),
        (send_letter, "acted", 1, 1, False),
        (send_letter, "recorded", 1, 1, True),
    ],
    ids=lambda value: value.effect if isinstance(value, Tool) else None,
)
async def test_a_call_that_is_cut_off_has_the_effects_that_its_kind_promises(
    database: Database,
    me: Caller,
    world: World,
    tool: Tool[..., Any],
    point: str,
    runs: int,
    did: int,
    knows: bool,
) -> None:
    told: list[str] = []
    world.holds = [point]
    await _taken_over(database, me, _calls(tool, told), 1)
    assert world.runs == runs
    assert len(set(world.did)) + await _noted(database) == did
    if knows:
        assert told == ["did it"]
        assert await _audit(database) == ["ok"]
    else:
        assert told[0].startswith("outcome_unknown: A call of send_letter was cut off")
        assert "Do not call send_letter again" in told[0]
        assert await _audit(database) == ["outcome_unknown"]
    # A call without an effect needs no row: what it returned is in the log.
    assert await _states(database) == ([] if tool is look_up else ["done"])


@pytest.mark.parametrize(
    ("finds", "point", "told", "did"),
    [
        ("found", "acted", "found call_1", 1),
        (DidNotHappen(), "started", "did it", 1),
        (None, "acted", "outcome_unknown: ", 1),
        (ValueError("of the printer's"), "acted", "outcome_unknown: ", 1),
        (ConnectionRefusedError("of the printer's"), "started", "outcome_unknown: ", 0),
        (Conflict("of the tool's"), "started", "outcome_unknown: ", 0),
        (Unavailable("The printer is off"), "started", "outcome_unknown: ", 0),
    ],
    ids=["happened", "did not", "nobody knows", "bug", "refused", "conflict", "away"],
)
async def test_a_tool_that_can_be_asked_is_asked_what_became_of_the_call(
    database: Database, me: Caller, world: World, finds: Any, point: str, told: str, did: int
) -> None:
    said: list[str] = []
    world.holds, world.finds = [point], finds
    await _taken_over(database, me, _calls(print_label, said), 1)
    assert world.asked == 1
    assert len(world.did) == did
    (answer,) = said
    assert answer.startswith(told)
    assert "printer" not in answer
    assert await _audit(database) == ["outcome_unknown" if told == "outcome_unknown: " else "ok"]
    assert await _states(database) == ["done"]


async def test_an_attempt_that_loses_its_own_database_while_it_asks_is_followed_by_one_that_asks_again(
    database: Database, me: Caller, world: World
) -> None:
    """Whoever took that for the other side's being away would never learn what became of the call."""

    async def ask(context: ToolContext) -> str:
        if world.asked == 1:
            await context.session.execute(text("do $$ begin raise sqlstate '57P01'; end $$"))
        return "found"

    told: list[str] = []
    world.holds, world.finds = ["acted"], ask
    await _taken_over(database, me, _calls(print_label, told), 1)
    assert (told, world.asked, len(world.did)) == (["found"], 2, 1)


@pytest.mark.parametrize("point", ["called", "recorded"])
async def test_nothing_is_asked_about_a_call_that_was_not_started_or_is_on_record(
    database: Database, me: Caller, world: World, point: str
) -> None:
    told: list[str] = []
    world.holds = [point]
    await _taken_over(database, me, _calls(print_label, told), 1)
    assert (told, world.asked, len(world.did)) == (["did it"], 0, 1)


async def test_an_attempt_that_is_cut_off_while_it_asks_is_followed_by_one_that_asks_again(
    database: Database, me: Caller, world: World
) -> None:
    told: list[str] = []
    world.holds, world.finds = ["acted", "asked"], "found"
    await _taken_over(database, me, _calls(print_label, told), 2)
    assert (told, world.asked, len(world.did)) == (["found call_1"], 2, 1)


async def test_a_call_that_is_made_after_all_and_cut_off_again_is_asked_about_again(
    database: Database, me: Caller, world: World
) -> None:
    told: list[str] = []
    world.holds, world.finds = ["started", "started"], DidNotHappen()
    await _taken_over(database, me, _calls(print_label, told), 2)
    assert (told, world.asked, world.runs, len(world.did)) == (["did it"], 2, 3, 1)


async def test_whoever_was_taken_over_while_it_asked_does_not_make_the_call(
    database: Database, me: Caller, world: World
) -> None:
    told: list[str] = []
    run = _calls(print_label, told)
    world.holds, world.finds, world.survives = ["started", "asked"], DidNotHappen(), "asked"
    async with replica(database, run) as a, replica(database, run), replica(database, run):
        turn = await a.send(me)
        for _ in range(2):
            await world.is_held()
            await kill(database, turn)
        await a.read_to_the_end(turn)
        world.go_on.set()
        await until(lambda: _have_ended(world, 3))
    assert (told, world.asked, world.runs, len(world.did)) == (["did it"], 2, 2, 1)


async def _have_ended(world: World, runs: int) -> bool:
    return world.ended == runs


async def test_a_process_that_was_frozen_and_comes_back_leaves_no_second_effect(
    database: Database, me: Caller, world: World
) -> None:
    told: list[str] = []
    run = _calls(note_down, told)
    world.holds, world.survives = ["acted"], "acted"
    async with replica(database, run) as frozen, replica(database, run) as alive:
        turn = await frozen.send(me)
        await world.is_held()
        await kill(database, turn)
        events = await alive.read_to_the_end(turn)
        world.go_on.set()
        await until(lambda: _have_ended(world, 2))
    assert (told, world.runs) == (["did it"], 2)
    assert await _noted(database) == 1
    assert await _audit(database) == ["ok"]
    async with replica(database, never) as reader:
        assert await reader.read_to_the_end(turn) == events


@pytest.mark.parametrize("tool", [charge_card, send_letter], ids=lambda tool: tool.effect)
async def test_a_process_that_was_frozen_before_a_call_outside_does_not_make_it(
    database: Database, me: Caller, world: World, tool: Tool[..., Any]
) -> None:
    told: list[str] = []
    run = _calls(tool, told)
    world.holds, world.survives = ["called"], "called"
    async with replica(database, run) as frozen, replica(database, run) as alive:
        turn = await frozen.send(me)
        await world.is_held()
        await kill(database, turn)
        await alive.read_to_the_end(turn)
        world.go_on.set()
        await until(lambda: _have_ended(world, 2))
    assert (told, world.runs, len(world.did)) == (["did it"], 1, 1)


@pytest.mark.parametrize("tool", [charge_card, send_letter], ids=lambda tool: tool.effect)
async def test_a_stop_lets_a_call_outside_come_to_its_end_and_keeps_its_outcome(
    database: Database, me: Caller, world: World, tool: Tool[..., Any]
) -> None:
    told: list[str] = []
    world.holds, world.survives = ["started"], "started"
    async with replica(database, _calls(tool, told)) as here:
        turn = await here.send(me)
        await world.is_held()
        await here.runner.stop_turn(me.id, turn.id)
        world.go_on.set()
        events = [n.event for n in await here.read_to_the_end(turn)]
    assert events[1:] == [ToolReturned("call_1", tool.name, "did it"), Cancelled()]
    assert (told, len(world.did), world.cancelled) == ([], 1, 0)
    assert (await read_turn(database, turn)).status == "cancelled"
    assert await _audit(database) == ["ok"]


async def test_a_stop_does_not_wait_for_ever_for_a_call_outside(database: Database, me: Caller, world: World) -> None:
    world.holds = ["acted"]
    async with replica(database, _calls(send_letter, [])) as here:
        turn = await here.send(me)
        await world.is_held()
        await here.runner.stop_turn(me.id, turn.id)
        events = [n.event for n in await here.read_to_the_end(turn)]
    assert events[1:] == [Cancelled()]
    assert (len(world.did), world.cancelled) == (1, 1)
    assert await _states(database) == ["started"]


@pytest.mark.parametrize("tool", [look_up, note_down], ids=lambda tool: tool.effect)
async def test_a_stop_breaks_off_a_call_without_an_effect_outside_and_nothing_of_it_is_kept(
    database: Database, me: Caller, world: World, tool: Tool[..., Any]
) -> None:
    world.holds = ["acted"]
    async with replica(database, _calls(tool, [])) as here:
        turn = await here.send(me)
        await world.is_held()
        await here.runner.stop_turn(me.id, turn.id)
        events = [n.event for n in await here.read_to_the_end(turn)]
    assert events[1:] == [Cancelled()]
    assert world.cancelled == 1
    assert await _noted(database) == await count(database, "tool_call") == await count(database, "audit") == 0


@pytest.mark.parametrize("tool", EFFECTS, ids=lambda tool: tool.effect)
async def test_a_call_that_is_made_once_the_turn_is_to_stop_is_not_made_or_not_kept(
    database: Database, me: Caller, world: World, tool: Tool[..., Any]
) -> None:
    """The stop is in the row, and its notice has not arrived."""
    async with replica(database, never) as here:
        attempt = await _attempt(here, database, me)
        async with everything(database) as session:
            await session.execute(text("update turn set cancel = true"))
        if tool is look_up:  # what was only read is recorded with what comes next
            await call(database, attempt, tool)
        with pytest.raises(StopRequested):
            await (attempt.writer.flush() if tool is look_up else call(database, attempt, tool))
    assert world.did == []
    assert await _noted(database) == await count(database, "tool_call") == 0


async def _attempt(here: Replica, database: Database, me: Caller) -> Attempt:
    """An attempt of a turn of which nothing else writes, over a database of its own."""
    writer = replace(await here.writer(await here.send(me)), database=database)
    return Attempt(writer=writer, caller=me, message="hello", agent=None, number=1)


@pytest.mark.parametrize(
    ("tool", "transactions"),
    [(look_up, 1), (note_down, 1), (charge_card, 2), (send_letter, 2)],
    ids=lambda value: value.effect if isinstance(value, Tool) else None,
)
async def test_a_first_attempt_costs_one_transaction_and_one_more_where_the_effect_is_outside(
    database: Database, url: str, me: Caller, world: World, tool: Tool[..., Any], transactions: int
) -> None:
    counted: list[str] = []
    own = Database(url)

    def note(query: Any) -> None:
        # a call's record is sent in one message with its COMMIT
        counted.extend(re.findall(r"\b(?:COMMIT|ROLLBACK)\b", query.query))

    event.listen(
        own.pool.sync_engine, "connect", lambda connection, _: connection.driver_connection.add_query_logger(note)
    )
    async with replica(database, never) as here:
        attempt = await _attempt(here, own, me)
        assert await call(own, attempt, tool) == "did it"
        await attempt.writer.flush()
    await own.close()
    assert counted == ["COMMIT"] * transactions


@pytest.mark.parametrize("tool", [look_up, charge_card, send_letter], ids=lambda tool: tool.effect)
async def test_calls_that_work_outside_hold_no_connection(
    database: Database, url: str, me: Caller, world: World, tool: Tool[..., Any]
) -> None:
    small = Database(url, pool_size=2, pool_timeout=10)
    world.holds, world.survives = ["started"] * 6, "started"
    async with replica(database, never) as here:
        attempt = await _attempt(here, small, me)
        calls = asyncio.gather(*(call(small, attempt, tool, f"call_{n}") for n in range(6)))
        for _ in range(6):
            await world.is_held()
        assert small.pool_status()["checked_out"] == 0
        assert await _states(small) == ["started"] * (6 if tool.effect != "read" else 0)
        world.go_on.set()
        assert await calls == ["did it"] * 6
    await small.close()


async def _other_order(order: str, context: ToolContext) -> str | None: ...


async def _other_name(context: ToolContext, number: str) -> str | None: ...


async def _right(context: ToolContext, order: str) -> str | None: ...


def _not_async(context: ToolContext, order: str) -> Any: ...


@pytest.mark.parametrize(
    ("effect", "reconcile", "returns", "mistake"),
    [
        ("once", _other_order, str, "reconcile must take what the tool takes: (context, order)"),
        ("once", _other_name, str, "reconcile must take what the tool takes: (context, order)"),
        ("once", _not_async, str, "reconcile must be `async def`"),
        ("once", _right, None, "with reconcile it must return something"),
        ("keyed", _right, str, "reconcile is for the effect once"),
    ],
)
def test_a_reconcile_that_could_not_be_asked_is_a_mistake_of_the_declaration(
    effect: Any, reconcile: Any, returns: Any, mistake: str
) -> None:
    async def ship(context: ToolContext, order: str) -> Any:
        """Ship an order."""

    ship.__annotations__["return"] = returns
    with pytest.raises(WorkspaceInvalid) as found:
        tool(scope="orders:write", effect=effect, reconcile=reconcile)(ship)
    assert [problem.message.partition(": ")[2].startswith(mistake) for problem in found.value.problems] == [True]
