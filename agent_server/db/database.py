"""The engine, its pool, and the one way to a transaction."""

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast
from uuid import UUID

import asyncpg
from sqlalchemy import AdaptedConnection, Connection, ExceptionContext, TextClause, event, text
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError
from sqlalchemy.pool import AsyncAdaptedQueuePool

from agent_server.db.address import read_address
from agent_server.db.executor import Executor
from agent_server.db.extension import widen_path
from agent_server.db.isolation import APP_ROLE, ensure_roles, preamble, refuse_unguarded
from agent_server.db.outages import AWAY, BROKEN, DatabaseAway, not_our_session, sqlstate_of, translate
from agent_server.db.pool import NoPool, Pool
from agent_server.db.quick import QuickSession, Rows, uncut
from agent_server.errors import Conflict, InvalidInput

APPLICATION = "agent-server"
ANSWER_SECONDS = 20.0
"""How long an answer of the database may take: longer than `statement_timeout`, by which it gives up itself."""
# A process that is frozen within a transaction keeps its locks: after 10 seconds Postgres ends it.
_SESSION = {
    "statement_timeout": "15000",
    "lock_timeout": "5000",
    "idle_in_transaction_session_timeout": "10000",
    "jit": "off",
}
# Not in the start-up packet: poolers refuse what they do not know there, also those that keep a session together.
_SET = "select " + ", ".join(f"set_config('{name}', '{value}', false)" for name, value in _SESSION.items())
_SET = f"{_SET}; {widen_path(local=False)}"
# The keepalives free the lock of a machine that died; the role is not there yet before the first migration.
_DIRECT = f"""
    select set_config('tcp_keepalives_idle', '10', false);
    select set_config('role', '{APP_ROLE}', false) from pg_roles where rolname = '{APP_ROLE}'"""  # noqa: S608  # a name of our own
# A prepared statement belongs to a session, which behind a pooler is another in each transaction. One without a name
# lasts until the next; named ones would pile up in sessions where nobody closes them.
_POOLED: Mapping[str, Any] = {
    "statement_cache_size": 0,
    "prepared_statement_cache_size": 0,
    "prepared_statement_name_func": lambda: "",
}
_NO_SUCH_ROLE = frozenset({"22023", "42501", "42704"})
"""`set role` to one that is not there, and to one that the user is no member of."""
THROUGH_POOLER = (
    "leads through a pooler in transaction mode; the server must listen on a connection of its own: set "
    "DATABASE_DIRECT_URL to the address of the Postgres server itself"
)
_OVERTAKEN = "The row is no longer as it was read, or is not yours to change; read it again, then change it"


