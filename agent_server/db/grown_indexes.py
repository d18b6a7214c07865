"""Indexes that are made for what a table holds, and not for what it is: no migration knows when one pays.

They belong to the owner of the tables, as whom not every process may log in.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

if TYPE_CHECKING:
    from agent_server.db.database import Database

log = structlog.get_logger()

_LOCK = 7_300_425
_NOT_OWNER = "42501"
_TRY_LOCK = text("select pg_try_advisory_lock(:key)")
# The graph of 100,000 vectors of 256 numbers takes 200 MB, and a larger one than fits is built many times slower.
_SETTINGS = "set statement_timeout = 0; set lock_timeout = 0; set maintenance_work_mem = '512MB'"


async def change_indexes(database: "Database", gone: Sequence[str], missing: Mapping[str, str]) -> None:
    """Drop and make indexes beside what goes on; `missing` has what stands after `create index ... on`.

    Where another process is at it, it is left to that. Without the right to it nothing is done but a warning.
    """
    async with database.owner.connect() as plain:
        connection = await plain.execution_options(isolation_level="AUTOCOMMIT")
        if not (await connection.execute(_TRY_LOCK, {"key": _LOCK})).scalar_one():
            return
        try:
            for statement in _SETTINGS.split(";"):
                await connection.exec_driver_sql(statement)
            for name in gone:
                await connection.exec_driver_sql(f'drop index concurrently if exists "{name}"')
            for name, definition in missing.items():
                log.info("index.building", index=name)
                await connection.exec_driver_sql(f'create index concurrently "{name}" on {definition}')
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != _NOT_OWNER:
                raise
            log.warning("index.refused", hint="set DATABASE_OWNER_URL for `agent-server content ingest`")


async def analyze(database: "Database", tables: Sequence[str]) -> None:
    """Have Postgres see how much there is now: it would plan statements about what was just stored as about nothing."""
    # Who does not own the tables is told so in a warning that nobody reads; Postgres looks by itself a minute later.
    async with database.owner.begin() as connection:
        await connection.exec_driver_sql(f"analyze {', '.join(tables)}")
