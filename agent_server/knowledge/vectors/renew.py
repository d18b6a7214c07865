"""Vectors are made anew for passages that lack those of the embedder that is wanted.

Batch by batch, each in a transaction of its own: who goes on after a run that was killed makes only what is missing. The
old vectors serve until then. Several processes may do this at once; what both have made is stored once.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from agent_server.db import SYSTEM, Database
from agent_server.knowledge.cache import embed_once, forget_others
from agent_server.knowledge.embedders import gather_embedders
from agent_server.knowledge.embedders.base import Embedder
from agent_server.knowledge.settle import lock
from agent_server.knowledge.vectors.index import ensure_indexes
from agent_server.knowledge.vectors.spaces import Space, Spaces, read_spaces, set_served
from agent_server.knowledge.vectors.texts import embedded_text, spell

log = structlog.get_logger()

BATCH = 256
_LEAST = UUID(int=0)

_LACKS = """not exists (
        select from passage_vector v
        where v.owner_id = c.owner_id and v.space = :space and v.collection = c.collection and v.chunk_id = c.id)"""
# All passages are gone through by their key: what lacks a vector cannot be looked up.
_NEXT = text(f"""
    select c.id, c.lacks, d.path, d.description, d.tags, c.heading, c.text
    from (select c.id, c.document_id, c.heading, c.text, c.collection = any(cast(:collections as text[])) and {_LACKS} as lacks
          from chunk c where c.owner_id = :owner_id and c.id > :after order by c.id limit {BATCH}) c
    left join document d on c.lacks and d.owner_id = :owner_id and d.id = c.document_id order by c.id""")  # noqa: S608  # constants of ours
# By numbers, since each vector has its passage: a join of tables that have just been filled may take Postgres minutes.
_IS_MISSING = text("""
    select (select count(*) from chunk where owner_id = :owner_id and collection = :collection)
         > (select count(*) from passage_vector
            where owner_id = :owner_id and space = :space and collection = :collection)""")
# A passage may have been removed, or its collection given back to the embedder before, since its text was read.
_STORE = text("""
    insert into passage_vector (owner_id, space, chunk_id, collection, emb)
    select c.owner_id, :space, c.id, c.collection, cast(r.emb as halfvec)
    from unnest(cast(:ids as uuid[]), cast(:vectors as text[])) r(id, emb)
    join chunk c on c.owner_id = :owner_id and c.id = r.id
    join collection_space s on s.owner_id = c.owner_id and s.collection = c.collection and s.wanted = :space
    order by c.id on conflict do nothing""")


@dataclass(frozen=True)
class Renewal:
    """How many passages have new vectors."""

    done: int
    name: str


async def renew(
    database: Database, embedder: Embedder, *, pivot: float, progress: Callable[[Renewal], None] | None = None
) -> int:
    """Make every vector that is wanted and missing, then have searches use them. Returns how many were made.

    Raises Unavailable when the database or the embedder goes away; what was stored stays.
    """
    embedders, made, tried = gather_embedders(embedder), 0, set[int]()
    # Read again after each: another process may have wished for one meanwhile.
    while spaces := [space for space in _wanted(await _read(database)) if space.id not in tried]:
        space = spaces[0]
        tried.add(space.id)
        maker = embedders.find(space.name, space.made_by)
        if maker is None:
            log.warning("embedder.missing", name=space.name, hint="no embedder of the settings makes these vectors")
            continue
        made += await _renew(database, maker, space, pivot, progress)
    await ensure_indexes(database)
    if made and not (await _read(database)).is_waiting:
        await forget_others(database)
    return made


async def _renew(
    database: Database, maker: Embedder, space: Space, pivot: float, progress: Callable[[Renewal], None] | None
) -> int:
    """Make the vectors of one space for all collections that want them, and have them used."""
    made = 0
    while collections := _wanting(await _read(database), space.id):
        made += await _make_missing(database, maker, space, collections, progress)
        # Before they are used: without an index a search of many passages would read all of them.
        await ensure_indexes(database, space)
        async with database.transaction(SYSTEM, patient=True) as session:
            await lock(session)
            state = await read_spaces(session)
            # Read again under the lock of writers: pages may have been stored since.
            ready = [name for name in _wanting(state, space.id) if not await _is_missing(session, space.id, name)]
            changed = [_use(state, name) for name in ready]
            await set_served(session, state, changed, pivot)
        if ready:
            log.info("embedder.used", name=space.name, collections=len(ready))
    return made


def _use(state: Spaces, collection: str) -> Any:
    served = state.collections[collection]
    assert served.wanted is not None
    return replace(served, space=served.wanted, wanted=None, weight=served.wanted_weight, wanted_weight=None)


async def _make_missing(
    database: Database,
    maker: Embedder,
    space: Space,
    collections: Sequence[str],
    progress: Callable[[Renewal], None] | None,
) -> int:
    made, after = 0, _LEAST
    values = {"owner_id": SYSTEM, "space": space.id, "collections": list(collections)}
    while True:
        async with database.transaction(SYSTEM, patient=True) as session:
            rows = (await session.execute(_NEXT, {**values, "after": after})).all()
        if not rows:
            return made
        after, lacking = rows[-1].id, [row for row in rows if row.lacks]
        if not lacking:
            continue
        vectors = await embed_once(database, maker, await asyncio.to_thread(_read_texts, lacking))
        spelled = await asyncio.to_thread(spell, vectors)
        async with database.transaction(SYSTEM, patient=True) as session:
            await lock(session)
            stored = {"owner_id": SYSTEM, "space": space.id, "ids": [row.id for row in lacking], "vectors": spelled}
            await session.execute(_STORE, stored)
        made += len(lacking)
        if progress is not None:
            progress(Renewal(made, space.name))


def _read_texts(rows: Sequence[Any]) -> list[str]:
    return [embedded_text(row.path, row.heading, row.description, row.tags, row.text) for row in rows]


async def _is_missing(session: AsyncSession, space: int, collection: str) -> bool:
    values = {"owner_id": SYSTEM, "space": space, "collection": collection}
    found: bool = (await session.execute(_IS_MISSING, values)).scalar_one()
    return found


async def _read(database: Database) -> Spaces:
    async with database.transaction(SYSTEM) as session:
        return await read_spaces(session)


def _wanted(state: Spaces) -> list[Space]:
    ids = sorted({served.wanted for served in state.collections.values() if served.wanted is not None})
    return [state.spaces[id] for id in ids]


def _wanting(state: Spaces, space: int) -> list[str]:
    return [served.collection for served in state.collections.values() if served.wanted == space]
