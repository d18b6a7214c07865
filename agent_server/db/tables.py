"""Tables that models declare and no migration has made."""

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, Table, inspect
from sqlmodel import SQLModel

from agent_server.db.database import Database
from agent_server.db.isolation import protect


async def find_missing_tables(database: Database) -> Sequence[Table]:
    """The declared tables that the database has not."""
    async with database.owner.connect() as connection:
        return await connection.run_sync(missing_tables)


async def make_tables(database: Database, tables: Sequence[Table]) -> None:
    """Create tables as their models declare them, for a workspace that is being written and has no migrations yet."""
    async with database.owner.begin() as connection:
        await connection.run_sync(create_tables, tables)


def missing_tables(connection: Connection) -> Sequence[Table]:
    """The declared tables that the database has not."""
    there = set(inspect(connection).get_table_names())
    return [table for table in SQLModel.metadata.sorted_tables if table.name not in there]


def create_tables(connection: Connection, tables: Iterable[Table]) -> None:
    """Create tables as their models declare them, guarded as the migrated ones are."""
    SQLModel.metadata.create_all(connection, tables=list(tables))
    protect(connection)
