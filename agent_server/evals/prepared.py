"""The databases that cases are run on: made for a run, with the tables, the seeds and the content of a workspace.

On the embedded server one of them is kept as a template, because to migrate and to embed everything takes seconds. What
it holds is noted with it: where that is no longer so, it is brought up to date before it is copied.
"""

import hashlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from sqlalchemy import text
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlmodel import SQLModel

from agent_server.db import Database
from agent_server.db.revisions import list_folders
from agent_server.db.scratch import create_scratch, drop_scratch
from agent_server.knowledge.chunk import VERSION
from agent_server.knowledge.embedders import open_embedder
from agent_server.knowledge.ingest import PIVOT, ingest
from agent_server.seed import load_seeds
from agent_server.settings import Settings
from agent_server.storage import migrate
from agent_server.version import VERSION as ENGINE
from agent_server.workspace import Workspace

_LOCK = 7_300_431


def adapt_settings(settings: Settings, **more: Any) -> Settings:
    """The settings of a server that runs cases: words come at once, and tables are made."""
    return settings.model_copy(
        update={"environment": "test", "migrate": True, "offline_words_per_second": 0.0, "summaries": False, **more}
    )


@asynccontextmanager
async def scratch_database(settings: Settings, workspace: Workspace, beside: Database) -> AsyncIterator[Database]:
    """A database with the tables, the seeds and the content of `workspace`, on the server of `beside`."""
    # On a server of one's own nothing is left behind that its owner did not ask for.
    url = await (create_scratch(beside) if settings.database_url else _copy_template(settings, workspace, beside))
    database = Database(url)
    try:
        if settings.database_url:
            await _fill(settings, workspace, database)
        yield database
    finally:
        await database.close()
        await drop_scratch(beside, url)


async def _copy_template(settings: Settings, workspace: Workspace, beside: Database) -> str:
    """A new database that is a copy of the workspace's template. Returns its address."""
    name = template_name(workspace)
    parts = urlsplit(beside.owner_url or beside.direct_url)
    template = urlunsplit(parts._replace(path=f"/{name}"))
    tables = _digest(_list_tables(workspace))
    wanted = f"{tables} {_digest(_list_content(settings, workspace))}"
    async with beside.owner.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        # Nobody may be connected to what is copied, so another run waits until it is prepared and copied.
        await connection.execute(text("select pg_advisory_lock(:key)"), {"key": _LOCK})
        try:
            found = await _read_note(connection, name)
            if found != wanted:
                if (found or "").partition(" ")[0] != tables:
                    await connection.execute(text(f'drop database if exists "{name}" with (force)'))
                    await connection.execute(text(f'create database "{name}"'))
                # A run that is broken off leaves tables that are migrated on, and content that is read again.
                await _note(connection, name, f"{tables} -")
                await _prepare(settings, workspace, template)
                await _note(connection, name, wanted)
            return await create_scratch(beside, template)
        finally:
            await connection.execute(text("select pg_advisory_unlock(:key)"), {"key": _LOCK})


def template_name(workspace: Workspace) -> str:
    """The name of the database that is kept for a workspace."""
    return f"evals_{_digest([str(workspace.root.resolve())])}"


async def _prepare(settings: Settings, workspace: Workspace, template: str) -> None:
    database = Database(template)
    try:
        await _fill(settings, workspace, database)
    finally:
        await database.close()


async def _fill(settings: Settings, workspace: Workspace, database: Database) -> None:
    """Make the tables, and bring the seeds and the content to what the workspace has."""
    await migrate(adapt_settings(settings), workspace.root, database)
    await load_seeds(database, workspace.seeds, workspace.root)
    await ingest(database, open_embedder(settings), workspace.content, without=workspace.left_out.collections)


async def _read_note(connection: AsyncConnection, name: str) -> str | None:
    statement = text("select shobj_description(oid, 'pg_database') from pg_database where datname = :name")
    note: str | None = (await connection.execute(statement, {"name": name})).scalar()
    return note


async def _note(connection: AsyncConnection, name: str, note: str) -> None:
    await connection.execute(text(f"comment on database \"{name}\" is '{note}'"))


def _list_tables(workspace: Workspace) -> Iterator[str]:
    """All that the tables are made from."""
    yield ENGINE
    for file in (file for folder in list_folders(workspace.root) for file in sorted(folder.glob("*.py"))):
        yield file.name
        yield _digest([file.read_bytes()])
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    for table in SQLModel.metadata.sorted_tables:
        yield str(CreateTable(table).compile(dialect=dialect))
        yield from sorted(str(CreateIndex(index).compile(dialect=dialect)) for index in table.indexes)


def _list_content(settings: Settings, workspace: Workspace) -> Iterator[str]:
    """All that the rows are made from."""
    yield f"{VERSION} {PIVOT} {settings.embedder} {open_embedder(settings).name}"
    files = (*(seed.path for seed in workspace.seeds), *_list_files(workspace))
    for file in files:
        yield str(file)
        yield _digest([file.read_bytes()])


def _list_files(workspace: Workspace) -> Sequence[Path]:
    folder = workspace.content
    files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    return [path for path in files if not workspace.left_out.has_document(path.relative_to(folder).as_posix())]


def _digest(parts: Iterator[str] | Sequence[str | bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        given = part.encode() if isinstance(part, str) else part
        digest.update(f"{len(given)} ".encode() + given)
    return digest.hexdigest()[:16]
