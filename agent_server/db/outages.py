"""Which errors say that the database is away or busy, and what is raised in their place."""

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
from asyncpg import PostgresConnectionError
from sqlalchemy import ExceptionContext
from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from agent_server.errors import Unavailable

# Postgres names of states in which trying again later may help; everything else in a DBAPIError is a bug of ours.
_FULL = frozenset({"53100", "53200"})
_TRANSIENT = _FULL | {"57P01", "57P02", "57P03", "53300", "08000", "08003", "08006", "25006", "40001", "40P01", "55P03"}
_DEADLOCK = "40P01"
_TOO_MANY_CLIENTS = "53300"
_OUTDATED = (asyncpg.InvalidCachedStatementError, asyncpg.OutdatedSchemaCacheError)
"""A newer version beside this one has changed a table; the next use of the connection knows."""
BROKEN = (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What asyncpg raises where a connection is of no use any more. The last one comes where the server has said that it
ends the connection, and has not closed it yet."""
_GONE = (*BROKEN, PostgresConnectionError)

AWAY = "The database cannot be reached; try again in a moment"
_BUSY = "The server is busy: all of its connections to the database are in use; try again in a moment"
_COME_AGAIN = 5
"""Seconds: those who are refused for a busy server must not be what keeps it busy."""
_NOT_OUR_SESSION = frozenset({"26000", "42P05"})
"""A prepared statement that is not there, and one that is there already: another client's."""


class DatabaseAway(Unavailable):
    """Our own database cannot be reached, gave a transaction up, or has no room."""


def busy_database() -> DatabaseAway:
    """What is raised where a connection was waited for in vain."""
    error = DatabaseAway(_BUSY)
    error.__cause__ = PoolTimeout()
    error.retry_after = _COME_AGAIN
    return error


@contextmanager
def translate_outage() -> Iterator[None]:
    """Raise DatabaseAway in place of what says that no connection is to be had."""
    try:
        yield
    except Exception as error:  # which of them say so `_as_away` alone knows; every other one goes on as it is
        if (away := _as_away(error)) is not None:
            raise away from error
        raise


def translate(context: ExceptionContext) -> DatabaseAway | None:
    """What is raised in place of the error of a statement, a commit or a rollback, where that says that the database is
    away."""
    error = context.sqlalchemy_exception or context.original_exception
    return _as_away(error) if isinstance(error, Exception) else None  # it may also be a cancellation


def _as_away(error: Exception) -> DatabaseAway | None:
    if isinstance(error, PoolTimeout) or _cause(error) == _TOO_MANY_CLIENTS:
        return busy_database()
    if _has_no_room(error):
        return DatabaseAway("The database has no room for this; try again later")
    return DatabaseAway(AWAY) if _is_away(error) else None


def _is_away(error: Exception) -> bool:
    """Whether `error` says that the database cannot be reached now, or gave the transaction up; else it is a bug of
    ours. Errors of a new connection come as asyncpg raises them, those of a statement as SQLAlchemy wraps them."""
    if not isinstance(error, DBAPIError):
        # asyncpg's error of an argument that Postgres could not take is an InterfaceError, too
        gone = isinstance(error, _GONE) and not isinstance(error, ValueError)
        return gone or isinstance(error, _OUTDATED) or sqlstate_of(error) in _TRANSIENT
    if error.connection_invalidated or sqlstate_of(error.orig) in _TRANSIENT:
        return True
    # asyncpg's word for a connection that is gone, and for an argument that Postgres could not take, which is a bug
    return isinstance(error, InterfaceError) and not isinstance(error.orig and error.orig.__cause__, ValueError)


def is_unusable(error: BaseException) -> bool:
    """Whether the driver no longer knows what it has been told, and the connection must serve nobody else."""
    return isinstance(error, asyncpg.InternalClientError)


def is_full(error: Unavailable) -> bool:
    """Whether the database is there and has no room, on its disk or in its memory, or the pool no connection."""
    return isinstance(error.__cause__, PoolTimeout) or _has_no_room(error.__cause__)


def is_deadlock(error: Unavailable) -> bool:
    """Whether the transaction and another one waited for each other, and this one was ended for it."""
    return _cause(error.__cause__) == _DEADLOCK


def _has_no_room(error: BaseException | None) -> bool:
    return _cause(error) in _FULL


def _cause(error: BaseException | None) -> str | None:
    return sqlstate_of(error.orig if isinstance(error, DBAPIError) else error)


def not_our_session(error: BaseException | None) -> bool:
    """Whether `error` can only be had where one statement runs in another session than the one before."""
    return sqlstate_of(error) in _NOT_OUR_SESSION


def sqlstate_of(error: BaseException | None) -> str | None:
    return getattr(error, "sqlstate", None)
