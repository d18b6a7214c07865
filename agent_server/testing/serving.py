"""An HTTP server in the event loop of the test."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import uvicorn


class _Server(uvicorn.Server):
    """uvicorn's server, which waits for events where that one looks at flags ten times a second."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.begun, self.ended = asyncio.Event(), asyncio.Event()

    def install_signal_handlers(self) -> None:
        """The test runner keeps its own."""

    async def main_loop(self) -> None:
        await self.on_tick(0)  # sets the headers of every answer
        self.begun.set()
        await self.ended.wait()


@asynccontextmanager
async def serving(app: Any, config: uvicorn.Config | None = None) -> AsyncIterator[str]:
    """`app`, or the app of `config`, on a free port of 127.0.0.1; yields its base URL."""
    # named as TCP, so that asyncio sends at once: else the body of an answer waits 40 ms for its head to be confirmed
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    # Of itself Linux would take megabytes of what nobody reads, and the app would never notice.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
    listener.bind(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    plain = uvicorn.Config(app, log_config=None, access_log=False, http="h11", timeout_graceful_shutdown=1)
    server = _Server(config or plain)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    begun = asyncio.create_task(server.begun.wait())
    await asyncio.wait({task, begun}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        begun.cancel()
        listener.close()
        task.result()
        raise RuntimeError("The app did not start; its log says why")
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.ended.set()
        with suppress(asyncio.CancelledError):
            await task
        listener.close()
