"""Connections are given to who has waited longest, and to what was promised before requests; nobody waits for ever."""

import asyncio
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from agent_server.db import Database, keep_promise
from agent_server.errors import Unavailable

WAITERS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=24)
"""Of each who waits: whether it was promised something, and whether it gives up."""


@given(waiters=WAITERS)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_whoever_waits_is_served_in_the_order_of_arrival_and_requests_are_not_forgotten(
    url: str, waiters: list[tuple[bool, bool]]
) -> None:
    database = Database(url, pool_size=1, pool_timeout=30)
    served: list[int] = []

    async def wait(n: int, promised: bool) -> None:
        if promised:
            keep_promise()
        async with database.transaction() as session:
            await session.execute(text("select 1"))
            served.append(n)

    async with database.transaction() as session:
        await session.execute(text("select 1"))
        tasks = [asyncio.create_task(wait(n, promised)) for n, (promised, _) in enumerate(waiters)]
        await asyncio.sleep(0)
        assert database.pool_status()["checked_out"] == 1
        for task, (_, gives_up) in zip(tasks, waiters, strict=True):
            if gives_up:
                task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    kept = [n for n, (_, gives_up) in enumerate(waiters) if not gives_up]
    assert sorted(served) == kept
    for kind in (True, False):
        assert all(a < b for a, b in pairwise(n for n in served if waiters[n][0] is kind))
    requests = [place for place, n in enumerate(served) if not waiters[n][0]]
    promised = [place for place, n in enumerate(served) if waiters[n][0]]
    # Of each three at least one is a request while one waits, and at least two are not.
    assert all(place < 3 * (nth + 1) for nth, place in enumerate(requests))
    assert all(place <= (nth + 1) * 3 // 2 for nth, place in enumerate(promised))
    await database.check()
    assert database.pool_status() == {"size": 1, "checked_out": 0, "idle": 1}
    await database.close()


async def test_a_pool_without_a_free_connection_is_busy_and_not_away(url: str) -> None:
    database = Database(url, pool_size=1, pool_timeout=0.05)
    async with database.transaction() as session:
        await session.execute(text("select 1"))
        for _ in range(3):
            with pytest.raises(Unavailable, match=r"^The server is busy: .*; try again in a moment$") as busy:
                await database.check()
            assert busy.value.retry_after == 5
    await database.check()
    await database.close()


async def test_whoever_comes_in_a_crowd_waits_as_long_as_those_before_it_are_served(url: str) -> None:
    database = Database(url, pool_size=1, pool_timeout=2)

    async def hold() -> None:
        async with database.transaction() as session:
            await session.execute(text("select pg_sleep(1.2)"))

    # The last one waits for longer than it would wait for one that holds its connection for ever.
    await asyncio.gather(*(hold() for _ in range(4)))
    await database.close()
