"""The hot path's transactions: the same rows, rules and failures as SQLAlchemy's, for less."""

import asyncio
import json
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from agent_server.db import Database, DatabaseAway, after_commit, new_id
from agent_server.db.quick import compile_text
from tests.conftest import everything
from tests.proxy import end_connections, proxied

_ECHO = text("""
    select cast(:s as text) as s, cast(:n as bigint) as n, cast(:u as uuid) as u, cast(:j as jsonb) as j,
        cast(:b as bytea) as b, cast(:f as float) as f, cast(:l as text[]) as l""")
_TEXT = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | _TEXT, lambda j: st.lists(j) | st.dictionaries(_TEXT, j)
)
_BEGIN = text("""
    insert into conversation (owner_id, id, title, next_turn, created_at, updated_at)
    values (:owner_id, :id, 'mine', 1, now(), now())""")
_TITLES = text("select title from conversation")


@given(
    values=st.fixed_dictionaries(
        {
            "s": st.none() | _TEXT,
            "n": st.none() | st.integers(-(2**63), 2**63 - 1),
            "u": st.none() | st.uuids(),
            "j": _JSON.map(json.dumps),
            "b": st.none() | st.binary(),
            "f": st.none() | st.floats(allow_nan=False),
            "l": st.none() | st.lists(_TEXT),
        }
    )
)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
async def test_a_value_comes_and_goes_as_in_an_ordinary_transaction(database: Database, values: dict[str, Any]) -> None:
    async with database.transaction() as session:
        ordinary = tuple((await session.execute(_ECHO, values)).one())
    async with database.quick() as session:
        assert tuple((await session.execute(_ECHO, values)).one()) == ordinary
    assert tuple((await database.single(_ECHO, values)).one()) == ordinary


@given(names=st.lists(st.from_regex("[a-z][a-z_0-9]{0,8}", fullmatch=True), min_size=1, max_size=6))
def test_a_parameter_has_one_place_however_often_it_is_named(names: list[str]) -> None:
    statement = text("select " + ", ".join(f":{name}, cast(:{name} as int), 'a'::text" for name in names))
    sql, places = compile_text(statement)
    assert list(places) == list(dict.fromkeys(names))
    for name in names:
        place = places.index(name) + 1
        assert f"${place}, cast(${place} as int)" in sql
    assert ":text" in sql and not any(f" :{name}" in sql for name in names)


@pytest.mark.names_no_owner
async def test_only_the_rows_of_those_that_are_named_are_there(database: Database) -> None:
    mine, yours = new_id(), new_id()
    for owner in (mine, yours):
        async with database.quick(owner) as session:
            await session.execute(_BEGIN, {"owner_id": owner, "id": new_id()})
    async with database.quick(mine) as session:
        assert len((await session.execute(_TITLES)).all()) == 1
    async with database.quick() as session:
        assert (await session.execute(_TITLES)).all() == []
    assert await database.single(_TITLES, {}) == []
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with database.quick(mine) as session:
            await session.execute(_BEGIN, {"owner_id": yours, "id": new_id()})


@pytest.mark.names_no_owner
async def test_the_next_user_of_a_connection_acts_for_nobody_of_before(url: str) -> None:
    database, mine = Database(url, pool_size=1), new_id()
    async with database.quick(mine) as session:
        await session.execute(_BEGIN, {"owner_id": mine, "id": new_id()})
    assert await database.single(_TITLES, {}) == []
    async with database.transaction() as session:
        assert (await session.execute(_TITLES)).all() == []
    async with database.transaction(mine) as session:
        assert len((await session.execute(_TITLES)).all()) == 1
    await database.close()


async def _count(database: Database) -> int:
    async with everything(database) as session:
        return int((await session.execute(text("select count(*) from conversation"))).scalar_one())


