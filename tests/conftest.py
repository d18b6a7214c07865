"""Real Postgres for every test: one embedded server per test process, a database of its own per test."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from agent_server.caller import Caller
from agent_server.db import Database, new_id
from agent_server.db.embedded import start_embedded
from agent_server.db.migrate import upgrade
from agent_server.knowledge.embedders.wordllama import Embedder
from agent_server.knowledge.ingest import ingest
from agent_server.log import configure_logging
from agent_server.seed import load_seeds
from agent_server.workspace import load_workspace

pytest_plugins = ["tests.server", "tests.owners"]

ROOT = Path(__file__).parent.parent
SERVER = "AGENT_SERVER_TEST_DATABASE_URL"
TEMPLATE = "TESTS_TEMPLATE"
"""Variables: the server and the template of the tests that run these tests on a copy of the sources."""


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def logging() -> None:
    configure_logging("WARNING", "console")


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of an embedded server that lives as long as this test process."""
    if given := os.environ.get(SERVER):
        yield given
        return
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    url = start_embedded(folder)
    # nothing here outlives the machine
    settings = ("fsync", "synchronous_commit", "full_page_writes")
    asyncio.run(execute(url, *(f"alter system set {name} = off" for name in settings), "select pg_reload_conf()"))
    yield url
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


async def fetch(url: str, query: str) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


@asynccontextmanager
async def everything(database: Database) -> AsyncIterator[AsyncSession]:
    """A transaction of the user who owns the tables, to whom the rows of all callers are there."""
    async with AsyncSession(database.owner, expire_on_commit=False) as session, session.begin():
        yield session


@pytest.fixture(scope="session")
def template(postgres: str) -> str:
    """The name of a migrated, empty database that tests are copied from."""
    load_workspace(ROOT)  # the rights to its tables follow from its models
    if given := os.environ.get(TEMPLATE):
        return given
    name = f"template_{uuid4().hex}"

    async def make() -> None:
        await execute(postgres, f"create database {name}")
        database = Database(database_url(postgres, name))
        await upgrade(database, ROOT)
        await database.close()

    asyncio.run(make())
    return name


@pytest.fixture(scope="session")
def stocked_template(postgres: str, template: str) -> str:
    """The same, with the seeds and the content of the reference workspace."""
    name = f"template_{uuid4().hex}"

    async def make() -> None:
        await execute(postgres, f"create database {name} template {template}")
        database = Database(database_url(postgres, name))
        workspace = load_workspace(ROOT)
        await load_seeds(database, workspace.seeds)
        await ingest(database, Embedder(), workspace.content)
        await database.close()

    asyncio.run(make())
    return name


@contextmanager
def copy_of(server: str, template: str) -> Iterator[str]:
    """The URL of a database of one test's own, made from a template."""
    name = f"test_{uuid4().hex}"
    asyncio.run(execute(server, f"create database {name} template {template}"))
    yield database_url(server, name)
    asyncio.run(execute(server, f"drop database {name} with (force)"))


@pytest.fixture
def url(postgres: str, template: str) -> Iterator[str]:
    """The URL of a migrated, empty database."""
    with copy_of(postgres, template) as url:
        yield url


@pytest.fixture
def stocked_url(postgres: str, stocked_template: str) -> Iterator[str]:
    """The URL of a database with the reference workspace's seeds and content."""
    with copy_of(postgres, stocked_template) as url:
        yield url


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
