"""Vectors that a server elsewhere has made, by the hash of their texts, so that none is paid for twice."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlalchemy import text

from agent_server.db import SYSTEM, Database
from agent_server.knowledge.embedders.base import Embedder, check_vectors
from agent_server.late import Late

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
else:
    np = Late("numpy")

_FIND = text("""
    select sha, emb::text from embedding
    where owner_id = :owner_id and embedder = :embedder and sha = any(cast(:shas as text[]))""")
_KEEP = text("""
    insert into embedding (owner_id, embedder, sha, emb)
    select :owner_id, :embedder, sha, cast(emb as halfvec)
    from unnest(cast(:shas as text[]), cast(:vectors as text[])) v(sha, emb) order by sha
    on conflict do nothing""")
# What no page has any more may come back with the next edit; what is of another model will not.
_FORGET = text("""
    delete from embedding e where e.owner_id = :owner_id and not exists (
        select from vector_space s where s.owner_id = e.owner_id and s.name = e.embedder)""")


async def embed_once(database: Database, embedder: Embedder, texts: Sequence[str]) -> "NDArray[np.float32]":
    """The vectors of texts. Those of an embedder that `is_cached` are asked for once."""
    if not getattr(embedder, "is_cached", False):
        vectors = await embedder.embed(texts)
        # The column takes vectors of any size, so Postgres would not refuse a wrong one.
        check_vectors(embedder, vectors, texts)
        return vectors
    shas = [hashlib.sha256(one.encode()).hexdigest() for one in texts]
    values = {"owner_id": SYSTEM, "embedder": embedder.name}
    async with database.transaction(SYSTEM) as session:
        rows = (await session.execute(_FIND, {**values, "shas": list(set(shas))})).all()
    known = {sha: np.fromstring(vector.strip("[]"), dtype=np.float32, sep=",") for sha, vector in rows}
    missing = {sha: one for sha, one in zip(shas, texts, strict=True) if sha not in known}
    if missing:
        found = await embedder.embed(list(missing.values()))
        check_vectors(embedder, found, list(missing.values()))
        known |= dict(zip(missing, found, strict=True))
        spelled = [str(vector) for vector in found.astype("float64").round(5).tolist()]
        async with database.transaction(SYSTEM, patient=True) as session:
            await session.execute(_KEEP, {**values, "shas": list(missing), "vectors": spelled})
    return np.stack([known[sha] for sha in shas]) if shas else np.zeros((0, embedder.dimensions), dtype=np.float32)


async def forget_others(database: Database) -> None:
    """Drop the vectors of models that nothing is searched by any more."""
    async with database.transaction(SYSTEM, patient=True) as session:
        await session.execute(_FORGET, {"owner_id": SYSTEM})
