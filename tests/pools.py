"""The event loop of all tests of a process, and pools whose connections outlive a test.

To connect takes the server and us ten times as long as to ask something, and what a connection, or a pool, has once
prepared of a statement it need not prepare for the next test.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from agent_server.db import Database
from agent_server.testing.copies import DatabaseCopies


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

    def __init__(self) -> None:
        self._databases: dict[str, Database] = {}

    @asynccontextmanager
    async def open(self, url: str, copies: DatabaseCopies) -> AsyncIterator[Database]:
        """The pool of the copy at `url`, which is this test's."""
        database = self._databases.pop(url, None) or Database(url)
        yield database
        if database.pool_status()["checked_out"]:
            await database.close()
            return
        copies.spare(url, await _come_to_rest(database))
        self._databases[url] = database

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
    pools = Pools()
    yield pools
    _loop.run_until_complete(pools.close())