async def test_what_raises_or_is_cancelled_keeps_nothing_and_frees_the_connection(url: str) -> None:
    database, mine = Database(url, pool_size=1), new_id()

    async def begin(then: Any) -> None:
        async with database.quick(mine) as session:
            await session.execute(_BEGIN, {"owner_id": mine, "id": new_id()})
            await then(session)

    async def fail(_: Any) -> None:
        raise OSError("the block's own")

    async def sleep(session: Any) -> None:
        await session.execute(text("select pg_sleep(60)"))

    with pytest.raises(OSError, match="own"):  # no outage of the database
        await begin(fail)
    task = asyncio.create_task(begin(sleep))
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await _count(database) == 0
    assert database.pool_status()["checked_out"] == 0
    async with database.quick(mine) as session:  # the only connection is as good as new
        await session.execute(_BEGIN, {"owner_id": mine, "id": new_id()})
    assert await _count(database) == 1
    await database.close()


async def test_a_transaction_in_which_a_statement_failed_does_not_seem_to_commit(database: Database) -> None:
    called: list[int] = []

    async def go_on_after_a_failure() -> None:
        async with database.quick() as session:
            after_commit(session, lambda: called.append(1))
            with pytest.raises(asyncpg.DivisionByZeroError):
                await session.execute(text("select 1 / 0"))

    with pytest.raises(RuntimeError, match="nothing of it is stored"):
        await go_on_after_a_failure()
    assert called == []
    async with database.quick() as session:
        after_commit(session, lambda: called.append(2))
    assert called == [2]


@pytest.mark.parametrize("where", ["statement", "commit", "single"])
async def test_a_connection_that_is_cut_is_an_outage_and_is_replaced(url: str, where: str) -> None:
    database = Database(url, pool_size=1)

    other = Database(url)

    async def cut(pid: int) -> None:
        async with everything(other) as session:
            await session.execute(text("select pg_terminate_backend(:pid)"), {"pid": pid})

    async def cut_asleep() -> None:
        ended = 0
        while not ended:
            async with everything(other) as session:
                asleep = "select pg_terminate_backend(pid) from pg_stat_activity where query = 'select pg_sleep(60)'"
                ended = len((await session.execute(text(asleep))).all())

    async def use() -> None:
        if where == "single":
            await asyncio.gather(cut_asleep(), database.single(text("select pg_sleep(60)"), {}))
        else:
            await use_in_transaction()

    async def use_in_transaction() -> None:
        async with database.quick() as session:
            await cut((await session.execute(text("select pg_backend_pid()"))).scalar_one())
            if where == "statement":
                await session.execute(text("select 2"))

    with pytest.raises(DatabaseAway):
        await use()
    assert (await database.single(text("select 3"), {})).scalar_one() == 3
    await other.close()
    await database.close()


@pytest.mark.parametrize("where", ["first", "statement", "commit", "single", "ordinary first", "ordinary statement"])
async def test_a_connection_that_was_ended_and_is_not_closed_yet_is_an_outage_too(url: str, where: str) -> None:
    other = Database(url)
    async with proxied(url) as proxy:
        database = Database(proxy.url, pool_size=1)
        begin = database.transaction if where.startswith("ordinary") else database.quick

        async def use() -> None:
            if where.endswith("first"):
                await end_connections(proxy, other)
            async with begin() as session:
                await session.execute(text("select 1"))
                if not where.endswith("first"):
                    await end_connections(proxy, other)
                if where.endswith("statement"):
                    await session.execute(text("select 2"))

        async def use_once() -> None:
            await end_connections(proxy, other)
            await database.single(text("select 2"), {})

        await database.single(text("select 1"), {})  # the pool has its connection
        proxy.hide_ends()
        with pytest.raises(DatabaseAway, match="cannot be reached"):
            await (use_once() if where == "single" else use())
        async with begin() as session:
            assert (await session.execute(text("select 3"))).scalar_one() == 3
        proxy.heal()
        await database.close()
    await other.close()


async def test_a_row_can_be_read_by_name_and_in_order(database: Database) -> None:
    async with database.quick() as session:
        row = (await session.execute(text("select 1 as one, cast(:id as uuid) as id"), {"id": UUID(int=7)})).one()
    assert (row.one, row.id, tuple(row)) == (1, UUID(int=7), (1, UUID(int=7)))
    with pytest.raises(AttributeError):
        _ = row.nothing
