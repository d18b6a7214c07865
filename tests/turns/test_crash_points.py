"""A process that dies, or is frozen and comes back, at any point of a turn: another ends it as if nothing had happened.

The points are reached and left by locks, so every run of these tests dies at the same places (`victim.POINTS`).
"""

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Literal

import asyncpg
import pytest

from agent_server.caller import Caller
from agent_server.db import Database, new_id
from agent_server.testing import copy_database
from agent_server.testing.copies import DatabaseCopies
from agent_server.turns.attempt import Attempt, Outcome
from agent_server.turns.events import (
    Done,
    Event,
    Numbered,
    Reset,
    TextDelta,
    TextDone,
    ToolCalled,
    ToolReturned,
    body_of,
)
from agent_server.turns.hub import Hub
from agent_server.turns.models import Turn
from tests.conftest import ROOT, execute
from tests.turns.ledger import Replica, bodies, count, ended, never, read_turn, replica, until
from tests.turns.victim import HOLD, KEY, POINTS, TOOLS, Talk, World
from tests.zygote import Process, start

Effect = Literal["stored", "keyed", "once"]
AROUND = ["accepting", "accepted", "shown 1", "answering 1", "answered 1", "shown 2", "answering 2", "answered 2"]
IN_THE_CALL = ["starting", "acting", "acted", "returning", "returned"]
CUT_OFF = ("acting", "acted", "returning")
"""Where a call has started and has no result yet."""
CASES = [
    *((point, "stored") for point in [*AROUND, "finishing", "finished"]),
    *((point, "stored") for point in IN_THE_CALL[1:]),
    *((point, effect) for effect in ("keyed", "once") for point in ["answered 1", *IN_THE_CALL]),
]


@pytest.fixture(scope="module")
def copies(postgres: str, template: str) -> Iterator[DatabaseCopies]:
    """Databases with a world outside, and the triggers of the points."""

    async def make(url: str) -> None:
        await execute(
            url,
            "create table outside (what text, key text)",
            f"""
            create function hold() returns trigger language plpgsql as $$ begin
              perform pg_advisory_xact_lock({HOLD}, tg_argv[0]::int); return new; end $$""",
            *(
                f'create trigger "{point}" before {write} execute function hold({n})'
                for n, (point, write) in enumerate(POINTS.items())
                if write is not None
            ),
        )

    with copy_database(postgres, template) as url:
        asyncio.run(make(url))
        copies = DatabaseCopies(postgres, url)
        yield copies
        copies.close()


