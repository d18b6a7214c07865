"""The approximate index over the vectors of a space, for a content that is too large to be compared one by one.

It is partial and names the size of the vectors, so it is made for one space, when that is large, and goes with it. Who
serves may lack the right to make it: then searches stay exact.
"""

from sqlalchemy import text

from agent_server.db import SYSTEM, Database
from agent_server.db.grown_indexes import change_indexes
from agent_server.knowledge.vectors.spaces import Space

LARGE = 20_000
"""Passages from which the index is faster than to compare all: 4.6 against 12.1 ms for 20,000."""
MAX_DIMENSIONS = 4_000
"""What an HNSW index of pgvector can hold."""
PREFIX = "ix_passage_vector_hnsw_"

_SIZES = text("""
    select s.id, s.dimensions, (select count(*) from passage_vector v where v.owner_id = s.owner_id and v.space = s.id)
    from vector_space s where s.owner_id = :owner_id""")
_INDEXES = text(f"""
    select c.relname, i.indisvalid from pg_index i join pg_class c on c.oid = i.indexrelid
    where c.relname like '{PREFIX}%' and c.relnamespace = quote_ident(current_schema())::regnamespace""")  # noqa: S608  # a constant of ours


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
    if missing or gone:
        await change_indexes(database, gone, {name: _define(name, wanted[name]) for name in missing})


def _define(name: str, dimensions: int) -> str:
    return (
        f"passage_vector using hnsw ((emb::halfvec({dimensions})) halfvec_cosine_ops) "
        f"where owner_id = '{SYSTEM}' and space = {int(name.removeprefix(PREFIX))}"
    )
