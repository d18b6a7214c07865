"""The database keeps callers apart by itself, whatever a statement asks for."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy import Table, delete, func, insert, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlmodel import SQLModel

from agent_server.db import SYSTEM, Database, new_id
from agent_server.db.isolation import APP_ROLE, SYSTEM_ROLE, row_policy_of
from agent_server.db.sweep import sweep
from agent_server.errors import InvalidInput
from agent_server.settings import load_settings
from agent_server.storage import migrate
from agent_server.testing import copy_database
from agent_server.workspace import load_workspace
from tests.commands import agent_server
from tests.conftest import ROOT, everything, execute, fetch
from tests.rows import insert_row_of_everything, owned_tables

pytestmark = pytest.mark.names_no_owner

ALICE, BOB = new_id(), new_id()
load_workspace(ROOT)  # or the tables of its tools are there in some runs only
TABLES = [table.name for table in owned_tables()]


@pytest.fixture
async def filled(database: Database) -> Database:
    """A database where Alice and Bob each have a row in every table."""
    for owner in (ALICE, BOB):
        async with everything(database) as session:
            await insert_row_of_everything(session, owner, "canary")
    return database


def _owner_of(table: Table) -> Any:
    policy = row_policy_of(table)
    assert policy is not None
    return table.c[policy.column]


@pytest.mark.parametrize("name", TABLES)
async def test_a_statement_without_an_owner_finds_and_changes_only_rows_of_whom_it_is_for(
    filled: Database, name: str
) -> None:
    table = SQLModel.metadata.tables[name]
    owner = _owner_of(table)
    policy = row_policy_of(table)
    assert policy is not None
    seen = set() if policy.own_read else {ALICE}
    async with filled.transaction(ALICE) as session:
        assert set((await session.execute(select(owner))).scalars()) == seen
    for owners in ((), (new_id(),), (SYSTEM,)):
        async with filled.transaction(*owners) as session:
            assert (await session.execute(select(func.count()).select_from(table))).scalar_one() == 0
    if not policy.append_only:
        async with filled.transaction(BOB) as session:
            await session.execute(update(table).values({column.name: column for column in table.columns}))
            await session.execute(delete(table))
        async with everything(filled) as session:
            left = set((await session.execute(select(owner))).scalars())
        assert left == {ALICE}


@pytest.mark.parametrize("name", TABLES)
async def test_nobody_writes_a_row_for_somebody_else(filled: Database, name: str) -> None:
    table = SQLModel.metadata.tables[name]
    async with everything(filled) as session:
        row = dict((await session.execute(select(table).where(_owner_of(table) == ALICE))).one()._mapping)
    others: dict[str, Any] = {c.name: new_id() for c in table.primary_key if isinstance(row[c.name], UUID)}
    others[_owner_of(table).name] = ALICE
    for owners in ((), (BOB,), (SYSTEM,)):
        with pytest.raises(DBAPIError, match="row-level security"):
            async with filled.transaction(*owners) as session:
                await session.execute(insert(table), {**row, **others})


async def test_shared_rows_are_there_for_everybody_and_nobody_adds_to_them(filled: Database) -> None:
    shared = [t for t in SQLModel.metadata.sorted_tables if (policy := row_policy_of(t)) is not None and policy.shared]
    assert {table.name for table in shared} >= {"document", "chunk", "term", "corpus"}
    row = {"owner_id": BOB, "n_chunks": 1, "pivot": 1.0}
    for owners in ((), (BOB,)):
        for owner in (BOB, SYSTEM):
            with pytest.raises(DBAPIError, match="row-level security"):
                async with filled.transaction(*owners) as session:
                    await session.execute(insert(SQLModel.metadata.tables["corpus"]), {**row, "owner_id": owner})
    async with filled.transaction(SYSTEM) as session:
        await session.execute(insert(SQLModel.metadata.tables["corpus"]), {**row, "owner_id": SYSTEM})
    async with filled.transaction() as session:
        assert (await session.execute(text("select n_chunks from corpus"))).scalar_one() == 1


async def test_every_table_with_an_owner_is_guarded_from_its_owner_too(url: str) -> None:
    guarded = await fetch(url, "select relname from pg_class where relrowsecurity and relforcerowsecurity")
    owned = [table.name for table in SQLModel.metadata.sorted_tables if row_policy_of(table) is not None]
    assert {name for (name,) in guarded} == set(owned)
    columns = await fetch(url, "select table_name from information_schema.columns where column_name = 'owner_id'")
    assert {name for (name,) in columns} <= set(owned)


async def test_transactions_run_as_a_role_that_owns_nothing_and_passes_over_nothing(database: Database) -> None:
    about = text("""
        select rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolcanlogin,
               (select count(*) from pg_class where relowner = r.oid),
               (select count(*) from pg_proc where proowner = r.oid)
        from pg_roles r where rolname = :role""")
    async with database.transaction() as session:
        assert (await session.execute(text("select current_user"))).scalar_one() == APP_ROLE
        assert (await session.execute(about, {"role": APP_ROLE})).one() == (*[False] * 5, 0, 0)
        functions = (await session.execute(about, {"role": SYSTEM_ROLE})).one()
    assert functions[:6] == (*[False] * 5, 0)


async def test_whom_a_transaction_is_for_does_not_outlast_it(url: str) -> None:
    database = Database(url, pool_size=1)
    for owners in ((ALICE,), ()):
        async with database.transaction(*owners) as session:
            shown = (await session.execute(text("select current_setting('agent_server.owners')"))).scalar_one()
            assert shown == f"{{{','.join(map(str, owners))}}}"
    async with database.pool.connect() as connection:
        row = await connection.execute(text("select current_setting('agent_server.owners', true), current_user"))
        owners_left, role = row.one()
    assert not owners_left
    assert role != APP_ROLE
    await database.close()


@pytest.mark.parametrize("scope", ["x'; drop table turn; --", "a,b", "", "é", "A:B"])
async def test_a_scope_is_never_a_statement(database: Database, scope: str) -> None:
    with pytest.raises(ValueError, match="not scopes"):
        async with database.transaction(scopes=[scope]) as session:
            await session.execute(text("select 1"))


@pytest.mark.parametrize("statement", ["update audit set outcome = 'ok'", "delete from audit", "truncate audit"])
async def test_the_audit_only_grows_whoever_asks(filled: Database, statement: str) -> None:
    with pytest.raises(DBAPIError, match="only ever added"):
        async with everything(filled) as session:
            await session.execute(text(statement))
    with pytest.raises(DBAPIError, match="permission denied"):
        async with filled.transaction(ALICE, scopes=["*"]) as session:
            await session.execute(text(statement))


async def test_the_sweep_shows_ids_and_its_role_reads_what_its_functions_need(filled: Database) -> None:
    async with filled.transaction() as session:
        rows = await sweep(session, "expired_guests", seconds=-3600)
    assert {row.owner_id for row in rows} == {ALICE, BOB}
    readable = await fetch(
        filled.url,
        f"""select table_name, column_name from information_schema.column_privileges
            where grantee = '{SYSTEM_ROLE}' and privilege_type <> 'SELECT' and table_name <> 'signing_key'""",
    )
    assert readable == []
    seen = await fetch(
        filled.url,
        f"select distinct table_name from information_schema.column_privileges where grantee = '{SYSTEM_ROLE}'",
    )
    with_functions = {
        "account",
        "api_key",
        "confirmation",
        "guest",
        "login",
        "mcp_task",
        "replica",
        "signing_key",
        "turn",
    }
    # `find_said` looks through an index that row-level security would keep the planner from; it returns ids, and only
    # to the owner that the transaction acts for (tests/test_search.py).
    with_functions |= {"conversation", "item"}
    assert {name for (name,) in seen} == with_functions
    for column in ("input", "error", "usage", "body_sha", "client_key"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await execute(filled.url, f"set role {SYSTEM_ROLE}; select {column} from turn")


@contextmanager
def _server_settings(url: str, **values: Any) -> Iterator[Any]:
    yield load_settings(workspace=ROOT, database_url=url, model="offline", **values)


async def _starts(url: str, **values: Any) -> None:
    database = Database(url, owner_url=values.pop("owner_url", None))
    try:
        await database.make_login()
        with _server_settings(url, **values) as settings:
            await migrate(settings, load_workspace(ROOT).root, database)
    finally:
        await database.close()


def _as_user(url: str, user: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=f"{user}@{parts.netloc.rpartition('@')[2]}").geturl()


async def test_a_deployed_server_refuses_a_user_that_could_pass_over_the_walls(url: str) -> None:
    with pytest.raises(
        InvalidInput, match=r"DATABASE_URL: its user postgres passes over row-level security.*DATABASE_"
    ):
        await _starts(url, environment="production")
    await _starts(url, environment="test")  # one's own machine: transactions step down by themselves
    await _starts(_as_user(url, "web_of_a_test"), environment="production", owner_url=url)


async def test_a_server_refuses_to_start_where_the_walls_are_down(url: str) -> None:
    await execute(url, "alter table profile no force row level security")
    with pytest.raises(InvalidInput, match=r"The tables profile have no row-level security.*db upgrade"):
        await _starts(url)
    await execute(url, "alter table profile force row level security", "create table stray (owner_id uuid)")
    with pytest.raises(InvalidInput, match="stray"):
        await _starts(url)
    await execute(url, "drop table stray")
    await _starts(url)


async def test_a_server_refuses_a_role_that_owns_what_it_reads(url: str) -> None:
    await execute(url, f"alter table profile owner to {APP_ROLE}")
    with pytest.raises(InvalidInput, match=f"{APP_ROLE} owns the tables"):
        await _starts(url)


async def test_a_user_that_is_no_member_of_the_role_is_told_what_to_do(url: str) -> None:
    await execute(url, "create role stranger_of_a_test login")
    try:
        database = Database(_as_user(url, "stranger_of_a_test"))
        with pytest.raises(InvalidInput, match=f"grant {APP_ROLE} to"):
            await database.check_isolation(login_too=False)
        await database.close()
    finally:
        await execute(url, "drop role stranger_of_a_test")


async def test_the_embedded_server_is_read_by_a_user_that_is_not_its_superuser(tmp_path: Path) -> None:
    from agent_server.storage import connect

    (tmp_path / "content").mkdir()
    database = connect(load_settings(workspace=tmp_path, model="offline"))
    await database.make_login()
    async with database.pool.connect() as connection:
        row = await connection.execute(
            text("select rolname, rolsuper, rolbypassrls from pg_roles where rolname = session_user")
        )
        assert row.one() == ("agent_server", False, False)
    await database.close()


async def test_a_login_of_the_role_cannot_go_back_to_the_owner(url: str) -> None:
    database = Database(_as_user(url, "web_of_another_test"), owner_url=url)
    await database.make_login()
    for statement in (
        "set role postgres",
        "set session authorization postgres",
        "alter table turn disable row level security",
    ):
        with pytest.raises((DBAPIError, asyncpg.PostgresError), match=r"permission denied|must be owner"):
            async with database.transaction(ALICE) as session:
                await session.execute(text(statement))
    await database.close()


def test_a_deployed_server_is_set_up_with_two_addresses_and_runs_with_one(postgres: str) -> None:
    with copy_database(postgres) as owner:
        web = _as_user(owner, "web_of_a_deployment")
        deployed = {"AGENT_SERVER_ENVIRONMENT": "production", "AGENT_SERVER_MODEL": "offline", "DATABASE_URL": web}
        early = agent_server("key", "create", cwd=ROOT, **deployed, DATABASE_OWNER_URL=owner)
        assert early.returncode == 1
        assert "pending; run `agent-server db upgrade`" in early.stderr
        upgraded = agent_server("db", "upgrade", cwd=ROOT, **deployed, DATABASE_OWNER_URL=owner)
        assert upgraded.returncode == 0, upgraded.stderr
        made = agent_server("key", "create", "--json", cwd=ROOT, **deployed)
        assert made.returncode == 0, made.stderr
        refused = agent_server("key", "create", cwd=ROOT, **{**deployed, "DATABASE_URL": owner})
        assert refused.returncode == 1
        assert "DATABASE_OWNER_URL" in refused.stderr