@pytest.fixture
async def outside(url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to the world outside."""
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


@asynccontextmanager
async def _held(
    database: Database, outside: asyncpg.Connection, me: Caller, point: str, effect: Effect
) -> AsyncIterator[Process]:
    """A victim that is at this point, until `_RELEASE`."""
    key = list(POINTS).index(point)
    await outside.execute("select pg_advisory_lock($1, $2)", HOLD, key)
    victim = start("tests.turns.victim", database.url, str(me.id), effect, cwd=ROOT)

    async def is_there() -> bool:
        assert victim.poll() is None
        return await count(database, f"pg_locks where classid = {HOLD} and objid = {key} and not granted") == 1

    try:
        await until(is_there)
        yield victim
    finally:
        victim.kill()
        await asyncio.to_thread(victim.wait, 30)


_RELEASE = "select pg_advisory_unlock_all()"


@asynccontextmanager
async def _successor(database: Database) -> AsyncIterator[Replica]:
    connection = await asyncpg.connect(database.url)
    async with replica(database, Talk(database, World(connection))) as alive:
        yield alive
    await connection.close()


async def _read_twice(database: Database, alive: Replica, turn: Turn) -> list[Numbered]:
    """The turn's events, as whoever follows it and as whoever reads it later has them."""
    live = await alive.read_to_the_end(turn)
    later = [numbered async for numbered in Hub(database).follow(turn.owner_id, turn.id) if numbered is not None]
    assert [_bytes(numbered) for numbered in live] == [_bytes(numbered) for numbered in later]
    return live


def _bytes(numbered: Numbered) -> str:
    return f"{numbered.seq} {numbered.event.kind} {json.dumps(body_of(numbered.event))}"


def _log(point: str, called: ToolCalled, returned: ToolReturned) -> list[Event]:
    """What the log of a turn holds that was cut off at this point."""
    log: list[Event] = []
    for n in (1, 2):
        shown = TextDelta(n, f"Answer {n} ")
        if _asks_again(point, n):
            log += [shown, Reset(n)]
        log += [shown, TextDelta(n, "is this."), TextDone(n)]
        log += [called, returned] if n == 1 else [Done("assistant")]
    return log


def _asks_again(point: str, n: int) -> bool:
    return point in (f"shown {n}", f"answering {n}")


async def _check(
    database: Database, outside: asyncpg.Connection, turn: Turn, events: list[Numbered], point: str, effect: Effect
) -> Counter[str]:
    """What holds wherever a turn was cut off; returns how often each thing happened outside."""
    row = await read_turn(database, turn)
    assert (row.status, row.last_event, await count(database, "turn")) == ("done", len(events), 1)
    assert [numbered.seq for numbered in events] == list(range(1, len(events) + 1))
    (called,) = [n.event for n in events if isinstance(n.event, ToolCalled)]
    (returned,) = [n.event for n in events if isinstance(n.event, ToolReturned)]
    assert [n.event for n in events] == _log(point, called, returned)

    told = returned.error or ""
    unknown = effect == "once" and point in CUT_OFF
    assert (returned.output, told.partition(":")[0]) == ((None, "outcome_unknown") if unknown else ("did it", ""))
    assert await bodies(database, turn.conversation_id) == [
        {"role": "user", "content": effect},
        {"role": "assistant", "content": "Answer 1 is this."},
        {"type": "function_call", "call_id": called.call_id, "name": TOOLS[effect].name, "arguments": "{}"},
        {"type": "function_call_output", "call_id": called.call_id, "output": told or "did it"}
        | ({"status": "incomplete"} if told else {}),
        {"role": "assistant", "content": "Answer 2 is this."},
    ]
    assert await count(database, "conversation where title = 'noted'") == (effect == "stored")

    happened = await outside.fetch("select what, key from outside")
    assert {row["key"] for row in happened} <= {None, f"{turn.id}:{called.call_id}"}
    return Counter(row["what"] for row in happened)


def _outside(point: str, effect: Effect) -> Counter[str]:
    """What happens outside when one process dies at this point and another ends its turn."""
    effects = {
        "stored": 0,
        "keyed": 2 if point in ("acted", "returning") else 1,
        "once": 0 if point == "acting" else 1,
    }
    return Counter({f"asked {n}": 1 + _asks_again(point, n) for n in (1, 2)} | {"effect": effects[effect]})


@pytest.mark.parametrize(("point", "effect"), CASES)
async def test_a_turn_whose_process_is_killed_is_ended_by_another(
    database: Database, outside: asyncpg.Connection, me: Caller, point: str, effect: Effect
) -> None:
    async with _held(database, outside, me, point, effect) as victim:
        await _kill(victim, outside)
        async with _successor(database) as alive:
            turn = await alive.send(me, effect, client_key=KEY)  # as a client does whose request was cut off
            events = await _read_twice(database, alive, turn)
    assert await _check(database, outside, turn, events, point, effect) == _outside(point, effect)


async def _kill(victim: Process, outside: asyncpg.Connection) -> None:
    victim.kill()
    await asyncio.to_thread(victim.wait, 30)
    await outside.execute(_RELEASE)
    await outside.execute("update replica set beat = now() + interval '1 hour'")  # only its lock says that it is dead


@pytest.mark.parametrize(("point", "effect"), [case for case in CASES if case[0] not in ("accepting", "finished")])
async def test_a_process_that_was_frozen_while_another_ended_its_turn_adds_nothing(
    database: Database, outside: asyncpg.Connection, me: Caller, point: str, effect: Effect
) -> None:
    async with _held(database, outside, me, point, effect) as zombie:
        zombie.send_signal(signal.SIGSTOP)
        if POINTS[point] is not None:
            # As `idle_in_transaction_session_timeout` does to a process that is frozen within a transaction, sooner.
            await outside.execute(
                "select pg_terminate_backend(pid, 5000) from pg_locks where classid = $1 and not granted", HOLD
            )
        await outside.execute(_RELEASE)
        await outside.execute("update replica set beat = beat - interval '1 minute'")
        async with _successor(database) as alive:
            turn = await alive.send(me, effect, client_key=KEY)
            events = await _read_twice(database, alive, turn)
            before = await _check(database, outside, turn, events, point, effect)
            assert before == _outside(point, effect)
            zombie.send_signal(signal.SIGCONT)
            assert await asyncio.to_thread(zombie.wait, 30) == 0
            assert await _read_twice(database, alive, turn) == events
    after = await _check(database, outside, turn, events, point, effect)
    # Nothing can hold back the one call to the outside that a frozen process was about to make.
    assert (after - before).total() <= 1
    assert after["effect"] - before["effect"] <= (point == "acting")
    assert effect != "once" or after["effect"] <= 1


async def test_the_lock_of_a_dead_process_says_so_whatever_its_heartbeat_says(
    database: Database, outside: asyncpg.Connection, me: Caller, other: Caller
) -> None:
    begun: list[str] = []

    async def run(attempt: Attempt) -> Outcome:
        begun.append(attempt.message)
        return Outcome()

    async with _held(database, outside, me, "shown 1", "once") as victim, replica(database, run) as alive:
        await _kill(victim, outside)
        silent = (await alive.accept(other, "dead by its heartbeat")).turn
        await outside.execute("insert into replica (id, beat) values ($1, now())", owner := new_id())
        await outside.execute("update turn set owner = $1 where id = $2", owner, silent.id)
        await until(lambda: ended(database, silent))
    assert begun == ["once", "dead by its heartbeat"]


async def _until_so_many_wait(database: Database, number: int) -> None:
    """Wait until this number of statements wait for a row's lock."""
    waiting = "pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"

    async def so_many() -> bool:
        return await count(database, waiting) == number

    await until(so_many)


async def test_of_two_that_take_up_a_turn_one_gets_it(
    database: Database, outside: asyncpg.Connection, me: Caller
) -> None:
    begun: list[int] = []
    go_on = asyncio.Event()

    async def run(attempt: Attempt) -> Outcome:
        begun.append(attempt.number)
        await go_on.wait()
        return Outcome()

    async with replica(database, never, slots=0) as full, AsyncExitStack() as stack:
        turn = await full.send(me)
        async with outside.transaction():
            await outside.execute("select from turn for update")
            for _ in range(2):
                await stack.enter_async_context(replica(database, run))
            await _until_so_many_wait(database, 2)  # both have seen that nobody runs it
        await _until_so_many_wait(database, 0)
        go_on.set()
        await until(lambda: ended(database, turn))
    assert begun == [1]


async def test_a_turn_that_ends_while_it_is_taken_up_is_not_begun(
    database: Database, outside: asyncpg.Connection, me: Caller, other: Caller
) -> None:
    begun: list[str] = []

    async def run(attempt: Attempt) -> Outcome:
        begun.append(attempt.message)
        return Outcome()

    async with replica(database, never, slots=0) as full, AsyncExitStack() as stack:
        await full.send(me, "stopped")
        async with outside.transaction():
            await outside.execute("update turn set status = 'cancelled'")
            alive = await stack.enter_async_context(replica(database, run))
            await _until_so_many_wait(database, 1)
        await _until_so_many_wait(database, 0)
        await alive.read_to_the_end(await alive.send(other, "another"))
    assert begun == ["another"]


async def test_a_process_that_cannot_say_that_it_lives_stops_before_another_goes_on(
    database: Database, outside: asyncpg.Connection, me: Caller
) -> None:
    happened: list[str] = []

    async def hangs(attempt: Attempt) -> Outcome:
        try:
            return await never(attempt)
        finally:
            happened.append("stopped")

    async def goes_on(_: Attempt) -> Outcome:
        happened.append("gone on")
        return Outcome()

    async with replica(database, hangs) as silent, replica(database, goes_on) as alive:
        turn = await silent.send(me)
        await outside.execute(f"""
            create function mute() returns trigger language plpgsql as $$ begin
              if new.id = '{silent.runner.replica.id}' then raise exception 'mute'; end if; return new; end $$""")
        await outside.execute("create trigger mute before update on replica for each row execute function mute()")
        await alive.read_to_the_end(turn)
    assert happened[0] == "stopped"
    assert "gone on" in happened
