"""The way to Postgres: addresses as providers hand them out, and failures that name nothing of the inside."""

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from agent_server.db import Database, DatabaseAway, after_commit
from agent_server.db.address import read_address
from agent_server.errors import InvalidInput, Unavailable
from tests.conftest import everything, execute

NEON = "ep-cool-1a2b3c-pooler.eu-central-1.aws.neon.tech/neondb"


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("postgres://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
        ("postgresql://u:p@h:5433/d", "postgresql+asyncpg://u:p@h:5433/d"),
        (f"postgresql://u:p@{NEON}?sslmode=require&channel_binding=require", f"postgresql+asyncpg://u:p@{NEON}"),
        ("postgresql://postgres.ref:p%40%2F@aws-0.pooler.supabase.com:5432/postgres?sslmode=disable",  # pragma: allowlist secret
         "postgresql+asyncpg://postgres.ref:p%40%2F@aws-0.pooler.supabase.com:5432/postgres"),  # pragma: allowlist secret
        ("postgresql://postgres:@/postgres?host=/tmp/x%20y", "postgresql+asyncpg://postgres:@/postgres?host=%2Ftmp%2Fx+y"),
        ("postgresql://u@h/d?connect_timeout=10&application_name=x", "postgresql+asyncpg://u@h/d"),
    ],
)  # fmt: skip
def test_an_address_is_given_to_asyncpg_as_it_wants_it(given: str, address: str) -> None:
    assert read_address(given).url == make_url(address)


def test_sslmode_means_what_libpq_says() -> None:
    def arguments(mode: str) -> Any:
        return read_address(f"postgresql://u:p@h/d?sslmode={mode}").arguments.get("ssl")

    for mode in ("disable", "allow", "prefer", "verify-ca", "verify-full"):
        assert arguments(mode) == mode
    require = arguments("require")
    assert isinstance(require, ssl.SSLContext)
    assert require.verify_mode == ssl.CERT_NONE
    assert read_address("postgresql://u:p@h/d").arguments == {}


def test_other_parameters_go_where_they_count() -> None:
    read = read_address("postgresql://u@h/d?connect_timeout=10&application_name=x&options=-c%20a%3Db")
    assert read.arguments == {"timeout": 10.0}
    assert read.settings == {"application_name": "x", "options": "-c a=b"}


@pytest.mark.parametrize(
    "query", ["sslmode=verify_full", "sslmode=", "connect_timeout=x", "pgbouncer=true", "sslrootcert=/x"]
)
def test_a_parameter_that_would_be_lost_is_refused_by_name(query: str) -> None:
    with pytest.raises(InvalidInput, match=f"DATABASE_URL: .*{query.partition('=')[0]}") as refused:
        Database(f"postgresql://u:secret@h/d?{query}")
    assert "secret" not in refused.value.message


async def test_parameters_reach_the_session(url: str) -> None:
    database = Database(f"{url}&application_name=mine&options=-c%20work_mem%3D5MB")
    async with database.transaction() as session:
        shown = await session.execute(text("select current_setting('application_name'), current_setting('work_mem')"))
        assert tuple(shown.one()) == ("mine", "5MB")
        limits = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "jit")
        values = [(await session.execute(text(f"show {name}"))).scalar_one() for name in limits]
        assert values == ["15s", "5s", "10s", "off"]
    await database.close()


async def test_a_transaction_commits_at_its_end_and_keeps_nothing_when_it_raises(database: Database) -> None:
    await _make_table(database)
    await _insert(database, 1)
    with pytest.raises(ZeroDivisionError):
        await _insert(database, 2, ZeroDivisionError())
    async with database.transaction() as session:
        assert (await session.execute(text("select n from t"))).scalars().all() == [1]


async def _make_table(database: Database) -> None:
    async with everything(database) as session:
        await session.execute(text("create table t (n int primary key)"))
        await session.execute(text("grant all on t to public"))


async def _insert(database: Database, n: int, error: Exception | None = None) -> None:
    async with database.transaction() as session:
        await session.execute(text("insert into t values (:n)"), {"n": n})
        if error:
            raise error


async def test_a_pool_that_is_used_up_says_so_and_works_again_when_it_is_not(url: str) -> None:
    database = Database(url, pool_size=2, pool_timeout=0.1)
    async with database.transaction() as one, database.transaction() as two:
        await one.execute(text("select 1"))
        await two.execute(text("select 1"))
        assert database.pool_status() == {"size": 2, "checked_out": 2, "idle": 0}
        with pytest.raises(Unavailable) as away:
            await database.check()
        assert away.value.retry_after
    await database.check()
    assert database.pool_status()["checked_out"] == 0
    await database.close()


async def test_many_at_once_share_a_small_pool_without_waiting_for_each_other_forever(url: str) -> None:
    database = Database(url, pool_size=2, pool_timeout=20)
    await asyncio.gather(*(database.check() for _ in range(50)))
    await database.close()


@pytest.mark.parametrize(
    "statement",
    [
        "select * from no_such_table",
        "insert into t values (1)",
        "select 1/0",
        "not sql at all",
        "insert into t values ('x')",
    ],
)
async def test_a_wrong_statement_is_a_bug_and_not_an_outage(database: Database, statement: str) -> None:
    await _make_table(database)
    await _insert(database, 1)
    with pytest.raises(DBAPIError):
        await _execute(database, statement)
    await database.check()


