"""Which vectors each collection is searched by.

A space is what one embedder makes. A collection has one that is searched and, while another embedder's vectors are being
made, one that is wanted. They change places in one transaction, when no passage lacks the new vector (`renew`): no
statement ever sees vectors of two embedders for one question. `wanted` may be the space that is searched: then some
passage lacks its vector.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from agent_server.db import SYSTEM
from agent_server.knowledge.embedders.base import Embedder
from agent_server.knowledge.embedders.opened import MadeBy, describe

_READ = text("""
    select (select spaces from corpus where owner_id = :owner_id),
           (select json_agg(json_build_object('id', s.id, 'name', s.name, 'dimensions', s.dimensions, 'made_by', s.made_by,
                'has_index', exists (select from pg_index i where i.indexrelid = to_regclass('ix_passage_vector_hnsw_' || s.id)
                                     and i.indisvalid)))
            from vector_space s where s.owner_id = :owner_id),
           (select json_agg(json_build_object('collection', c.collection, 'space', c.space, 'wanted', c.wanted,
                'weight', c.weight, 'wanted_weight', c.wanted_weight, 'passages', c.passages))
            from collection_space c where c.owner_id = :owner_id)""")
_ADD_SPACE = text("""
    insert into vector_space (owner_id, id, name, dimensions, made_by)
    values (:owner_id, :id, :name, :dimensions, cast(:made_by as jsonb))""")
_DESCRIBE_SPACE = text(
    "update vector_space set made_by = cast(:made_by as jsonb) where owner_id = :owner_id and id = :id"
)
_SET = text("""
    insert into collection_space (owner_id, collection, space, wanted, weight, wanted_weight)
    values (:owner_id, :collection, :space, :wanted, :weight, :wanted_weight)
    on conflict (owner_id, collection) do update set space = excluded.space, wanted = excluded.wanted,
        weight = excluded.weight, wanted_weight = excluded.wanted_weight""")
_TELL = text("""
    insert into corpus (owner_id, n_chunks, pivot, spaces) values (:owner_id, 0, :pivot, :version)
    on conflict (owner_id) do update set spaces = excluded.spaces""")
_COUNT = text("""
    update collection_space s set passages = n.passages
    from (select s.collection, count(c.id) as passages
          from collection_space s left join chunk c on c.owner_id = s.owner_id and c.collection = s.collection
          where s.owner_id = :owner_id group by 1) n
    where s.owner_id = :owner_id and s.collection = n.collection and s.passages <> n.passages""")
_FORGET_EMPTY = text("delete from collection_space where owner_id = :owner_id and passages = 0 and wanted is null")
_FORGET_VECTORS = text("""
    delete from passage_vector v where v.owner_id = :owner_id and not exists (
        select from collection_space s where s.owner_id = v.owner_id and s.collection = v.collection
            and v.space in (s.space, s.wanted))""")
_FORGET_SPACES = text("""
    delete from vector_space v where v.owner_id = :owner_id and not exists (
        select from collection_space s where s.owner_id = v.owner_id and v.id in (s.space, s.wanted))""")


@dataclass(frozen=True)
class Space:
    """The vectors of one embedder. `has_index` says whether an approximate search is possible."""

    id: int
    name: str
    dimensions: int
    made_by: MadeBy
    has_index: bool = False


@dataclass(frozen=True)
class Served:
    """What a collection is searched by, and what is being made for it. A weight of None is that of the embedder."""

    collection: str
    space: int
    wanted: int | None = None
    weight: float | None = None
    wanted_weight: float | None = None
    passages: int = 0


@dataclass(frozen=True)
class Spaces:
    """The spaces of an owner, and which serve its collections. `version` is another one after every change."""

    version: UUID | None
    spaces: Mapping[int, Space]
    collections: Mapping[str, Served]

    @property
    def is_waiting(self) -> bool:
        """Whether vectors are still to be made."""
        return any(served.wanted is not None for served in self.collections.values())


@dataclass(frozen=True)
class Wish:
    """What a collection is to be searched by."""

    embedder: Embedder
    weight: float | None = None


async def read_spaces(session: AsyncSession, owner: UUID = SYSTEM) -> Spaces:
    version, spaces, collections = (await session.execute(_READ, {"owner_id": owner})).one()
    return Spaces(
        version,
        {row["id"]: Space(**row) for row in spaces or ()},
        {row["collection"]: Served(**row) for row in collections or ()},
    )


async def assign(session: AsyncSession, wishes: Mapping[str, Wish], pivot: float) -> None:
    """Have collections searched by what is wished, at once where they are new, else when all vectors are made.

    The caller holds the lock of writers.
    """
    state = await read_spaces(session)
    ids = {space.name: space.id for space in state.spaces.values()}
    for wish in {wish.embedder.name: wish for wish in wishes.values()}.values():
        ids[wish.embedder.name] = await _find_or_add(session, state, wish.embedder)
    changed = []
    for collection, wish in wishes.items():
        space, served = ids[wish.embedder.name], state.collections.get(collection)
        if served is None:
            changed.append(Served(collection, space, None, wish.weight))
        elif served.space == space:
            lacks = served.wanted == space
            changed.append(
                Served(collection, space, space if lacks else None, wish.weight, wish.weight if lacks else None)
            )
        else:
            changed.append(Served(collection, served.space, space, served.weight, wish.weight))
    await set_served(session, state, changed, pivot)


async def _find_or_add(session: AsyncSession, state: Spaces, embedder: Embedder) -> int:
    made_by = json.dumps(dict(describe(embedder)))
    values: dict[str, Any] = {"owner_id": SYSTEM, "made_by": made_by}
    known = next((space for space in state.spaces.values() if space.name == embedder.name), None)
    if known is None:
        # A number that no space had before: a process that remembers one must not find the vectors of another by it.
        id = uuid4().int % 2**31
        named = {"id": id, "name": embedder.name, "dimensions": embedder.dimensions}
        await session.execute(_ADD_SPACE, {**values, **named})
        return id
    if dict(known.made_by) != json.loads(made_by):
        await session.execute(_DESCRIBE_SPACE, {**values, "id": known.id})
    return known.id


async def set_served(session: AsyncSession, state: Spaces, changed: Sequence[Served], pivot: float) -> None:
    """Store what collections are searched by, where it is otherwise now, and drop vectors that nobody wants any more."""
    written = False
    for one in changed:
        before = state.collections.get(one.collection)
        if before is not None and (before.space, before.wanted, before.weight, before.wanted_weight) == (
            one.space,
            one.wanted,
            one.weight,
            one.wanted_weight,
        ):
            continue
        written = True
        await session.execute(
            _SET,
            {
                "owner_id": SYSTEM,
                "collection": one.collection,
                "space": one.space,
                "wanted": one.wanted,
                "weight": one.weight,
                "wanted_weight": one.wanted_weight,
            },
        )
    if written:
        await session.execute(_TELL, {"owner_id": SYSTEM, "pivot": pivot, "version": uuid4()})
        await forget_unused(session)


async def forget_unused(session: AsyncSession) -> None:
    await session.execute(_FORGET_VECTORS, {"owner_id": SYSTEM})
    await session.execute(_FORGET_SPACES, {"owner_id": SYSTEM})


async def count_passages(session: AsyncSession) -> None:
    """Store how many passages each collection has, and forget collections without any."""
    for statement in (_COUNT, _FORGET_EMPTY):
        await session.execute(statement, {"owner_id": SYSTEM})
