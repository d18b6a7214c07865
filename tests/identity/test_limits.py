"""Limits: counted once for all replicas, by the clock of the database, and let go in time."""

import asyncio
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from agent_server.db import Database, new_id
from agent_server.errors import TooMany
from agent_server.identity.limits import expire_rates, give_back, limit_key, take


async def _taken(database: Database, key: str, times: int, *, per_seconds: float = 600, burst: int = 5) -> int:
    """How many of so many at once were let through."""

    async def one() -> bool:
        try:
            async with database.transaction() as session:
                await take(session, key, per_seconds=per_seconds, burst=burst)
        except TooMany:
            return False
        return True

    return sum(await asyncio.gather(*(one() for _ in range(times))))


async def _let_pass(database: Database, seconds: float) -> None:
    async with database.transaction() as session:
        await session.execute(text("update rate set free_at = free_at - :s * interval '1 second'"), {"s": seconds})


async def test_of_many_at_once_on_two_replicas_as_many_are_let_through_as_there_may_be(
    database: Database, url: str
) -> None:
    other = Database(url)
    counts = await asyncio.gather(_taken(database, "k", 6), _taken(other, "k", 6))
    await other.close()
    assert sum(counts) == 5


async def test_a_refusal_says_when_the_next_is_let_through(database: Database) -> None:
    await _taken(database, "k", 5)
    with pytest.raises(TooMany) as refused:
        async with database.transaction() as session:
            await take(session, "k", per_seconds=600, burst=5)
    wait = refused.value.retry_after
    assert wait is not None and 100 < wait <= 120
    assert f"{wait} s" in refused.value.message
    await _let_pass(database, wait - 20)
    assert await _taken(database, "k", 1) == 0
    await _let_pass(database, 20)
    assert await _taken(database, "k", 2) == 1


async def test_keys_do_not_count_for_each_other(database: Database) -> None:
    assert await _taken(database, "a", 6) == 5
    assert await _taken(database, "b", 6) == 5


async def test_what_is_rolled_back_or_given_back_is_not_counted(database: Database) -> None:
    async def fails() -> None:
        async with database.transaction() as session:
            await take(session, "k", per_seconds=600, burst=1)
            raise KeyError

    with pytest.raises(KeyError):
        await fails()
    for _ in range(2):
        async with database.transaction() as session:
            await take(session, "k", per_seconds=600, burst=1)
            await give_back(session, "k", per_seconds=600, burst=1)
    assert await _taken(database, "k", 2, burst=1) == 1


@given(burst=st.integers(1, 20), spent=st.integers(0, 25), part=st.floats(0, 2))
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
async def test_a_limit_is_free_again_in_proportion_to_the_time(
    database: Database, burst: int, spent: int, part: float
) -> None:
    key, window = str(new_id()), 100_000.0
    let_through = await _taken(database, key, spent, per_seconds=window, burst=burst)
    assert let_through == min(spent, burst)
    await _let_pass(database, window * part)
    free = burst - max(0.0, let_through - burst * part)
    again = await _taken(database, key, burst + 1, per_seconds=window, burst=burst)
    # the test itself takes time, of which a hundred thousandth part of the window is a second
    assert math.floor(free) <= again <= math.floor(free + burst * 0.001 + 1e-6)


async def test_rows_of_who_has_paid_are_removed_and_no_others(database: Database) -> None:
    await _taken(database, "old", 1)
    await _let_pass(database, 601)
    await _taken(database, "new", 1)
    await expire_rates(database)
    async with database.transaction() as session:
        assert (await session.execute(text("select key from rate"))).scalars().all() == ["new"]


def test_a_key_tells_nothing_of_what_it_is_for() -> None:
    key = limit_key(b"s" * 32, "address", "192.0.2.7")
    assert key == limit_key(b"s" * 32, "address", "192.0.2.7")
    assert key.startswith("address:") and len(key) == len("address:") + 64
    others = {
        limit_key(b"t" * 32, "address", "192.0.2.7"),
        limit_key(b"s" * 32, "guests", "192.0.2.7"),
        limit_key(b"s" * 32, "address", "192.0.2.8"),
    }
    assert len(others | {key}) == 4
    assert limit_key(b"s", "login", "\ud800")
