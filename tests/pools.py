"""The event loop of all tests of a process, and pools whose connections outlive a test.

To connect takes the server and us ten times as long as to ask something, and what a connection, or a pool, has once
prepared of a statement it need not prepare for the next test.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

import asyncpg
import pytest

from agent_server.db import Database
from agent_server.db.outages import DatabaseAway
from agent_server.testing.copies import DatabaseCopies

T = TypeVar("T")


class _Loop(asyncio.SelectorEventLoop):
    """A loop that the runner of each test opens and closes, which ends its tasks, and that is there for the next."""

    def close(self) -> None:
        """Do nothing: the pools have their connections in it."""

    def end(self) -> None:
        super().close()

    async def shutdown_asyncgens(self) -> None:
        await super().shutdown_asyncgens()
        self._asyncgens_shutdown_called = False

    async def shutdown_default_executor(self, *arguments: Any) -> None:
        await super().shutdown_default_executor(*arguments)
        self._executor_shutdown_called, self._default_executor = False, None


class Pools:
    """Pools of connections to the copies of databases that tests borrow, by their addresses."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._databases: dict[str, Database] = {}

    @asynccontextmanager
    async def open(self, url: str, copies: DatabaseCopies) -> AsyncIterator[Database]:
        """The pool of the copy at `url`, which is this test's."""
        database = self._databases.pop(url, None) or Database(url)
        yield database
        try:
            processes = await _come_to_rest(database)
        except (DatabaseAway, asyncpg.PostgresError, asyncpg.InterfaceError, OSError):  # tests end connections, too
            processes = []
        if database.pool_status()["checked_out"] or not processes:
            await database.close()
            return
        copies.spare(url, processes)
        self._databases[url] = database

    def run(self, url: str, use: Callable[[Database], Awaitable[T]]) -> T:
        """The result of `use` of the database at `url`, when its test is over."""

        async def run() -> T:
            if kept := self._databases.get(url):
                try:
                    return await use(kept)
                except DatabaseAway:  # the test has ended its connections
                    await self._databases.pop(url).close()
            database = Database(url)
            try:
                return await use(database)
            finally:
                await database.close()

        return self._loop.run_until_complete(run())

    async def close(self) -> None:
        for database in self._databases.values():
            await database.close()


async def _come_to_rest(database: Database) -> list[int]:
    """Have the server count what the connections of a pool have written; its processes."""
    processes = []
    async with AsyncExitStack() as stack:
        for _ in range(database.pool_status()["idle"]):
            connection = await stack.enter_async_context(database.pool.connect())
            driver: Any = (await connection.get_raw_connection()).driver_connection
            await driver.execute("select pg_stat_force_next_flush()")
            processes.append(driver.get_server_pid())
    return processes


@pytest.fixture(scope="session")
def _loop() -> Iterator[_Loop]:
    loop = _Loop()
    yield loop
    loop.end()


@pytest.fixture(scope="session")
def anyio_backend(_loop: _Loop) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": lambda: _loop}


@pytest.fixture(scope="session")
def pools(_loop: _Loop) -> Iterator[Pools]:
    pools = Pools(_loop)
    yield pools
    _loop.run_until_complete(pools.close())
