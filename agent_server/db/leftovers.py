"""Tables of tools that are gone.

A table is left over when no model of this process declares it and yet it is one of ours: it has an `owner_id`, or a
policy for the application's role. Whoever else has tables in this schema is left in peace.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, TableClause, func, select, text
from sqlalchemy.exc import DBAPIError
from sqlmodel import SQLModel

from agent_server.db.database import Database
from agent_server.db.isolation import APP_ROLE, guard_undeclared
from agent_server.errors import InvalidInput

_OURS = text("""
    select c.relname, c.relrowsecurity and c.relforcerowsecurity as guarded
    from pg_class c
    where c.relkind in ('r', 'p') and not c.relispartition
      and c.relnamespace = (select oid from pg_namespace where nspname = current_schema())
      and not exists (select from pg_depend d where d.objid = c.oid and d.deptype = 'e')
      and c.relname <> all(:declared)
      and (exists (select from pg_attribute a
                   where a.attrelid = c.oid and a.attname = 'owner_id' and not a.attisdropped)
           or exists (select from pg_policy p join pg_roles r on r.oid = any(p.polroles)
                      where p.polrelid = c.oid and r.rolname = :role))
    order by 1""")


@dataclass(frozen=True)
class Leftover:
    """A table that nothing declares. A `guarded` one keeps callers apart."""

    table: str
    rows: int
    guarded: bool


async def list_leftovers(database: Database) -> Sequence[str]:
    """The names of the tables that are left over."""
    async with database.owner.connect() as connection:
        return list(await connection.run_sync(_list))


async def find_leftovers(database: Database) -> Sequence[Leftover]:
    """The tables that are left over, with how many rows each holds. Raises InvalidInput for who does not own them."""
    async with database.owner.connect() as connection:
        # Never committed: to count the rows of everybody, row-level security is put aside for the moment.
        return await connection.run_sync(_find)


async def drop_leftovers(database: Database, tables: Collection[str]) -> None:
    """Drop tables that are left over. Raises InvalidInput for others, and where something else depends on them."""
    async with database.owner.begin() as connection:
        await connection.run_sync(_drop, tables)


async def guard_leftovers(database: Database, tables: Collection[str]) -> None:
    """Keep tables that are left over, each row within its owner's reach alone. Raises InvalidInput for others."""
    async with database.owner.begin() as connection:
        await connection.run_sync(_guard, tables)


def _list(connection: Connection) -> dict[str, bool]:
    """Each table that is left over, and whether it keeps callers apart."""
    values = {"declared": list(SQLModel.metadata.tables), "role": APP_ROLE}
    return {row.relname: row.guarded for row in connection.execute(_OURS, values)}


def _find(connection: Connection) -> Sequence[Leftover]:
    found = []
    for name, guarded in _list(connection).items():
        quoted = _quote(connection, name)
        try:
            connection.exec_driver_sql(f"alter table {quoted} no force row level security")
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != "42501":
                raise
            raise InvalidInput(
                f"The table {name} is another user's: put the address of its owner into DATABASE_OWNER_URL"
            ) from error
        rows = connection.execute(select(func.count()).select_from(TableClause(name))).scalar_one()
        found.append(Leftover(name, rows, guarded))
    return found


def _drop(connection: Connection, tables: Collection[str]) -> None:
    _check(connection, tables)
    try:
        # In one statement: they may depend on one another, and nothing else is dropped along with them.
        connection.exec_driver_sql(f"drop table {', '.join(_quote(connection, name) for name in tables)}")
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != "2BP01":
            raise
        detail = getattr(error.orig.__cause__, "detail", None) if error.orig else None
        raise InvalidInput(
            f"Not dropped, because something else depends on it: {detail or 'see the database'}"
        ) from error


def _guard(connection: Connection, tables: Collection[str]) -> None:
    _check(connection, tables)
    for name in tables:
        guard_undeclared(connection, name)


def _check(connection: Connection, tables: Collection[str]) -> None:
    there = _list(connection)
    if wrong := [name for name in tables if name not in there]:
        raise InvalidInput(f"{', '.join(wrong)}: not left over; what is: {', '.join(there) or 'nothing'}")


def _quote(connection: Connection, name: str) -> str:
    return connection.dialect.identifier_preparer.quote(name)
