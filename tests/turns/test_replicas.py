"""What replicas know of each other: by hints, by a lock each holds, and by what the rows say when hints are lost."""

import asyncio

from sqlalchemy import text

from agent_server.caller import Caller
from agent_server.db import Database
from agent_server.heartbeat import LOCK_SPACE
from agent_server.turns.attempt import Attempt, Outcome
from agent_server.turns.events import Cancelled, Done, TextDelta
from tests.conftest import everything
from tests.turns.ledger import answer, count, never, read_turn, replica, until

_LOCKS = f"pg_locks where locktype = 'advisory' and classid = {LOCK_SPACE} and granted"


async def test_a_stop_reaches_a_run_on_another_replica_that_writes_nothing(database: Database, me: Caller) -> None:
    async with replica(database, never) as here, replica(database, never) as there:
        turn = await here.send(me)
        await there.runner.stop_turn(me.id, turn.id)
        assert [n.event for n in await there.read_to_the_end(turn)] == [Cancelled()]


async def test_many_followers_share_one_connection(database: Database, me: Caller) -> None:
    go_on = asyncio.Event()

    async def run(attempt: Attempt) -> Outcome:
        await go_on.wait()
        await attempt.writer.append(TextDelta(1, "x"))
        return Outcome("assistant")

    async with replica(database, run) as here, replica(database, never) as there:
        turn = await here.send(me)
        readers = [asyncio.create_task(there.read_to_the_end(turn)) for _ in range(200)]
        await asyncio.sleep(0)
        assert await count(database, _LOCKS) == 2
        listening = "pg_stat_activity where query ilike 'listen%' and datname = current_database()"
        assert await count(database, listening) <= 2
        go_on.set()
        streams = await asyncio.gather(*readers)
        assert all([n.event for n in stream] == [TextDelta(1, "x"), Done("assistant")] for stream in streams)


async def test_a_replica_whose_connection_is_cut_keeps_its_turns_and_its_lock_comes_back(
    database: Database, me: Caller
) -> None:
    go_on = asyncio.Event()

    async def run(attempt: Attempt) -> Outcome:
        await go_on.wait()
        return Outcome("assistant")

    async with replica(database, run) as here, replica(database, answer) as there:
        turn = await here.send(me)
        async with everything(database) as session:
            await session.execute(text(f"select pg_terminate_backend(pid) from {_LOCKS}"))

        async def locked_again() -> bool:
            return await count(database, _LOCKS) == 2

        await until(locked_again)
        other = await there.send(me)
        await there.read_to_the_end(other)
        go_on.set()
        await here.read_to_the_end(turn)
        assert (await read_turn(database, turn)).epoch == 1


async def test_a_turn_that_waits_for_a_slot_is_taken_by_a_replica_that_has_one(database: Database, me: Caller) -> None:
    async with replica(database, never, slots=0) as full, replica(database, answer):
        turn = await full.send(me)
        assert turn.status == "queued"
        assert [n.event for n in await full.read_to_the_end(turn)] == [Done("assistant")]


async def test_a_draining_replica_finishes_what_it_can_and_hands_over_the_rest(database: Database, me: Caller) -> None:
    go_on = asyncio.Event()

    async def run(attempt: Attempt) -> Outcome:
        await attempt.writer.append(TextDelta(1, attempt.message))
        if attempt.message == "long" and not attempt.earlier.events:
            await never(attempt)
        await go_on.wait()
        return Outcome("assistant")

    async with replica(database, run) as here:
        short, long = await here.send(me, "short"), await here.send(me, "long")

        async def both_begun() -> bool:
            return await count(database, "event") == 2

        await until(both_begun)
        draining = asyncio.create_task(here.runner.drain(600))
        await asyncio.sleep(0)
        assert here.runner.closing
        late = await here.send(me, "late")
        assert late.status == "queued"
        go_on.set()
        await here.read_to_the_end(short)
        async with replica(database, run) as there:
            await there.read_to_the_end(late)
            assert (await read_turn(database, long)).epoch == 1
            await here.runner.drain(0)
            await draining
            assert [n.event.kind for n in await there.read_to_the_end(long)] == ["text", "reset", "text", "done"]


async def test_a_turn_that_nobody_follows_is_cancelled_where_its_sender_asked_for_it(
    database: Database, me: Caller
) -> None:
    async with replica(database, never) as here:
        kept, left = await here.send(me, "kept"), await here.send(me, "left", leave_after=0.5)
        followed = await here.send(me, "followed", leave_after=2.5)
        reading = asyncio.create_task(here.read_to_the_end(followed))

        async def cancelled() -> bool:
            return await count(database, "turn where status = 'cancelled'") == 1

        await until(cancelled)
        assert (await read_turn(database, left)).status == "cancelled"
        await asyncio.sleep(3)
        assert (await read_turn(database, followed)).status == "running"
        assert (await read_turn(database, kept)).status == "running"
        reading.cancel()

        async def both() -> bool:
            return await count(database, "turn where status = 'cancelled'") == 2

        await until(both)
