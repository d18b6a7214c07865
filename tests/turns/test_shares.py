"""Turns of one owner: so many run at once, over all replicas, and they hide nobody else's."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from uuid import UUID

import pytest
from sqlalchemy import text

from agent_server.caller import Caller
from agent_server.db import Database, new_id
from agent_server.db.sweep import sweep
from agent_server.turns.attempt import Attempt, Outcome
from agent_server.turns.models import Turn
from tests.conftest import everything
from tests.server import Start
from tests.turns.ledger import Replica, answer, count, ended, kill, never, read_turn, replica, until


def _user() -> Caller:
    return Caller(id=new_id(), kind="user")


class Held:
    """A run loop that waits until it is let go, and counts how many of each owner run at once."""

    def __init__(self) -> None:
        self.go_on, self.started = asyncio.Event(), asyncio.Semaphore(0)
        self.running: Counter[UUID] = Counter()
        self.most: Counter[UUID] = Counter()

    async def __call__(self, attempt: Attempt) -> Outcome:
        owner = attempt.caller.id
        self.running[owner] += 1
        self.most[owner] = max(self.most[owner], self.running[owner])
        self.started.release()
        await self.go_on.wait()
        self.running[owner] -= 1
        return Outcome()


async def _send(here: Replica, caller: Caller, turns: int, at_once: int | None) -> list[Turn]:
    """Send so many messages at the same time, each to a conversation of its own."""
    return list(await asyncio.gather(*(here.send(caller, str(n), at_once=at_once) for n in range(turns))))


async def test_so_many_turns_of_an_owner_run_at_once_and_the_others_wait(database: Database) -> None:
    held, owner, other = Held(), _user(), _user()
    async with replica(database, held) as here, replica(database, held) as there:
        sent = await asyncio.gather(_send(here, owner, 8, 3), _send(there, owner, 8, 3))
        turns = [turn for some in sent for turn in some]
        assert Counter(turn.status for turn in turns) == {"running": 3, "queued": 13}
        # these come after them, and run at once
        turns += await _send(here, other, 2, 3)
        assert [turn.status for turn in turns[-2:]] == ["running", "running"]
        for _ in range(5):
            await held.started.acquire()
        held.go_on.set()
        await until(lambda: ended(database, *turns))
    assert held.most == {owner.id: 3, other.id: 2}


async def test_one_that_ends_makes_room_for_the_owners_next_at_once(database: Database) -> None:
    """Were each left to the sweep of every quarter of a second, these would outlast `until`."""
    owner = _user()
    async with replica(database, answer) as here:
        turns = await _send(here, owner, 150, 1)
        await until(lambda: ended(database, *turns))


async def test_claims_at_the_same_time_keep_to_the_bound(database: Database) -> None:
    held, owner = Held(), _user()
    async with replica(database, never, slots=0) as full:
        turns = await _send(full, owner, 20, 4)
        assert {turn.status for turn in turns} == {"queued"}
        async with AsyncExitStack() as stack:
            for _ in range(3):
                await stack.enter_async_context(replica(database, held))
            for _ in range(4):
                await held.started.acquire()
            assert await count(database, "turn where status = 'running'") == 4
            held.go_on.set()
            await until(lambda: ended(database, *turns))
    assert held.most == {owner.id: 4}


async def test_a_turn_of_a_dead_process_is_taken_over_also_where_its_owner_is_at_the_bound(database: Database) -> None:
    owner = _user()
    async with replica(database, never, slots=2) as here:
        turns = await _send(here, owner, 3, 2)
        assert Counter(turn.status for turn in turns) == {"running": 2, "queued": 1}
        for turn in turns:
            await kill(database, turn)
        async with replica(database, answer):
            await until(lambda: ended(database, *turns))
    assert {(await read_turn(database, turn)).status for turn in turns} == {"done"}


async def _claimable(database: Database, batch: int = 32) -> Sequence[UUID]:
    """Whose turns a sweep finds, in order."""
    async with database.transaction() as session:
        return [row.owner_id for row in await sweep(session, "claimable", seconds=5, batch=batch)]


async def test_a_crowd_of_one_owner_is_before_nobody_elses_first_turn(database: Database) -> None:
    crowd, others = _user(), [_user() for _ in range(5)]
    async with replica(database, never, slots=0) as full:
        await _send(full, crowd, 60, 16)
        for other in others:
            await _send(full, other, 2, 16)
        found = await _claimable(database)
        assert Counter(found) == {crowd.id: 16, **{other.id: 2 for other in others}}
        # in turns: everybody's first, everybody's second, and then the rest
        everybody = {crowd.id, *(other.id for other in others)}
        assert set(found[:6]) == everybody and set(found[6:12]) == everybody
        assert set(await _claimable(database, batch=6)) == everybody


async def test_an_owner_at_the_bound_is_passed_over_and_what_runs_counts(database: Database) -> None:
    crowd, other = _user(), _user()
    async with replica(database, never, slots=64) as here:
        await _send(here, crowd, 6, 4)
        assert await _claimable(database) == []
        async with replica(database, never, slots=0) as full:
            await _send(full, other, 3, 4)
            await _send(full, crowd, 3, 5)
            await here.runner.close()  # its four are free again
            found = await _claimable(database)
    assert Counter(found) == {other.id: 3, crowd.id: 4}


async def test_turns_from_before_there_was_a_bound_are_claimed(database: Database) -> None:
    owner = _user()
    async with replica(database, never, slots=0) as full:
        await _send(full, owner, 40, None)
        assert len(await _claimable(database)) == 32
        async with replica(database, answer):
            await until(lambda: _none_waits(database))


async def _none_waits(database: Database) -> bool:
    return await count(database, "turn where status in ('queued', 'running')") == 0


@pytest.mark.parametrize(("kind", "bound"), [("guest", 2), ("user", 3)])
async def test_turns_of_guests_and_of_users_have_bounds_of_their_own(start: Start, kind: str, bound: int) -> None:
    async with start(offline_words_per_second=1, turns_per_guest=2, turns_per_user=3) as client:
        auth = client.auth
        if kind == "guest":
            auth = {"Authorization": f"Bearer {(await client.http.post('/api/session')).json()['token']}"}
        body = {"message": "How deep may I dive on nitrox 32?"}
        async with AsyncExitStack() as stack:
            for _ in range(6):
                sent = await stack.enter_async_context(client.http.stream("POST", "/api/chat", json=body, headers=auth))
                assert sent.status_code == 200
            async with everything(client.server.database) as session:
                found = await session.execute(text("select status, count(*)::int from turn group by status"))
                assert sorted(map(tuple, found)) == [("queued", 6 - bound), ("running", bound)]
