"""The engine, its pool, and the one way to a transaction."""

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
from asyncpg import PostgresConnectionError, PostgresError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from agent_server.errors import InvalidInput, Unavailable

# Postgres names of states in which trying again later may help; everything else in a DBAPIError is a bug of ours.
_TRANSIENT = frozenset(
    {"57P01", "57P02", "57P03", "53300", "08000", "08003", "08006", "25006", "40001", "40P01", "55P03"}
)

APPLICATION = "agent-server"
_SESSION = {
    "statement_timeout": "15000",
    "lock_timeout": "5000",
    "idle_in_transaction_session_timeout": "10000",
    "jit": "off",
}
# Prepared statements belong to a server's session, which is another in each transaction.
_POOLED = {
    "statement_cache_size": 0,
    "prepared_statement_cache_size": 0,
    "prepared_statement_name_func": lambda: f"__asyncpg_{uuid4()}__",
}


class Database:
    """A pool of connections to one Postgres database.

    `transaction()` is the only way to a connection: it commits when the block ends, rolls back when it raises, and
    turns a lost or refused connection into `Unavailable`. Where there is a `direct_url`, `url` may lead through a pooler
    in transaction mode: then nothing is expected of a session, neither prepared statements nor settings.
    """

    def __init__(
        self, url: str, direct_url: str | None = None, *, pool_size: int = 8, pool_timeout: float = 5.0
    ) -> None:
        self.url, self.direct_url = url, direct_url or url
        self._pooled = direct_url is not None
        address, connect_args, server_settings = asyncpg_url(url)
        settings = {**_SESSION, **server_settings}
        self.engine = create_async_engine(
            address,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=pool_timeout,
            pool_pre_ping=True,
            pool_recycle=1800,
            connect_args={
                "timeout": 5,
                **(_POOLED if self._pooled else {"server_settings": {"application_name": APPLICATION, **settings}}),
                **connect_args,
            },
        )
        self._local = text("select " + ", ".join(f"set_config('{name}', :{name}, true)" for name in settings))
        self._settings = settings
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False, autoflush=False)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """One transaction. Raises Unavailable when the database cannot be reached or goes away in the middle."""
        try:
            async with self._sessions.begin() as session:
                if self._pooled:
                    await session.execute(self._local, self._settings)
                yield session
        except (PoolTimeout, OSError, PostgresError, DBAPIError) as error:
            if is_away(error):
                raise Unavailable("The database cannot be reached; try again in a moment") from error
            raise

    async def direct(self) -> asyncpg.Connection:
        """A connection of its own, past any pooler, for what needs a session: LISTEN and locks that it holds.

        Raises Unavailable.
        """
        address, connect_args, server_settings = asyncpg_url(self.direct_url)
        settings = {"application_name": APPLICATION, "tcp_keepalives_idle": "10", **server_settings}
        try:
            return await asyncpg.connect(
                address.replace("+asyncpg", "", 1), **{"timeout": 5, "server_settings": settings, **connect_args}
            )
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise Unavailable("The database cannot be reached; try again in a moment") from error

    async def check(self) -> None:
        """Raises Unavailable unless the database answers."""
        async with self.transaction() as session:
            await session.execute(text("select 1"))

    def pool_status(self) -> dict[str, int]:
        """Connections of the pool: how many there may be, are checked out, and are idle."""
        pool = cast(AsyncAdaptedQueuePool, self.engine.pool)
        return {"size": pool.size(), "checked_out": pool.checkedout(), "idle": pool.checkedin()}

    async def close(self) -> None:
        await self.engine.dispose()


def is_away(error: Exception) -> bool:
    """Whether `error` says that the database cannot be reached now, or gave the transaction up; else it is a bug of
    ours. Errors of a new connection come as asyncpg raises them, those of a statement as SQLAlchemy wraps them."""
    if not isinstance(error, DBAPIError):
        return isinstance(error, PoolTimeout | OSError | PostgresConnectionError) or _sqlstate(error) in _TRANSIENT
    if error.connection_invalidated or _sqlstate(error.orig) in _TRANSIENT:
        return True
    # asyncpg's word for a connection that is gone, and for an argument that Postgres could not take, which is a bug
    return isinstance(error, InterfaceError) and not isinstance(error.orig and error.orig.__cause__, ValueError)


def _sqlstate(error: BaseException | None) -> str | None:
    return getattr(error, "sqlstate", None)


_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_ADDRESS = frozenset({"host", "port", "user", "password", "target_session_attrs"})
_SERVER_SETTINGS = frozenset({"application_name", "options", "search_path"})


def asyncpg_url(url: str) -> tuple[str, Mapping[str, Any], Mapping[str, str]]:
    """`url` as SQLAlchemy's asyncpg dialect wants it, what asyncpg must be given as arguments instead, and what as
    settings of the session. Raises InvalidInput for a parameter that would be lost on the way.

    libpq's `sslmode` and `channel_binding` (in every address that Neon and Supabase hand out) are unknown to asyncpg.
    """
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    query.pop("channel_binding", None)
    arguments: dict[str, Any] = {}
    mode = query.pop("sslmode", None)
    if mode == "require":
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # what libpq's `require` means
        arguments["ssl"] = context
    elif mode in _SSL_MODES:
        arguments["ssl"] = mode
    elif mode is not None:
        raise InvalidInput(f"DATABASE_URL: sslmode is one of {', '.join(_SSL_MODES)}")
    if (timeout := query.pop("connect_timeout", None)) is not None:
        if not timeout.isdecimal():
            raise InvalidInput("DATABASE_URL: connect_timeout is a number of seconds")
        arguments["timeout"] = float(timeout) or None
    settings = {name: query.pop(name) for name in _SERVER_SETTINGS & query.keys()}
    if unknown := sorted(query.keys() - _ADDRESS):
        raise InvalidInput(f"DATABASE_URL: leave out {', '.join(unknown)}, which no setting here answers to")
    return urlunsplit(("postgresql+asyncpg", parts.netloc, parts.path, urlencode(query), "")), arguments, settings
