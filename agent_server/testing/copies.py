"""Copies of a template database that are used again.

To make a copy takes the server ten times as long as to put one that was used into the template's state, and a connection
that is kept for it half as long as one that is made for it.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from agent_server.db import Database
from agent_server.db.outages import DatabaseAway
from agent_server.db.scratch import create_scratch, drop_scratch

_IS_SUPERUSER = text("select rolsuper from pg_roles where rolname = current_user")
_END_OTHERS = text("""
    select pg_terminate_backend(pid, 5000) from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid() and pid <> all(:spared)""")
# The server counts the rows that are written to each table. A process that ends adds what it wrote before it is gone.
_WRITES = text("""
    select format('%I.%I', nspname, relname), nspname = 'pg_catalog',
           pg_stat_get_tuples_inserted(t.oid) + pg_stat_get_tuples_updated(t.oid) + pg_stat_get_tuples_deleted(t.oid)
    from pg_class t join pg_namespace n on n.oid = relnamespace
    where relkind = 'r' and not relisshared and nspname <> 'information_schema' and relname <> 'pg_statistic'
    union all
    select 'settings', true, count(*) from pg_db_role_setting
    union all
    select 'sequences', true, coalesce(sum(last_value), 0)::bigint from pg_sequences""")
_FLUSH = text("select pg_stat_force_next_flush()")
_EMPTY = 21
"""Bytes of no rows in the binary format of COPY: its head and its end."""


@dataclass(frozen=True)
class _Writes:
    """How many rows were written to each table, and to the tables of the server that describe them."""

    rows: Mapping[str, int]
    catalog: Mapping[str, int]


@dataclass
class _Copy:
    """A copy, a connection to it that is kept, and the writes to it while it was as the template."""

    database: Database
    connection: AsyncConnection
    writes: _Writes
    spared: list[int] = field(default_factory=list)
    """The processes of other connections to it that may stay."""

    @property
    def url(self) -> str:
        return self.database.url

    async def close(self) -> None:
        await self.connection.close()
        await self.database.close()


class DatabaseCopies:
    """Copies of the database at `template` on `server`, for one user at a time each."""

    def __init__(self, server: str, template: str) -> None:
        self._server, self._template = Database(server), template
        self._loop = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        """That of the connections, which runs while something is done with them."""
        self._free: list[_Copy] = []
        self._borrowed: dict[str, _Copy] = {}
        self._rows: dict[str, bytes] = {}
        """The rows of each table of the template that has some, in the binary format of COPY."""

    @contextmanager
    def borrow(self) -> Iterator[str]:
        """The address of a copy for as long as the block. Connections to it that are left open are ended, but for those
        that are to be spared."""
        copy = self._free.pop() if self._free else self._loop.run(self._make())
        self._borrowed[copy.url], copy.spared = copy, []
        try:
            yield copy.url
        finally:
            del self._borrowed[copy.url]
            self._loop.run(self._take_back(copy))

    def spare(self, url: str, processes: Iterable[int]) -> None:
        """Let the connections of these server processes outlive the block that has borrowed the copy at `url`. They are
        idle, and what they have written is counted (`pg_stat_force_next_flush`)."""
        self._borrowed[url].spared.extend(processes)

    def close(self) -> None:
        """Drop the copies."""
        self._loop.run(self._drop(*self._free))
        self._free.clear()
        self._loop.close()

    async def _make(self) -> _Copy:
        database = Database(await create_scratch(self._server, self._template))
        connection = await _connect(database)
        writes = await _read_writes(connection)
        if not self._rows:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            for name in writes.rows:
                rows = BytesIO()
                await driver.copy_from_query(f"table {name}", output=rows, format="binary")
                self._rows[name] = rows.getvalue()
        return _Copy(database, connection, writes)

    async def _take_back(self, copy: _Copy) -> None:
        try:
            is_superuser = (await copy.connection.execute(_IS_SUPERUSER)).scalar_one()
        except DatabaseAway:  # a test ends connections, too
            await copy.connection.close()
            copy.connection = await _connect(copy.database)
            is_superuser = (await copy.connection.execute(_IS_SUPERUSER)).scalar_one()
        # who is none may not pass the triggers by
        if is_superuser and await self._restore(copy.connection, copy):
            self._free.append(copy)
        else:
            await self._drop(copy)

    async def _drop(self, *copies: _Copy) -> None:
        for copy in copies:
            await copy.close()
        await drop_scratch(self._server, *(copy.url for copy in copies))

    async def _restore(self, connection: AsyncConnection, copy: _Copy) -> bool:
        """Whether the copy is as the template again. It cannot be where its tables were changed, not only their rows."""
        await connection.execute(_END_OTHERS, {"spared": copy.spared})
        now = await _read_writes(connection)
        if now.catalog != copy.writes.catalog:
            return False
        if changed := [name for name, writes in now.rows.items() if writes != copy.writes.rows[name]]:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            # without keys and triggers: rows of an audit, say, are only ever added
            deleted = "; ".join(f"delete from {name}" for name in changed)  # noqa: S608  # names of the catalog
            await driver.execute(f"set session_replication_role = replica; {deleted}")
            for name in changed:
                if len(self._rows[name]) <= _EMPTY:
                    continue
                schema, table = name.split(".")
                rows = BytesIO(self._rows[name])
                await driver.copy_to_table(table, schema_name=schema, source=rows, format="binary")
            await connection.execute(_FLUSH)
            copy.writes = await _read_writes(connection)
        return True


async def _connect(database: Database) -> AsyncConnection:
    return await database.owner.execution_options(isolation_level="AUTOCOMMIT").connect()


async def _read_writes(connection: AsyncConnection) -> _Writes:
    found = (await connection.execute(_WRITES)).all()
    return _Writes(
        {name: writes for name, is_catalog, writes in found if not is_catalog},
        {name: writes for name, is_catalog, writes in found if is_catalog},
    )
