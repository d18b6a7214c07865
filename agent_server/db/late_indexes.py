"""Indexes that are built beside what goes on, after the migrations.

A migration holds its locks until all of them are done, and an index of a large table takes minutes: nobody could write
to the table meanwhile. An index declared with `info=LATE` is built once the migrations are committed; until then its
table is read without it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import structlog
from sqlalchemy import Index, text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.schema import CreateIndex
from sqlmodel import SQLModel

if TYPE_CHECKING:
    from agent_server.db.database import Database

log = structlog.get_logger()

LATE: dict[Any, Any] = {"late": True}
"""The `info` of an index that no migration makes. With `instead_of` it names the one that goes when it is there."""
_LOCK = 7_300_421
"""The advisory lock under which migrations run and these indexes are built: replicas that start together take turns."""
_WAIT_SECONDS = 0.2

_TRY_LOCK = text(f"select pg_try_advisory_lock({_LOCK})")
_VALID = text("""
    select i.indisvalid from pg_index i join pg_class c on c.oid = i.indexrelid
    where c.relname = :name and c.relnamespace = quote_ident(current_schema())::regnamespace""")
_TABLE = text("select to_regclass(quote_ident(:name)) is not null")


def late_indexes() -> list[Index]:
    """The declared ones, in the order of their tables."""
    found = (index for table in SQLModel.metadata.sorted_tables for index in table.indexes)
    return sorted((index for index in found if index.info.get("late")), key=lambda index: str(index.name))


@asynccontextmanager
async def migration_lock(database: "Database") -> AsyncIterator[None]:
    """Hold the lock of migrations for as long as the block. Whoever else wants it waits."""
    async with database.owner.connect() as plain:
        connection = await plain.execution_options(isolation_level="AUTOCOMMIT")
        # Asked for again and again, and in no transaction: `concurrently` waits for whoever has a snapshot, as who
        # waits for this lock in a statement has.
        while not (await connection.execute(_TRY_LOCK)).scalar_one():  # noqa: ASYNC110  # of other processes
            await asyncio.sleep(_WAIT_SECONDS)
        yield


async def build_indexes(database: "Database") -> None:
    """Build those that the database lacks, under `migration_lock`."""
    async with database.owner.connect() as plain:
        connection = await plain.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("set statement_timeout = 0"))
        await connection.execute(text("set lock_timeout = 0"))
        for index in late_indexes():
            assert index.table is not None
            if (await connection.execute(_TABLE, {"name": index.table.name})).scalar_one():
                await _build(connection, index)


async def _build(connection: AsyncConnection, index: Index) -> None:
    valid = (await connection.execute(_VALID, {"name": index.name})).scalar()
    if valid is not True:
        log.info("index.building", index=index.name)
        # What a build that was cut off leaves behind is kept up by every write and read by nobody.
        if valid is False:
            await _drop(connection, str(index.name))
        statement = str(CreateIndex(index).compile(dialect=connection.dialect))
        await connection.exec_driver_sql(statement.replace("INDEX", "INDEX CONCURRENTLY", 1))
    if (old := index.info.get("instead_of")) is not None:
        await _drop(connection, old)


async def _drop(connection: AsyncConnection, index: str) -> None:
    await connection.exec_driver_sql(f'drop index concurrently if exists "{index}"')
