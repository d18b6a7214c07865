"""What those who wait for a task hear of its call while it runs, and what its row keeps of that."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from uuid import UUID

from agent_server.errors import Unavailable
from agent_server.log import without_secrets
from agent_server.tasks.store import Lease
from agent_server.tool_context import Level, Listener

LEAST_SECONDS = 1.0
"""How long after one write the next one comes at the soonest. Of what is said meanwhile the last is kept."""
LENGTH = 500
"""Characters of a message that are kept."""


class TaskProgress:
    """The `Listener` of a task: those who follow it here hear all, and its row says the last.

    The tool does not wait for the row: it may hold one of the few connections of the database meanwhile.
    """

    def __init__(self, lease: Lease, followers: Mapping[UUID, list[Listener]], tell: Callable[[], None]) -> None:
        self._lease, self._followers, self._tell = lease, followers, tell
        self._at: tuple[float | None, float | None] = (None, None)
        self._message: str | None = None
        self._next = 0.0
        self._writing: asyncio.Task[None] | None = None
        self._is_new = False

    async def report_progress(self, done: float, total: float | None, message: str | None) -> None:
        self._keep((done, total), message)
        for follower in list(self._followers.get(self._lease.id, ())):
            await follower.report_progress(done, total, message)

    async def log(self, level: Level, message: str) -> None:
        if level != "debug":
            self._keep(self._at, message)
        for follower in list(self._followers.get(self._lease.id, ())):
            await follower.log(level, message)

    async def close(self) -> None:
        """Write nothing more: the call is over."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)

    def _keep(self, at: tuple[float | None, float | None], message: str | None) -> None:
        self._at, self._message, self._is_new = at, self._message if message is None else message, True
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())

    async def _write(self) -> None:
        while self._is_new:
            await asyncio.sleep(self._next - time.monotonic())
            self._is_new = False
            self._next = time.monotonic() + LEAST_SECONDS
            # One that is cut in two would not be known for a secret, so that far more is looked at than is kept.
            message = self._message and without_secrets(self._message[: 4 * LENGTH])[:LENGTH]
            with contextlib.suppress(Unavailable):  # the next one may be written
                if await self._lease.say(message, *self._at):
                    self._tell()
