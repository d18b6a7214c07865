"""Whether a process leaves its database alone, so that one which is paid by use may fall asleep.

A process that has had nothing to do for a while closes its connections and sends nothing, neither heartbeats nor looks
for work. It is no replica any more then, and holds no turn. Whoever asks something of it wakes it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

import structlog

from agent_server.errors import Unavailable

log = structlog.get_logger()

LOOK_SECONDS = 1.0
"""How often a process that has something to do is looked at again."""
RETRY_SECONDS = 0.5
WAIT_SECONDS = 10.0
"""How long who wakes the process waits for it: a database that slept takes some seconds to wake."""


class Sleep:
    """Has a process leave the database alone after so many `seconds` without work (None: never)."""

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = seconds
        self._held, self._worked = 0, time.monotonic()
        self._awake, self._asleep, self._wanted = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._awake.set()

    @property
    def is_asleep(self) -> bool:
        return self._asleep.is_set()

    @contextmanager
    def work(self) -> Iterator[None]:
        """Be awake for the block, and for some time after it."""
        self._wanted.set()
        try:
            with self.hold():
                yield
        finally:
            self._worked = time.monotonic()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Do not fall asleep within the block, which is nobody's request."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1

    async def wake(self) -> None:
        """Wake this process within `work`. Raises Unavailable."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self.wait()
        except TimeoutError:
            raise Unavailable("The database does not wake up; try again in a moment") from None

    async def wait(self) -> None:
        """Wait until this process is awake."""
        while self.is_asleep:
            await self._awake.wait()

    async def pause(self, seconds: float) -> None:
        """Wait so long; where this process falls asleep meanwhile, until it is awake again."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._asleep.wait()
        await self.wait()

    async def run(
        self,
        is_busy: Callable[[], bool],
        lie_down: Callable[[], Awaitable[None]],
        get_up: Callable[[], Awaitable[None]],
    ) -> None:
        """Fall asleep and wake until it is cancelled."""
        if self._seconds is None:
            return
        while True:
            await self._wait_until_due(self._seconds, is_busy)
            # Before the first `await`: what begins from here on waits until this process is awake again.
            self._awake.clear()
            self._wanted.clear()
            self._asleep.set()
            log.info("database.left_alone")
            await lie_down()
            await self._wanted.wait()
            await self._rise(get_up)
            self._worked = time.monotonic()
            self._asleep.clear()
            self._awake.set()

    async def _wait_until_due(self, seconds: float, is_busy: Callable[[], bool]) -> None:
        while True:
            if is_busy():
                self._worked = time.monotonic()
            left = self._worked + seconds - time.monotonic()
            if left <= 0 and not self._held:
                return
            await asyncio.sleep(left if left > 0 else min(seconds, LOOK_SECONDS))

    async def _rise(self, get_up: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await get_up()
            except Unavailable:
                log.warning("database.unavailable")
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return
