"""Jobs are done by one replica, and again by another when that one dies; what is over is removed, and nothing else."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import text

from agent_server.caller import Caller
from agent_server.conversations.items import assistant_message
from agent_server.db import Database, new_id
from agent_server.db.sweep import BATCH
from agent_server.housekeeping import expire_confirmations, expire_guests, expire_logins
from agent_server.identity.credentials import issue_guest
from agent_server.jobs import Job, Jobs
from agent_server.turns.attempt import Attempt, Outcome
from agent_server.turns.events import Done, Snapshot, TextDelta, TextDone
from agent_server.turns.prune import prune_turns
from tests.conftest import everything
from tests.rows import insert_row_of_everything
from tests.turns.ledger import answer, count, replica, until


async def _execute(database: Database, statement: str, **values: Any) -> None:
    async with everything(database) as session:
        await session.execute(text(statement), values)


async def test_two_replicas_do_a_job_once_each_time_it_is_due(database: Database) -> None:
    done: list[int] = []

    def jobs(n: int) -> Jobs:
        async def work() -> None:
            await asyncio.sleep(0.05)
            done.append(n)

        return Jobs(database, [Job("sweep_floor", work, every=3600)])

    replicas = [jobs(n) for n in range(3)]
    await asyncio.gather(*(each.start() for each in replicas))

    async def finished() -> bool:
        return await count(database, "job where kind = 'sweep_floor' and finished_at is not null") == 1

    await until(finished)
    await asyncio.gather(*(each.close() for each in replicas))
    assert len(done) == 1
    assert await count(database, "job where kind = 'sweep_floor' and due_at > now() + interval '50 minutes'") == 1


async def test_a_job_whose_replica_dies_is_done_by_another(database: Database) -> None:
    begun, done = asyncio.Event(), asyncio.Event()

    async def hangs() -> None:
        begun.set()
        await asyncio.Event().wait()

    async def works() -> None:
        done.set()

    dies = Jobs(database, [Job("ingest", hangs)])
    working = asyncio.create_task(dies.do("ingest", hangs))
    await begun.wait()
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    lives = Jobs(database, [Job("ingest", works)])
    await lives.start()
    async with asyncio.timeout(30):
        await done.wait()

    async def never_due_again() -> bool:
        return await count(database, "job where due_at = 'infinity'") == 1

    await until(never_due_again)
    await lives.close()


async def test_a_job_that_fails_is_tried_again_later_and_its_failure_is_told_to_who_asked(database: Database) -> None:
    async def fails() -> None:
        raise RuntimeError("no")

    jobs = Jobs(database, [Job("ingest", fails)])
    with pytest.raises(RuntimeError):
        await jobs.do("ingest", fails)
    assert await count(database, "job where failures = 1 and due_at between now() and now() + interval '1 minute'") == 1


async def _said(attempt: Attempt) -> Outcome:
    item = assistant_message("hello", agent="assistant")
    await attempt.writer.append(TextDelta(1, "hel"), TextDelta(1, "lo"), TextDone(1), items=[item])
    return Outcome("assistant", {"requests": 1})


async def test_past_retention_a_stream_is_one_snapshot_and_the_end(database: Database, me: Caller) -> None:
    async with replica(database, _said) as here:
        old, new = await here.send(me, "old"), await here.send(me, "new")
        whole = await here.read_to_the_end(old)
        await here.read_to_the_end(new)
        await _execute(database, "update turn set finished_at = now() - interval '3 days' where id = :id", id=old.id)
        assert await prune_turns(database, event_hours=48, call_hours=720) == 1
        assert await prune_turns(database, event_hours=48, call_hours=720) == 0
        assert await count(database, f"event where turn_id = '{old.id}'") == 0
        assert len(await here.read_to_the_end(new)) == 4
        last = whole[-1].seq
        said: list[dict[str, Any]] = [
            {"role": "user", "text": "old", "agent": None, "prompt_version": None, "sources": []},
            {"role": "assistant", "text": "hello", "agent": "assistant", "prompt_version": None, "sources": []},
        ]
        for after in (0, 1):
            snapshot, end = await here.read_to_the_end(old, after)
            assert (snapshot.seq, snapshot.event) == (last - 1, Snapshot(said))
            assert (end.seq, end.event) == (last, Done("assistant", {"requests": 1}))
        assert [n.seq for n in await here.read_to_the_end(old, last - 1)] == [last]
        assert await here.read_to_the_end(old, last) == []


async def test_calls_go_with_turns_that_ended_long_ago_once_and_no_others(database: Database, me: Caller) -> None:
    async with replica(database, answer) as here:
        old, new, runs = [await here.send(me, name) for name in ("old", "new", "runs")]
        for turn in (old, new, runs):
            await here.read_to_the_end(turn)
    for table, column, values in (
        ("model_call", "n, request_sha, response", "1, '', '{}'"),
        ("tool_call", "call_id, name, effect, args_sha, state, epoch", "'c', 'pay', 'once', '', 'done', 1"),
    ):
        await _execute(
            database, f"insert into {table} (owner_id, turn_id, {column}) select owner_id, id, {values} from turn"
        )
    await _execute(database, "update turn set finished_at = now() - interval '31 days' where id = :id", id=old.id)
    await _execute(database, "update turn set status = 'running', finished_at = null where id = :id", id=runs.id)
    hours = {"event_hours": 100_000, "call_hours": 720}
    # Of two replicas at once, one finds what the other has locked, or nothing more.
    await asyncio.gather(*(prune_turns(database, **hours) for _ in range(2)))
    assert await prune_turns(database, **hours) == 0
    for table in ("model_call", "tool_call"):
        assert await count(database, f"{table} where turn_id = '{old.id}'") == 0
        assert await count(database, table) == 2
    assert await count(database, "turn where not calls_kept and events_kept") == 1
    assert await count(database, f"event where turn_id = '{old.id}'") > 0


async def test_what_another_replica_holds_is_passed_over_and_removed_the_next_time(
    database: Database, me: Caller
) -> None:
    async with replica(database, answer) as here:
        turn = await here.send(me, "one of many")
        await here.read_to_the_end(turn)
    # As many as are removed at a time, the oldest first, and a few behind them.
    await _execute(
        database,
        """insert into turn (owner_id, id, conversation_id, turn_no, body_sha, status, epoch, attempts, last_event,
               last_item, cancel, input, created_at, finished_at)
           select owner_id, gen_random_uuid(), conversation_id, 1 + n, body_sha, 'done', epoch, attempts, last_event,
               last_item, cancel, input, created_at, now() - interval '3 days' + n * interval '1 minute'
           from turn, generate_series(1, :many) n""",
        many=BATCH + 20,
    )
    hours = {"event_hours": 48, "call_hours": 48}
    async with everything(database) as session:
        held = "select 1 from turn where finished_at < now() - interval '1 day' order by finished_at limit :many for update"
        await session.execute(text(held), {"many": BATCH})
        await prune_turns(database, **hours)
        assert await count(database, "turn where not events_kept and not calls_kept") == 20
    await prune_turns(database, **hours)
    assert await count(database, "turn where not events_kept and not calls_kept") == BATCH + 20


@pytest.mark.parametrize(
    ("expire", "table"), [(expire_logins, "login"), (expire_confirmations, "confirmation")], ids=["logins", "questions"]
)
async def test_logins_and_questions_whose_time_is_over_are_removed_whoever_they_are_of(
    database: Database, expire: Callable[[Database], Awaitable[int]], table: str
) -> None:
    for _ in range(3):
        async with everything(database) as session:
            await insert_row_of_everything(session, new_id(), "x")
    await _execute(database, f"update {table} set expires_at = now() + interval '1 day'")
    past = f"(select id from {table} order by id limit 2)"
    await _execute(database, f"update {table} set expires_at = now() - interval '2 days' where id in {past}")
    assert await expire(database) == 2
    assert await expire(database) == 0
    assert await count(database, table) == 1


async def test_guests_whose_time_is_over_leave_nothing_and_nobody_else_loses_anything(
    database: Database, me: Caller
) -> None:
    async with everything(database) as session:
        gone, here_still = [await issue_guest(session, new_id(), hours=1) for _ in range(2)]
    async with replica(database, answer) as here:
        for caller in (*(Caller(id=guest.id, kind="guest") for guest in (gone, here_still)), me):
            turn = await here.send(caller)
            await here.read_to_the_end(turn)
    await _execute(database, "update guest set expires_at = now() - interval '2 days' where id = :id", id=gone.id)
    await _execute(
        database, "insert into profile (owner_id, body) values (:id, '{}'), (:other, '{}')", id=gone.id, other=new_id()
    )
    assert await expire_guests(database) == 1
    assert await expire_guests(database) == 0
    left = {table: await count(database, table) for table in ("guest", "conversation", "turn", "profile")}
    assert left == {"guest": 1, "conversation": 2, "turn": 2, "profile": 1}
    assert await count(database, f"item where owner_id = '{gone.id}'") == 0