class Database:
    """A pool of connections to one Postgres database.

    `transaction()` is the only way to a connection: it commits when the block ends and rolls back when it raises. A
    connection that is lost or refused raises DatabaseAway. Where there is a `direct_url`, `url` may lead through a pooler
    in transaction mode: then nothing is expected of a session, neither prepared statements nor settings. `owner` is for
    migrations: it leads past the pooler as the user who owns the tables (`owner_url`, where that is not the one who
    reads and writes them), and waits as long as it takes.
    """

    def __init__(
        self,
        url: str,
        direct_url: str | None = None,
        owner_url: str | None = None,
        *,
        pool_size: int = 8,
        pool_timeout: float = 5.0,
        answer_timeout: float = ANSWER_SECONDS,
    ) -> None:
        self.url, self.direct_url, self.owner_url = url, direct_url or url, owner_url
        self._local: Mapping[str, str] = {}
        if direct_url is not None:
            given = read_address(url).settings
            if "options" in given:
                raise InvalidInput("DATABASE_URL: leave out options, which a pooler does not hand on")
            self._local = {**_SESSION, **given}
        # For the transaction only: behind a pooler the session is another client's next.
        self._limits = "".join(f", set_config('{k}', {_literal(v)}, true)" for k, v in self._local.items())
        if direct_url is not None:
            self._limits += f"; {widen_path(local=True)}"
        self.pool = _engine(
            url,
            pooled=direct_url is not None,
            poolclass=Pool,
            answer_timeout=answer_timeout,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=pool_timeout,
            pool_recycle=1800,
        )
        self._patient = _engine(self.direct_url, pooled=False, poolclass=NoPool)
        self.owner = _engine(owner_url or self.direct_url, pooled=False, poolclass=NoPool)
        event.listen(self.pool.sync_engine, "checkout", _refuse_closed)
        event.listen(self.pool.sync_engine, "handle_error", _give_up_the_silent)
        self._sessions = async_sessionmaker(
            # Rows are read on after their transaction, when there is no connection to load them again.
            self.pool,
            expire_on_commit=False,
            autoflush=False,
            sync_session_class=_Session,
        )

    @asynccontextmanager
    async def transaction(
        self, *owners: UUID, scopes: Collection[str] = (), patient: bool = False
    ) -> AsyncIterator[AsyncSession]:
        """One transaction, which reaches the rows of these `owners` and those that `scopes` open, and no others
        (`db.isolation`). A `patient` one is made on a connection of its own, past any pooler, and its statements may
        take longer than those of requests. Statements and the commit raise DatabaseAway when the database cannot be
        reached or goes away in the middle."""
        session = self._sessions(bind=self._patient) if patient else self._sessions()
        session.sync_session.info[_PREAMBLE] = preamble(owners, scopes) + ("" if patient else self._limits)
        # What the block raises comes out as it is: an OSError of its own is no outage of the database. Those of the
        # database are known where they arise, in `_Pool` and `_translate`.
        try:
            yield session
        except StaleDataError as stale:
            await uncut(session.close())
            raise Conflict(_OVERTAKEN) from stale
        except BaseException:
            await uncut(session.close())
            raise
        await uncut(_commit(session))

    @asynccontextmanager
    async def quick(self, *owners: UUID, scopes: Collection[str] = ()) -> AsyncIterator[QuickSession]:
        """The same for statements in SQL that must cost little: what runs for each message of a user."""
        session = QuickSession(self.pool, preamble(owners, scopes) + self._limits)
        try:
            await session.begin()
            yield session
        except BaseException:
            await uncut(session.roll_back())
            raise
        await uncut(session.commit())

    async def single(self, statement: TextClause, values: Mapping[str, Any]) -> Rows:
        """Run one statement in a transaction of its own that acts for nobody. Raises DatabaseAway."""
        if self._local:  # through a pooler: the role of a session would be another client's
            async with self.quick() as session:
                return await session.execute(statement, values)
        session = QuickSession(self.pool, f"set role {APP_ROLE}")
        try:
            await session.begin_single()
            return await session.execute(statement, values)
        finally:
            await uncut(session.give_back())

    async def direct(self) -> asyncpg.Connection:
        """A connection of its own, past any pooler, for what needs a session: LISTEN and locks that it holds.

        Raises Unavailable.
        """
        address = read_address(self.direct_url)
        # As the pool reads it: asyncpg's own reading differs in what a `user` of the query is, among others.
        _, named = self.owner.dialect.create_connect_args(address.url)
        settings = {"application_name": APPLICATION, **address.settings}
        try:
            connection = await asyncpg.connect(
                **{"timeout": 5, "server_settings": settings, **named, **address.arguments}
            )
            await connection.execute(_DIRECT, timeout=5)
        except (asyncpg.PostgresError, *BROKEN) as error:
            raise DatabaseAway(AWAY) from error
        return connection

    async def make_login(self) -> None:
        """Make the user that `url` logs in as, where the owner's address is known. Raises Unavailable, InvalidInput."""
        if self.owner_url is not None:
            try:
                async with self.owner.begin() as connection:
                    await connection.run_sync(ensure_roles, read_address(self.url))
            except DatabaseAway as error:
                raise DatabaseAway("The database cannot be reached as the owner of its tables") from error.__cause__

    async def check(self) -> None:
        """Raises Unavailable unless the database answers, InvalidInput where only a pooler in transaction mode does."""
        try:
            async with self.pool.connect() as connection:
                await connection.execute(text("select 1"))
        except DBAPIError as error:
            if not_our_session(error.orig):
                raise InvalidInput(f"DATABASE_URL: {THROUGH_POOLER}") from None
            raise

    async def check_isolation(self, *, login_too: bool) -> None:
        """Raises InvalidInput unless the database keeps callers apart; with `login_too`, also from whoever can run
        statements of their own on a connection of the pool."""
        try:
            async with self.transaction() as session:
                await session.run_sync(lambda s: refuse_unguarded(s.connection(), login_too=login_too))
        except DBAPIError as error:
            if sqlstate_of(error.orig) in _NO_SUCH_ROLE:
                raise InvalidInput(
                    f"DATABASE_URL: its user is no member of {APP_ROLE}, the role that transactions run as; have the "
                    f"owner of the tables run `agent-server db upgrade`, and `grant {APP_ROLE} to <that user>`"
                ) from error
            raise

    def pool_status(self) -> dict[str, int]:
        """Connections of the pool: how many there may be, are checked out, and are idle."""
        pool = cast(AsyncAdaptedQueuePool, self.pool.pool)
        return {"size": pool.size(), "checked_out": pool.checkedout(), "idle": pool.checkedin()}

    async def close(self) -> None:
        """Close the connections of the pool. Another use makes new ones."""
        await self.pool.dispose()


