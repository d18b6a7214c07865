"""The pool of connections, and connections without one."""

import asyncio
from typing import Any

from sqlalchemy import NullPool
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry, PoolProxiedConnection
from sqlalchemy.util import await_only

from agent_server.db.outages import translate_outage


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
        try:
            async with asyncio.timeout(self.timeout()):
                await self._line.acquire()
        except TimeoutError:
            raise PoolTimeout(f"No connection was free within {self.timeout():g} seconds") from None

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
