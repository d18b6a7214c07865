"""A Postgres for tests, and databases on it."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent_server.db import Database
from agent_server.db.embedded import start_embedded
from agent_server.db.scratch import create_scratch, drop_scratch, trade_safety_for_speed

ADDRESS = "AGENT_SERVER_TEST_DATABASE_URL"
"""The environment variable that names a server for tests; its user may create databases and roles."""


@contextmanager
def run_postgres() -> Iterator[str]:
    """The address of the server for tests: that of the environment, or an embedded one in a temporary folder."""
    if given := os.environ.get(ADDRESS):
        yield given
        return
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # not pytest's folder: the path of a socket has 107 bytes at most
    try:
        server = start_embedded(folder)
        # Without waiting for the disk: nothing of a test has to survive a crash.
        asyncio.run(trade_safety_for_speed(Database(server)))
        yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def copy_database(server: str, template: str | None = None) -> Iterator[str]:
    """The address of a database for as long as the block: a copy of `template`, or an empty one."""
    database = Database(server)
    url = asyncio.run(create_scratch(database, template))
    try:
        yield url
    finally:
        asyncio.run(drop_scratch(database, url))