async def test_an_argument_that_postgres_cannot_take_is_a_bug_and_not_an_outage(database: Database) -> None:
    await _make_table(database)
    for value in (2**40, "x", object()):
        with pytest.raises(DBAPIError):
            await _execute(database, "insert into t values (cast(:n as int))", n=value)
    with pytest.raises(IntegrityError):
        await _execute(database, "insert into t values (null)")


async def _execute(database: Database, statement: str, **values: Any) -> None:
    async with database.transaction() as session:
        await session.execute(text(statement), values)


async def test_a_connection_that_is_ended_in_mid_transaction_is_an_outage_and_the_next_one_works(
    database: Database,
) -> None:
    async def cut_off() -> None:
        async with database.transaction() as session:
            pid = (await session.execute(text("select pg_backend_pid()"))).scalar_one()
            async with everything(database) as other:
                await other.execute(text("select pg_terminate_backend(:pid)"), {"pid": pid})
            await session.execute(text("select 1"))

    with pytest.raises(Unavailable, match=r"^The database cannot be reached; try again in a moment$"):
        await cut_off()
    await database.check()


async def test_an_idle_connection_that_was_ended_is_replaced_unnoticed(database: Database) -> None:
    await database.check()
    others = "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
    await asyncio.gather(database.check(), database.check())
    await execute(database.url, others)
    await asyncio.gather(*(database.check() for _ in range(4)))


async def test_a_lock_that_is_not_given_in_time_is_an_outage(database: Database) -> None:
    await _make_table(database)

    async def read() -> None:
        async with database.transaction() as session:
            await session.execute(text("set local lock_timeout = 10"))
            await session.execute(text("select * from t"))

    async with database.transaction() as session:
        await session.execute(text("lock table t"))
        with pytest.raises(Unavailable):
            await read()


# What the block of a transaction may raise that is no word of our database: of a file, a socket, a library, or of a
# connection that the block made itself to a database of its own.
FOREIGN = (
    OSError, FileNotFoundError, PermissionError, BlockingIOError, ConnectionError, ConnectionRefusedError,
    ConnectionResetError, BrokenPipeError, TimeoutError, PoolTimeout, DBAPIError, OperationalError,
    asyncpg.PostgresError, asyncpg.DiskFullError, asyncpg.CannotConnectNowError, asyncpg.ConnectionDoesNotExistError,
    asyncpg.InterfaceError, asyncpg.TooManyConnectionsError, asyncpg.SerializationError, Unavailable, ZeroDivisionError,
)  # fmt: skip


def _foreign(kind: type[Exception], message: str) -> Exception:
    if issubclass(kind, DBAPIError):
        return kind(None, None, asyncpg.CannotConnectNowError(message), connection_invalidated=True)
    return kind(message)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(kind=st.sampled_from(FOREIGN), message=st.text(max_size=20), first=st.booleans())
def test_what_the_block_of_a_transaction_raises_comes_out_as_it_is(
    url: str, kind: type[Exception], message: str, first: bool
) -> None:
    error = _foreign(kind, message)

    async def run() -> None:
        database = Database(url)
        try:
            async with database.transaction() as session:
                if first:
                    await session.execute(text("select 1"))
                raise error
        finally:
            await database.close()

    with pytest.raises(kind) as raised:
        asyncio.run(run())
    assert raised.value is error


async def test_what_is_called_after_a_commit_may_raise_what_it_likes(database: Database) -> None:
    def call() -> None:
        raise ConnectionRefusedError("of another server")

    async def commit() -> None:
        async with database.transaction() as session:
            await session.execute(text("select 1"))
            after_commit(session, call)

    with pytest.raises(ConnectionRefusedError):
        await commit()


async def test_a_database_that_is_away_is_told_from_another_at_the_statement(database: Database) -> None:
    away = Database("postgresql://u:p@127.0.0.1:1/d")
    async with database.transaction() as session:
        with pytest.raises(DatabaseAway):
            async with away.transaction() as other:
                await other.execute(text("select 1"))
        assert (await session.execute(text("select 1"))).scalar_one() == 1
    await away.close()


@asynccontextmanager
async def _refusing(sqlstate: str, severity: str = "FATAL") -> AsyncIterator[str]:
    """A server that refuses every connection as Postgres does while it starts, stops or is full."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (length,) = struct.unpack("!i", await reader.readexactly(4))
        await reader.readexactly(length - 4)
        fields = [f"S{severity}", f"V{severity}", f"C{sqlstate}", "Mthe database system is /secret/path"]
        body = b"".join(field.encode() + b"\0" for field in fields) + b"\0"
        writer.write(b"E" + struct.pack("!i", len(body) + 4) + body)
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield f"postgresql://u:p@127.0.0.1:{port}/d?sslmode=disable"


@pytest.mark.parametrize("sqlstate", ["57P03", "57P01", "53300", "08006"])
async def test_a_server_that_starts_stops_or_is_full_is_an_outage(sqlstate: str) -> None:
    async with _refusing(sqlstate) as url:
        database = Database(url)
        with pytest.raises(Unavailable) as away:
            await database.check()
        assert "secret" not in away.value.message
        await database.close()


async def test_a_server_that_is_not_there_is_an_outage() -> None:
    for url in ("postgresql://u:p@127.0.0.1:1/d", "postgresql://u:p@/d?host=/no/such/socket"):
        database = Database(url)
        with pytest.raises(Unavailable):
            await database.check()
        await database.close()
