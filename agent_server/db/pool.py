"""The pool of connections, and connections without one."""

import asyncio
from collections import deque
from contextvars import ContextVar
from typing import Any

from sqlalchemy import NullPool
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry, PoolProxiedConnection
from sqlalchemy.util import await_only

from agent_server.db.outages import translate_outage

PATIENT_SECONDS = 60.0
"""How long who is patient waits for a connection."""
_LONGEST = 6
"""How many times its time a request waits at most, while others before it are given connections."""
_TO_REQUESTS = 3
"""Every so many-th connection for which both wait goes to a request, and the others to what was promised."""

_patient: ContextVar[bool] = ContextVar("patient", default=False)
_promised: ContextVar[bool] = ContextVar("promised", default=False)


def be_patient() -> None:
    """Have this task, and those that it starts, wait longer for a connection, in its place among the requests."""
    _patient.set(True)


def keep_promise() -> None:
    """Have this task, and those that it starts, be patient, and be given connections before requests.

    For work that somebody was promised. A turn that gave up would ask its model again.
    """
    _promised.set(True)


def patience(seconds: float) -> float:
    """How long this task waits where a request waits for so many seconds."""
    return max(seconds, PATIENT_SECONDS) if _patient.get() or _promised.get() else seconds


class _Line:
    """Who waits for a connection. Of requests, and of what was promised, each is served in the order of arrival."""

    def __init__(self, connections: int) -> None:
        self._free, self._served = connections, 0
        self._promised: deque[asyncio.Future[None]] = deque()
        self._requests: deque[asyncio.Future[None]] = deque()
        self._given = 0.0

    async def take(self, seconds: float) -> None:
        """Wait for a connection. Raises TimeoutError where nobody has been given one for so many seconds."""
        if self._free:
            self._free -= 1
            return
        loop = asyncio.get_running_loop()
        waiter, began = loop.create_future(), loop.time()
        longest = max(seconds, min(_LONGEST * seconds, PATIENT_SECONDS))
        (self._promised if _promised.get() else self._requests).append(waiter)
        try:
            # A crowd that comes at once is served one after the other. Only where nothing moves is waiting in vain.
            while not waiter.done():
                end = min(max(began, self._given) + seconds, began + longest)
                if (left := end - loop.time()) <= 0:
                    raise TimeoutError
                await asyncio.wait({waiter}, timeout=left)
        except BaseException:
            # It may have been given one in the same instant.
            if not waiter.cancel():
                self.give()
            raise

    def give(self) -> None:
        """Give a connection to who is next."""
        self._served += 1
        lines = (self._promised, self._requests)
        for line in lines if self._served % _TO_REQUESTS else reversed(lines):
            while line:
                # One that was cancelled is still in its line.
                if not (waiter := line.popleft()).done():
                    waiter.set_result(None)
                    self._given = waiter.get_loop().time()
                    return
        self._free += 1


class Pool(AsyncAdaptedQueuePool):
    """A pool that raises DatabaseAway where no connection is to be had."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # The queue that SQLAlchemy keeps connections in sends whoever finds it empty again to its end.
        self._line = _Line(self.size())

    def _do_get(self) -> ConnectionPoolEntry:
        await_only(self._stand_in_line())
        try:
            return super()._do_get()
        except BaseException:
            self._line.give()
            raise

    async def _stand_in_line(self) -> None:
        seconds = patience(self.timeout())
        try:
            await self._line.take(seconds)
        except TimeoutError:
            raise PoolTimeout(f"No connection was free within {seconds:g} seconds") from None

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        try:
            super()._do_return_conn(record)
        finally:
            self._line.give()

    def connect(self) -> PoolProxiedConnection:
        with translate_outage():
            return super().connect()


class NoPool(NullPool):
    """The same for connections that are made for one use."""

    def connect(self) -> PoolProxiedConnection:
        with translate_outage():
            return super().connect()
