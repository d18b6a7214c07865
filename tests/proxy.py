"""A TCP proxy before Postgres that can be slow, cut off, or half-open: connected, and nothing comes through."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from sqlalchemy import text

from agent_server.db import Database
from tests.conftest import everything

_END = """
    select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid()"""


@dataclass(eq=False)
class _Link:
    """One connection through the proxy."""

    writers: tuple[asyncio.StreamWriter, asyncio.StreamWriter]
    lost: bool = False


@dataclass
class Proxy:
    """The link to one database; `url` leads through it."""

    url: str = ""
    latency: float = 0.0
    """Seconds that everything takes on its way, in each direction."""
    refused: int = 0
    """How many connections came while it was cut."""
    ended: int = 0
    """How many of the database's ends were closed."""
    _cut: bool = False
    _flowing: asyncio.Event = field(default_factory=asyncio.Event)
    _telling: asyncio.Event = field(default_factory=asyncio.Event)
    _links: set[_Link] = field(default_factory=set)

    def cut(self) -> None:
        """Break off every connection, and refuse new ones until `heal`."""
        self._cut = True
        for link in self._links:
            for writer in link.writers:
                writer.transport.abort()

    def hang(self) -> None:
        """Keep every connection, accept new ones, and let nothing through until `heal`, not even that one ended."""
        self._flowing.clear()

    def hide_ends(self) -> None:
        """Let everything through but that a connection ended, until `heal`: as it is for a moment with each one."""
        self._telling.clear()

    def lose(self) -> None:
        """What is open now stays so and leads nowhere, also after `heal`: as behind a firewall that forgot it."""
        for link in self._links:
            link.lost = True

    def heal(self) -> None:
        """What was held goes on its way."""
        self._cut = False
        self._flowing.set()
        self._telling.set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, socket: str) -> None:
        if self._cut:
            self.refused += 1
            writer.transport.abort()
            return
        there, back = await asyncio.open_unix_connection(socket)
        link = _Link((writer, back))
        self._links.add(link)
        try:
            await asyncio.gather(self._pump(reader, back, link), self._pump(there, writer, link))
        finally:
            self._links.discard(link)

    async def _pump(self, source: asyncio.StreamReader, to: asyncio.StreamWriter, link: _Link) -> None:
        with suppress(OSError):
            while sent := await source.read(65536):
                await asyncio.sleep(self.latency)
                await self._flowing.wait()
                if not link.lost:
                    to.write(sent)
                    await to.drain()
        self.ended += to is link.writers[0]
        await self._flowing.wait()
        await self._telling.wait()
        if not link.lost:
            to.close()


async def end_connections(proxy: Proxy, database: Database) -> None:
    """Have the server end all connections to the database, and wait until those through `proxy` have been told."""
    awaited = proxy.ended + len(proxy._links)
    async with everything(database) as session:
        await session.execute(text(_END))
    async with asyncio.timeout(30):
        while proxy.ended < awaited:  # noqa: ASYNC110  # each one that ends counts
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)  # what was written to a socket here is read from it


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[Proxy]:
    """A proxy before the database at `url`, whose server listens on a Unix socket."""
    parts = urlsplit(url)
    socket = f"{parse_qs(parts.query)['host'][0]}/.s.PGSQL.5432"
    proxy = Proxy()
    proxy.heal()
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(proxy._connected(reader, writer, socket))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    proxy.url = f"postgresql://postgres@127.0.0.1:{port}{parts.path}?sslmode=disable"
    try:
        yield proxy
    finally:
        server.close()
        proxy.cut()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
