"""The HTTP server of a process: how it begins, and how it ends."""

import asyncio
import multiprocessing
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI

from agent_server.asgi import freeze
from agent_server.commands.banner import show_banner, show_model
from agent_server.commands.processes import watch_makers
from agent_server.commands.rereading import Rereading
from agent_server.http.listener import create_config
from agent_server.server import Server

log = structlog.get_logger()

Announce = Callable[[Server, str | None, int], None]
"""Says that a server listens: with the local user's key, on this port."""


class Draining(uvicorn.Server):
    """Says where it is once it listens, and stops in good order.

    SIGTERM: `/readyz` says no, requests are still answered, the turns and the MCP calls that run here go on for
    `drain_seconds`; what is left of them then, and with SIGINT or a second signal at once, is handed over to other
    processes (turns) or answered with an error (calls). The streams end with that, so that nothing holds the process up.
    """

    def __init__(self, app: FastAPI, server: Server, key: str | None, announce: Announce | None) -> None:
        super().__init__(create_config(app, server.settings))
        self._app, self._parts, self._key, self._announce = app, server, key, announce
        self._preparing: asyncio.Task[None] | None = None
        self._telling: asyncio.Task[None] | None = None
        self._stopping: list[asyncio.Task[None]] = []
        self._over = asyncio.Event()
        self.rereading: Rereading | None = None
        self.interrupted = False

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]  # uvicorn's sockets
        await super().startup(sockets)  # type: ignore[arg-type]  # the same
        # Without those that started it the port would stay taken.
        watch_makers(lambda: self._stop(signal.SIGTERM))
        if self._announce is not None and self.started and self.servers:
            self._announce(self._parts, self._key, self.servers[0].sockets[0].getsockname()[1])
            if self._announce is show_banner and self._parts.served.name is None:
                self._telling = asyncio.create_task(show_model(self._parts))
        if self.rereading is not None:
            self.rereading.start()
        # Only now: to import what asks a model takes longer than all before. A turn that comes earlier waits for it.
        self._preparing = asyncio.create_task(self._prepare())

    async def _prepare(self) -> None:
        try:
            await self._parts.prepare()
            log.debug("server.prepared")
        except Exception:  # whoever asks for it first is told the same
            log.exception("server.not_prepared")
        freeze()

    async def main_loop(self) -> None:
        """Wait for the end. uvicorn's own looks for it ten times a second."""
        while not self.should_exit:
            await self.on_tick(0)  # it sets the date of the answers
            with suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), 1)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._preparing is not None:
            self._preparing.cancel()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.interrupted |= sig == signal.SIGINT
        # A signal may come between any two instructions; the loop has to be woken to do the rest.
        asyncio.get_running_loop().call_soon_threadsafe(self._stop, sig)

    def _stop(self, sig: int) -> None:
        # A worker is told to stop by its parent and perhaps by the same signal to the group: a second SIGTERM is not
        # impatience there.
        patient = sig == signal.SIGTERM and (not self._stopping or multiprocessing.parent_process() is not None)
        seconds = self._parts.settings.drain_seconds if patient else 0.0
        self._stopping.append(asyncio.create_task(self._drain(seconds)))

    async def _drain(self, seconds: float) -> None:
        log.info("server.stopping", seconds=seconds)
        if self._telling is not None:
            self._telling.cancel()
        try:
            await asyncio.gather(self._parts.runner.drain(seconds), self._app.state.mcp.drain(seconds))
        finally:
            # Also when the drain fails: a server that was told to stop has to stop.
            self.should_exit = True
            self._over.set()
