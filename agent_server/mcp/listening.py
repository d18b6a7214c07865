"""What a client hears of its call while it runs: progress, and what the tool says."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, Protocol, get_args

import mcp_types as types
from mcp.server.connection import allowed_log_levels
from mcp.server.context import ServerRequestContext
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from agent_server.log import without_secrets
from agent_server.tool_context import Level, Listener

BEAT_SECONDS = 5.0
"""How long a client that wants to hear of progress hears nothing. Many give a call up after 60 seconds without any."""
_STEP = 1e-6
_LEVELS: Sequence[types.LoggingLevel] = get_args(types.LoggingLevel)
"""From the least to the gravest."""
_USUAL: types.LoggingLevel = "info"


class LogLevels:
    """What the clients of a server want to hear of its tools' logs.

    Of the protocol of 2026 a client says so with each request. One of before sets it once: that holds for a lasting
    connection, as over stdio, whose only client it is. Over HTTP no process keeps anything of a session, and such a
    client hears all but `debug`.
    """

    def __init__(self) -> None:
        self._least = _USUAL

    async def set(
        self, context: ServerRequestContext[Any, Any], params: types.SetLevelRequestParams
    ) -> types.EmptyResult:
        if context.session.can_send_request:
            self._least = params.level
        return types.EmptyResult()

    def wants(self, context: ServerRequestContext[Any, Any], level: Level) -> bool:
        if context.protocol_version in MODERN_PROTOCOL_VERSIONS:
            return level in allowed_log_levels(context.protocol_version, context.meta)
        return _LEVELS.index(level) >= _LEVELS.index(self._least)


def hears_without_asking(level: Level) -> bool:
    """Whether a client of before 2026, which has not said what it wants to hear, is sent this over HTTP."""
    return _LEVELS.index(level) >= _LEVELS.index(_USUAL)


class Hearing(Listener, Protocol):
    """A `Listener` that is also told when the call begins and ends."""

    def beating(self) -> AbstractAsyncContextManager[None]: ...


class Heard:
    """The `Listener` of a call over MCP. It says what the tool does, and between that that the call goes on."""

    def __init__(self, context: ServerRequestContext[Any, Any], levels: LogLevels) -> None:
        self._context, self._levels = context, levels
        self._done, self._total, self._message = 0.0, None, None  # type: tuple[float, float | None, str | None]
        self._last = time.monotonic()

    async def report_progress(self, done: float, total: float | None, message: str | None) -> None:
        # The protocol wants a number that grows, and a heartbeat has added a little to the last one.
        self._done = done if done > self._done else self._done + _STEP
        self._total, self._message = total, None if message is None else without_secrets(message)
        await self._tell()

    async def log(self, level: Level, message: str) -> None:
        if not self._levels.wants(self._context, level):
            return
        params = types.LoggingMessageNotificationParams(level=level, logger="tool", data=without_secrets(message))
        said = types.LoggingMessageNotification(params=params)
        await self._context.session.send_notification(said, related_request_id=self._context.request_id)

    @asynccontextmanager
    async def beating(self) -> AsyncIterator[None]:
        """Say again and again that the call goes on, where its client wants to hear of progress."""
        meta = self._context.meta or {}
        if "progress_token" not in meta and "progressToken" not in meta:
            yield
            return
        task = asyncio.create_task(self._beat())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(max(0.0, self._last + BEAT_SECONDS - time.monotonic()))
            if time.monotonic() >= self._last + BEAT_SECONDS:
                self._done += _STEP
                await self._tell()

    async def _tell(self) -> None:
        self._last = time.monotonic()
        await self._context.session.report_progress(self._done, self._total, self._message)
