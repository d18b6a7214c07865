"""The pool of connections, and connections without one."""

import asyncio
from contextvars import ContextVar
from typing import Any

from sqlalchemy import NullPool
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry, PoolProxiedConnection
from sqlalchemy.util import await_only

from agent_server.db.outages import translate_outage

_patience: ContextVar[float | None] = ContextVar("patience", default=None)


def wait_longer(seconds: float) -> None:
    """Have this task, and those that it starts, wait so long for a connection where the pool has none that is free.

    For work that was promised and would have to be done again: a request can be refused, and is told to come again.
    """
    _patience.set(seconds)


def patience(seconds: float) -> float:
    """How long this task waits where others wait for so many seconds."""
    return max(seconds, _patience.get() or 0.0)


class Pool(AsyncAdaptedQueuePool):
    """A pool that raises DatabaseAway where no connection is to be had. Who waits longest is given the next one."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # The queue that SQLAlchemy keeps connections in sends whoever finds it empty again to its end.
        self._line = asyncio.Semaphore(self.size())

    def _do_get(self) -> ConnectionPoolEntry:
        await_only(self._stand_in_line())
        try:
            return super()._do_get()
        except BaseException:
            self._line.release()
            raise

    async def _stand_in_line(self) -> None:
        seconds = patience(self.timeout())
        try:
            async with asyncio.timeout(seconds):
                await self._line.acquire()
        except TimeoutError:
            raise PoolTimeout(f"No connection was free within {seconds:g} seconds") from None

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        try:
            super()._do_return_conn(record)
        finally:
            self._line.release()

    def connect(self) -> PoolProxiedConnection:
        with translate_outage():
            return super().connect()


class NoPool(NullPool):
    """The same for connections that are made for one use."""

    def connect(self) -> PoolProxiedConnection:
        with translate_outage():
            return super().connect()
