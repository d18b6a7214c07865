"""The approximate index over the vectors of a space, for a content that is too large to be compared one by one.

It is partial and names the size of the vectors, so it is made for one space, when that is large, and goes with it. Who
serves may lack the right to make it: then searches stay exact.
"""

import structlog
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from agent_server.db import SYSTEM, Database
from agent_server.knowledge.vectors.spaces import Space

log = structlog.get_logger()

LARGE = 20_000
"""Passages from which the index is faster than to compare all: 4.6 against 12.1 ms for 20,000."""
MAX_DIMENSIONS = 4_000
"""What an HNSW index of pgvector can hold."""
PREFIX = "ix_passage_vector_hnsw_"
_LOCK = 7_300_425
_NOT_OWNER = "42501"

_SIZES = text("""
    select s.id, s.dimensions, (select count(*) from passage_vector v where v.owner_id = s.owner_id and v.space = s.id)
    from vector_space s where s.owner_id = :owner_id""")
_INDEXES = text(f"""
    select c.relname, i.indisvalid from pg_index i join pg_class c on c.oid = i.indexrelid
    where c.relname like '{PREFIX}%' and c.relnamespace = quote_ident(current_schema())::regnamespace""")  # noqa: S608  # a constant of ours
_TRY_LOCK = text("select pg_try_advisory_lock(:key)")


async def analyze(database: Database) -> None:
    """Have Postgres see how much there is now: it would plan searches of a content just stored as of an empty one."""
    # Who does not own the tables is told so in a warning that nobody reads; Postgres looks by itself a minute later.
    async with database.owner.begin() as connection:
        await connection.exec_driver_sql("analyze chunk, passage_words, passage_vector, term")


async def ensure_indexes(database: Database, only: Space | None = None) -> None:
    """Make the index of each space that is large and lacks it, and drop those of spaces that are gone."""
    async with database.transaction(SYSTEM, patient=True) as session:
        sizes = (await session.execute(_SIZES, {"owner_id": SYSTEM})).all()
        there: dict[str, bool] = {name: bool(valid) for name, valid in await session.execute(_INDEXES)}
    wanted = {f"{PREFIX}{id}": size for id, size, count in sizes if count >= LARGE and size <= MAX_DIMENSIONS}
    known = {f"{PREFIX}{id}" for id, _, _ in sizes}
    missing = [name for name in wanted if not there.get(name) and (only is None or name == f"{PREFIX}{only.id}")]
    # A build that was cut off leaves an index that is not valid: it is kept up by every write and read by nobody.
    gone = [name for name, valid in there.items() if name not in known or (name in missing and not valid)]
    if not missing and not gone:
        return
    async with database.owner.connect() as plain:
        connection = await plain.execution_options(isolation_level="AUTOCOMMIT")
        # Who does not get the lock leaves it to who has it.
        if (await connection.execute(_TRY_LOCK, {"key": _LOCK})).scalar_one():
            await _change(connection, gone, {name: wanted[name] for name in missing})


async def _change(connection: AsyncConnection, gone: list[str], missing: dict[str, int]) -> None:
    await connection.execute(text("set statement_timeout = 0"))
    await connection.execute(text("set lock_timeout = 0"))
    # 64 MB hold the graph of 20,000 vectors of 256 numbers, and the build of a larger one is many times slower on disk.
    await connection.execute(text("set maintenance_work_mem = '512MB'"))
    try:
        for name in gone:
            await connection.exec_driver_sql(f'drop index concurrently if exists "{name}"')
        for name, dimensions in missing.items():
            space = int(name.removeprefix(PREFIX))
            log.info("index.building", index=name)
            await connection.exec_driver_sql(
                f'create index concurrently "{name}" on passage_vector using hnsw ((emb::halfvec({dimensions})) '
                f"halfvec_cosine_ops) where owner_id = '{SYSTEM}' and space = {space}"
            )
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != _NOT_OWNER:
            raise
        log.warning(
            "index.refused", hint="set DATABASE_OWNER_URL for `agent-server content ingest`; searches stay exact"
        )
