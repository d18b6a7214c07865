"""A database to measure on: migrated, empty, on a server that lives as long as the measurement."""

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg

from agent_server.db import Database
from agent_server.db.embedded import start_embedded
from agent_server.db.migrate import upgrade
from agent_server.workspace import load_workspace

ROOT = Path(__file__).parent.parent


@contextmanager
def fresh_database(workspace: Path = ROOT) -> Iterator[str]:
    """The URL of a database migrated for a workspace."""
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    try:
        url = start_embedded(folder)
        asyncio.run(_migrate(url, workspace))
        yield url
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _migrate(url: str, workspace: Path) -> None:
    database = Database(url)
    load_workspace(workspace)  # the rights to its tables follow from its models
    await upgrade(database, workspace)
    await database.close()


async def count_connections(url: str) -> int:
    """How many clients are connected, this question's among them."""
    connection = await asyncpg.connect(url)
    count: int = await connection.fetchval("select count(*) from pg_stat_activity where application_name <> ''")
    await connection.close()
    return count
