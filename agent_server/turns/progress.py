"""What those who follow a turn hear of a tool's call while it runs."""

import asyncio
import time

from agent_server.log import without_secrets
from agent_server.tool_context import Level
from agent_server.turns.events import ToolProgress
from agent_server.turns.writer import TurnWriter

LEAST_SECONDS = 0.5
"""How long after one event of a call the next one comes at the soonest."""
SHARE = 1 / 20
"""Of the time that a call has taken: one that takes long says less often how far it is, so that its log stays short."""
LENGTH = 500
"""Characters of a message that are kept."""


class CallProgress:
    """The `Listener` of a call in a turn. Of what the tool says in quick succession the last is kept.

    Nothing here waits for the database: a tool may hold one of its few connections meanwhile.
    """

    def __init__(self, writer: TurnWriter, call_id: str) -> None:
        self._writer, self._call_id = writer, call_id
        self._began = time.monotonic()
        self._next = self._began
        self._at: tuple[float | None, float | None] = (None, None)
        self._message: str | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    async def report_progress(self, done: float, total: float | None, message: str | None) -> None:
        self._at = (done, total)
        self._tell(message)

    async def log(self, level: Level, message: str) -> None:
        if level != "debug":
            self._tell(message)

    def close(self) -> None:
        """Say nothing more: the call is over."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _tell(self, message: str | None) -> None:
        self._message = message
        wait = self._next - time.monotonic()
        if wait <= 0:
            self._show()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(wait, self._show)

    def _show(self) -> None:
        self._timer = None
        if self._closed:
            return
        now = time.monotonic()
        self._next = now + max(LEAST_SECONDS, (now - self._began) * SHARE)
        # One that is cut in two would not be known for a secret, so that far more is looked at than is kept.
        message = self._message and without_secrets(self._message[: 4 * LENGTH])[:LENGTH]
        self._writer.tell(ToolProgress(self._call_id, *self._at, message))
