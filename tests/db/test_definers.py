"""What runs with more rights than its caller is led astray by nothing that the caller makes, in any schema."""

from collections.abc import Iterator
from urllib.parse import quote

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from agent_server.db import Database, new_id
from agent_server.db.isolation import APP_ROLE, SYSTEM_ROLE
from agent_server.db.migrate import downgrade, drift, upgrade
from agent_server.identity.logins import SigningSecret
from agent_server.testing import copy_database
from agent_server.workspace import load_workspace
from tests.conftest import ROOT, execute, fetch

pytestmark = pytest.mark.names_no_owner

DEFINERS = """
    select p.proname, n.nspname, p.proconfig, pg_get_userbyid(p.proowner)
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    where p.prosecdef and n.nspname not in ('pg_catalog', 'information_schema')"""
CALLS = {
    "knows_device": "select * from knows_device(gen_random_uuid(), '')",
    "sweep": "select count(*) from unnest(array['claimable', 'left', 'held', 'prunable', 'prunable_calls', "
    "'expired_guests', 'expired_logins', 'expired_confirmations']) what, lateral sweep(what, gen_random_uuid(), -1e9, 10) s",
    "find_over": "select count(*) from unnest(array['prunable', 'prunable_calls', 'expired_logins', "
    "'expired_confirmations']) what, lateral find_over(what, -1e9, '-infinity', 10) s",
    "find_tasks": "select count(*) from unnest(array['free', 'over']) what, "
    "lateral find_tasks(what, gen_random_uuid(), -1e9, 10) t",
    "find_key": "select count(*) from find_key(gen_random_uuid(), '\\x00')",
    "find_said": "select find_said(id, 'flying'), find_said(id, 'flying', now(), id, 1, 1) from gen_random_uuid() id",
    "find_talks": "select find_talks(id, 'flying', now(), id, 1, 1) from gen_random_uuid() id",
    "find_login": "select count(*) from find_login('ann@example.com')",
    "find_outsider": "select count(*) from find_outsider('a', 'b')",
    "somebody_can_sign_in": "select somebody_can_sign_in('x')",
    "signing_secret": "select signing_secret(gen_random_uuid()::text::bytea)",  # pragma: allowlist secret
}
"""A call of each function that runs with more rights than its caller."""
SPY = """
    create function pg_temp.spy() returns boolean language plpgsql volatile as $$
    begin perform set_config('spy.saw', current_user, false); return true; end $$"""
"""What notes whose rights it runs with."""


@pytest.fixture
def elsewhere(postgres: str) -> Iterator[str]:
    """The address of an empty database whose tables are to be in a schema of another name."""
    with copy_database(postgres) as url:
        yield url + "&search_path=" + quote('"Agents & more"')


async def test_every_function_with_rights_of_its_own_looks_in_its_schema_and_last_at_what_is_temporary(
    url: str,
) -> None:
    found = await fetch(url, DEFINERS)
    assert {name for name, *_ in found} == CALLS.keys()
    for _, schema, settings, owner in found:
        assert (settings[0], owner) == (f"search_path={schema}, pg_temp", SYSTEM_ROLE)


async def test_a_temporary_view_in_place_of_a_table_is_not_looked_at_with_other_rights(url: str) -> None:
    """As the attack has it: a view of a table's name, which calls a function of whoever made it."""
    tables = {
        table: ", ".join(f"null::{kind} as {column}" for column, kind in columns)
        for table, columns in await _columns(url)
    }
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f"set role {APP_ROLE}; {SPY}")
        for table, columns in tables.items():
            await connection.execute(f'create view pg_temp."{table}" as select {columns} where pg_temp.spy()')
            await connection.execute(f'grant select on pg_temp."{table}" to public')
        for call in CALLS.values():
            await connection.fetch(call)
        assert not await connection.fetchval("select current_setting('spy.saw', true)")
        await connection.fetch("select * from turn")
        assert await connection.fetchval("select current_setting('spy.saw')") == APP_ROLE
    finally:
        await connection.close()


async def _columns(url: str) -> list[tuple[str, list[tuple[str, str]]]]:
    rows = await fetch(
        url,
        """select c.relname, a.attname, format_type(a.atttypid, a.atttypmod) from pg_class c
           join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
           where c.relkind = 'r' and c.relnamespace = 'public'::regnamespace order by 1, a.attnum""",
    )
    names = {table for table, *_ in rows}
    return [(name, [(column, kind) for table, column, kind in rows if table == name]) for name in sorted(names)]


async def test_the_tables_may_be_in_a_schema_of_any_name(elsewhere: str) -> None:
    plain = elsewhere.partition("&search_path=")[0]
    await execute(plain, 'create schema "Agents & more"')
    load_workspace(ROOT)
    database = Database(elsewhere)
    for _ in range(2):
        await upgrade(database, ROOT)
        found = await fetch(plain, DEFINERS)
        assert {(name, schema) for name, schema, *_ in found} == {(name, "Agents & more") for name in CALLS}
        assert {settings[0] for _, _, settings, _ in found} == {'search_path="Agents & more", pg_temp'}
        assert len(await SigningSecret(database).get()) == 32
        await downgrade(database, ROOT, "engine@engine_0004")
        found = await fetch(plain, DEFINERS)
        assert {settings[0] for _, _, settings, _ in found} == {'search_path="Agents & more"'}
    await database.close()


async def test_nobody_reads_or_writes_what_signs_tokens(database: Database) -> None:
    secret = await SigningSecret(database).get()
    assert await fetch(database.url, "select secret from signing_key") == [(secret,)]
    for statement in (
        "select secret from signing_key",
        "select count(*) from signing_key",
        "update signing_key set secret = 'known'",  # pragma: allowlist secret
        "delete from signing_key",
        "insert into signing_key values (2, 'known')",
        "truncate signing_key",
    ):
        with pytest.raises(DBAPIError, match="permission denied"):
            async with database.transaction(new_id(), scopes=["*"]) as session:
                await session.execute(text(statement))
    assert await fetch(database.url, "select secret from signing_key") == [(secret,)]


async def test_the_secret_that_was_stored_first_is_everybodys(database: Database) -> None:
    first, second = SigningSecret(database), SigningSecret(database)
    assert await first.get() == await second.get()
    async with database.transaction() as session:
        given = (await session.execute(text("select signing_secret('another')"))).scalar_one()
    assert given == await first.get()


async def test_the_version_before_reads_the_secret_again_after_going_back(database: Database) -> None:
    load_workspace(ROOT)
    secret = await SigningSecret(database).get()
    await downgrade(database, ROOT, "engine@engine_0004")
    async with database.transaction() as session:
        await session.execute(
            text("insert into signing_key (id, secret) values (1, 'other') on conflict (id) do nothing")
        )
        assert (await session.execute(text("select secret from signing_key where id = 1"))).scalar_one() == secret
    await upgrade(database, ROOT)
    assert await SigningSecret(database).get() == secret
    async with database.owner.connect() as connection:
        assert await connection.run_sync(drift) == []
