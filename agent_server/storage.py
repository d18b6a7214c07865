"""The database of a process: which one it is, and what brings it to this version."""

from collections.abc import Sequence
from pathlib import Path

from agent_server.db import Database
from agent_server.db.embedded import EMBEDDED_USER, as_user, start_embedded
from agent_server.db.revisions import revisions
from agent_server.db.tables import find_missing_tables, make_tables
from agent_server.errors import InvalidInput
from agent_server.settings import Settings
from agent_server.wording import count


def connect(settings: Settings) -> Database:
    """The database of the settings or else the embedded server with its data under the workspace's `.data/`.

    Raises Unavailable when the embedded server does not start, InvalidInput where a deployed server has no database.
    """
    given = (settings.database_url, settings.database_direct_url, settings.database_owner_url)
    url, direct_url, owner_url = (None if one is None else one.get_secret_value() for one in given)
    if url is None and settings.deployed:
        raise InvalidInput(
            "DATABASE_URL: is not set; write the address of a PostgreSQL, since the embedded one is for development"
        )
    if url is None:
        owner_url = start_embedded(settings.workspace.resolve() / ".data")
        url = as_user(owner_url, EMBEDDED_USER)
    return Database(
        url, direct_url, owner_url, pool_size=settings.database_pool_size, pool_timeout=settings.database_pool_timeout
    )


async def migrate(settings: Settings, root: Path, database: Database) -> Sequence[str]:
    """Bring the database to this version and return the tables that were made without a migration. Of the workspace in
    `root` those tables count that its tools have declared, as they do when they are loaded.

    Raises InvalidInput where the settings say not to, and where a workspace's tables have no migration in production.
    """
    missing = (await revisions(database, root)).pending
    if missing and not settings.migrate:
        raise InvalidInput(
            f"{count(len(missing), 'migration', ('is', 'are'))} pending; run `agent-server db upgrade`, or set AGENT_SERVER_MIGRATE=true"
        )
    if missing:
        from agent_server.db.migrate import upgrade  # noqa: PLC0415  # heavy

        await upgrade(database, root)
    tables = await find_missing_tables(database)
    names = [table.name for table in tables]
    # While a workspace is being written its tables are made as declared. A deployed one must be able to go back.
    if names and settings.deployed:
        raise InvalidInput(f"No migration makes {', '.join(names)}; write one with `agent-server db revision MESSAGE`")
    if tables:
        await make_tables(database, tables)
    # In development one address is enough, whose user may be the superuser.
    await database.check_isolation(login_too=settings.deployed)
    return names
