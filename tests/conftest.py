"""Real Postgres for every test: one embedded server per test process, a database of its own per test."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from agent_server.db import Database, new_id
from agent_server.db.embedded import start_embedded
from agent_server.db.migrate import upgrade
from agent_server.identity import Caller
from agent_server.log import configure_logging

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def logging() -> None:
    configure_logging("WARNING", "console")


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of an embedded server that lives as long as this test process."""
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    yield start_embedded(folder)
    shutil.rmtree(folder, ignore_errors=True)


def database_url(server: str, name: str) -> str:
    return server.replace("/postgres?", f"/{name}?")


async def execute(server: str, *statements: str) -> None:
    connection = await asyncpg.connect(server)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def template(postgres: str) -> str:
    """The name of a migrated, empty database that tests are copied from."""

    async def migrate() -> None:
        await execute(postgres, "create database template_test")
        database = Database(database_url(postgres, "template_test"))
        await upgrade(database, ROOT)
        await database.close()

    asyncio.run(migrate())
    return "template_test"


@pytest.fixture
def url(postgres: str, template: str) -> Iterator[str]:
    """The URL of a migrated, empty database of this test's own."""
    name = f"test_{uuid4().hex}"
    asyncio.run(execute(postgres, f"create database {name} template {template}"))
    yield database_url(postgres, name)
    asyncio.run(execute(postgres, f"drop database {name} with (force)"))


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    database = Database(url)
    yield database
    await database.close()


@pytest.fixture
def me() -> Caller:
    return Caller(id=new_id(), kind="user", scopes=frozenset({"*"}))


@pytest.fixture
def other() -> Caller:
    return Caller(id=new_id(), kind="user", scopes=frozenset({"*"}))
