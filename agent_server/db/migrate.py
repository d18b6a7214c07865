"""Migrations of the database, by Alembic.

There are two branches: `engine` is ours, `workspace` has the tables of tools/. The engine's migrations ship with the
package; a workspace keeps its own in `<workspace>/migrations/workspace`.
"""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlmodel import SQLModel

from agent_server.db.database import Database
from agent_server.db.extension import ensure_extension
from agent_server.db.isolation import APP_ROLE, SYSTEM_ROLE, ensure_roles, protect
from agent_server.db.late_indexes import build_indexes, migration_lock
from agent_server.db.revisions import list_folders, migrations_folder
from agent_server.db.scratch import create_scratch, drop_scratch
from agent_server.db.tables import find_missing_tables
from agent_server.errors import InvalidInput


def _config(workspace: Path, connection: Connection | None = None) -> Config:
    folder, versions = migrations_folder(), list_folders(workspace)
    config = Config()
    # Alembic's configuration takes a `%` for the beginning of a reference.
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.set_main_option("version_locations", os.pathsep.join(str(path) for path in versions).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


async def upgrade(database: Database, workspace: Path) -> None:
    """Apply every pending migration of both branches, and build the indexes that come after them. A second replica waits
    for the first."""
    async with migration_lock(database):
        await _run_locked(database, workspace, _upgrade, "heads")
        await build_indexes(database)


def _upgrade(config: Config, revision: str) -> None:
    connection: Connection = config.attributes["connection"]
    # Migrations name the roles, and the policies follow from the models: tables of this upgrade need them, too.
    ensure_roles(connection)
    ensure_extension(connection, APP_ROLE, SYSTEM_ROLE)
    command.upgrade(config, revision)
    protect(connection)


async def downgrade(database: Database, workspace: Path, revision: str) -> None:
    """Go back to `revision` (`engine@base`, `workspace@-1`, ...). Raises InvalidInput for one that is not there."""
    await _run(database, workspace, command.downgrade, revision)


async def revise(database: Database, workspace: Path, message: str) -> Path:
    """Write a migration of the workspace's branch with what its models have and the migrations do not make.

    They are compared on a scratch database: this one may have the tables already, made as declared while the workspace
    was being written. Where it has all of them it is marked as being at the new revision.
    """
    folder = workspace / "migrations" / "workspace"
    first = not any(folder.glob("*.py"))
    folder.mkdir(parents=True, exist_ok=True)

    def write(config: Config, head: str) -> Path:
        options: dict[str, Any] = {"head": head, "version_path": str(folder)}
        if first:
            options |= {"branch_label": "workspace", "depends_on": "engine@head"}
        script: Any = command.revision(config, message, autogenerate=True, **options)
        return Path(script.path)

    async with _scratch(database) as scratch:
        await upgrade(scratch, workspace)
        path: Path = await _run(scratch, workspace, write, "base" if first else "workspace@head")
    if not await find_missing_tables(database) and not await differences(database):
        await _run(database, workspace, command.stamp, "workspace@head")
    return path


@asynccontextmanager
async def _scratch(database: Database) -> AsyncIterator[Database]:
    """An empty database on the same server, for as long as the block. Raises InvalidInput where none may be made."""
    try:
        url = await create_scratch(database)
    except DBAPIError as error:
        raise InvalidInput(
            "migrations: the database user may not make a second database to compare with; give it CREATEDB, or put the address of a user that has it into DATABASE_OWNER_URL"
        ) from error
    scratch = Database(url)
    try:
        yield scratch
    finally:
        await scratch.close()
        await drop_scratch(database, url)


async def _run(database: Database, workspace: Path, work: Any, argument: str) -> Any:
    async with migration_lock(database):
        return await _run_locked(database, workspace, work, argument)


async def _run_locked(database: Database, workspace: Path, work: Any, argument: str) -> Any:
    async with database.owner.begin() as connection:
        # A migration of a large table takes longer than a request may.
        await connection.execute(text("set local statement_timeout = 0"))
        try:
            return await connection.run_sync(lambda c: work(_config(workspace, c), argument))
        except (CommandError, RevisionError) as error:
            raise InvalidInput(f"migrations: {error}") from error


async def differences(database: Database) -> Sequence[str]:
    """What the models have otherwise than the database, in words; empty when they agree."""
    async with database.owner.connect() as connection:
        return await connection.run_sync(drift)


def current(connection: Connection) -> Sequence[str]:
    """The revisions that the database is at."""
    return sorted(MigrationContext.configure(connection).get_current_heads())


def read_migrations(workspace: Path) -> ScriptDirectory:
    """The migrations of both branches as their folders now have them."""
    script = ScriptDirectory.from_config(_config(workspace))
    # They are read when they are first asked for.
    script.get_heads()
    return script


def pending(connection: Connection, workspace: Path) -> Sequence[str]:
    """The revisions that the database lacks, oldest first."""
    return pending_of(connection, read_migrations(workspace))


def pending_of(connection: Connection, script: ScriptDirectory) -> Sequence[str]:
    """Those of `script` that the database lacks, oldest first."""
    heads = tuple(current(connection))
    try:
        applied = {r.revision for r in script.iterate_revisions(heads, "base")} if heads else set()
    except (CommandError, RevisionError) as error:
        raise InvalidInput(
            f"migrations: another version or another workspace made the tables of this database ({error}); serve it with that one, or name another database in DATABASE_URL"
        ) from error
    return [r.revision for r in reversed(list(script.walk_revisions())) if r.revision not in applied]


def drift(connection: Connection) -> Sequence[str]:
    """What the models have otherwise than the database, in words; empty when they agree."""
    context = MigrationContext.configure(connection, opts={"compare_type": True, "include_object": is_compared})
    return [str(difference) for difference in compare_metadata(context, SQLModel.metadata)]


def is_compared(item: Any, name: str | None, kind: str, reflected: bool, compare_to: Any) -> bool:
    """Whether autogenerate looks at a thing: not at tables that no model of this process declares, nor at indexes that are
    made for what a table holds."""
    undeclared = reflected and compare_to is None
    return not (undeclared and (kind == "table" or (kind == "index" and "_hnsw_" in (name or ""))))