class _Session(Session):
    """A session whose transaction says whom it acts for as it begins."""


class _Connection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """Sends `preamble` with the BEGIN of each transaction: one round trip for both."""

    preamble = ""
    has_role = False
    """Whether the session has the role of the application, also outside of transactions."""

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:  # noqa: ASYNC109  # asyncpg's
        if query.startswith("BEGIN"):
            query += self.preamble
        status: str = await super().execute(query, *args, timeout=timeout)
        return status


_PREAMBLE = "preamble"


@event.listens_for(_Session, "after_begin")
def _say_for_whom(session: Session, _: Any, connection: Connection) -> None:
    driver: Any = connection.connection.driver_connection
    driver.preamble = session.info[_PREAMBLE]  # BEGIN is sent with the first statement, which comes after this


def after_commit(session: Executor, call: Callable[[], None]) -> None:
    """Have `call` made when the transaction of `session` has committed, and not if it does not."""
    if isinstance(session, QuickSession):
        session.after_commit(call)
        return
    cast(AsyncSession, session).info.setdefault(after_commit, []).append(call)


async def _commit(session: AsyncSession) -> None:
    try:
        await session.commit()
    except StaleDataError as stale:
        await session.close()
        raise Conflict(_OVERTAKEN) from stale
    except BaseException:
        await session.close()
        raise
    # Outside the `try`: the transaction has ended, and an error of a callback is none of the database.
    for call in session.info.get(after_commit, ()):
        call()


def _engine(url: str, *, pooled: bool, answer_timeout: float | None = None, **pool: Any) -> AsyncEngine:
    address = read_address(url)
    session = _POOLED if pooled else {"server_settings": {"application_name": APPLICATION, **address.settings}}
    arguments = {
        "timeout": 5,
        "command_timeout": answer_timeout,
        "connection_class": _Connection,
        **session,
        **address.arguments,
    }
    # Parameters hold what users wrote, and the text of an error goes into logs.
    engine = create_async_engine(address.url, connect_args=arguments, hide_parameters=True, **pool)
    event.listen(engine.sync_engine, "handle_error", translate)
    if not pooled:
        event.listen(engine.sync_engine, "connect", _set_session)
    return engine


def _set_session(connection: AdaptedConnection, _: Any) -> None:
    connection.run_async(lambda driver: driver.execute(_SET, timeout=5))


def _refuse_closed(connection: Any, _: Any, __: Any) -> None:
    """Have the pool replace a connection that its server has closed."""
    # Known without asking: SQLAlchemy's own check before each transaction would be three round trips.
    if connection.driver_connection.is_closed():
        raise DisconnectionError
    # That of the transaction before: a use of the connection without a session must not act for its owner.
    connection.driver_connection.preamble = ""


def _give_up_the_silent(context: ExceptionContext) -> None:
    """Give up all connections of the pool where an answer did not come. Nothing more is asked of any of them."""
    # A server that is there answers in time, if only that a statement took too long. One that does not is gone for
    # the other connections of the pool as well (a link that is up on our side only).
    if isinstance(context.original_exception, TimeoutError):
        context.invalidate_pool_on_disconnect = True  # SQLAlchemy itself gives up the one connection only


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
