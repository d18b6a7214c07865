"""Calls that are cancelled while they work outside our database."""

import asyncio
import math
import time
from collections.abc import Coroutine, Set
from contextlib import suppress
from typing import Any

import anyio
import structlog

log = structlog.get_logger()

GRACE_SECONDS = 5.0
"""How long a call with an effect outside our database may still take when it is cancelled."""


async def run_to_end(call: Coroutine[Any, Any, Any]) -> Any:
    """Await a call in a task of its own. It is not cut off at once when this is cancelled, however often."""
    task = asyncio.create_task(call)
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        # What happens outside our database happens all the same, and what is on record needs no guess.
        await wait_through({task}, GRACE_SECONDS)
        task.cancel()
        await wait_through({task})
        if not task.cancelled() and (error := task.exception()):
            log.info("tool.failed_while_stopped", error=type(error).__name__)
        raise
    return task.result()


async def wait_through(tasks: Set[asyncio.Task[Any]], seconds: float = math.inf) -> None:
    """Wait so long for tasks to end, whoever cancels the waiting."""
    ends = time.monotonic() + seconds
    # A scope of anyio cancels again at each await, which its shield keeps off. A run loop that cleans up, or a deadline,
    # cancels a second time, which nothing keeps off.
    with anyio.CancelScope(shield=True):
        while (pending := {task for task in tasks if not task.done()}) and (left := ends - time.monotonic()) > 0:
            with suppress(asyncio.CancelledError):
                await asyncio.wait(pending, timeout=None if seconds == math.inf else left)
