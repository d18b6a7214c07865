"""Work that a process does again and again whatever becomes of it."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog

from agent_server.db import keep_promise
from agent_server.errors import Unavailable

log = structlog.get_logger()


async def repeat(seconds: Callable[[], float], work: Callable[[], Awaitable[None]], soon: asyncio.Event) -> None:
    """Do `work` every so many seconds and when `soon` is set."""
    keep_promise()
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds()):
                await soon.wait()
        # Before the work, so that a wish which comes during it is not lost.
        soon.clear()
        try:
            await work()
        except Unavailable:
            log.warning("database.unavailable")
        except Exception:  # a replica that has stopped beating loses its turns, one that has stopped sweeping its queue
            log.exception("runner.failed")
