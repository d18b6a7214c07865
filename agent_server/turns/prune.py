"""Streams of turns are kept for a while."""

from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from agent_server.db import Database, Swept, remove_swept

# The journal of responses goes with the events: what was answered is in the items, and nobody takes over a turn that
# has ended. The ledger of tool calls stays: it says which effects took place.
# `skip locked`: two replicas at once, or a deletion, do not wait for each other. What is skipped is found again.
_PRUNE = text("""
    with old as materialized (
        select t.owner_id, t.id from turn t
        join unnest(cast(:owners as uuid[]), cast(:ids as uuid[])) w(owner_id, id)
            on t.owner_id = w.owner_id and t.id = w.id
        where t.events_kept for update of t skip locked),
    events as (delete from event e using old where e.owner_id = old.owner_id and e.turn_id = old.id),
    journal as (delete from model_call m using old where m.owner_id = old.owner_id and m.turn_id = old.id)
    update turn t set events_kept = false from old where t.owner_id = old.owner_id and t.id = old.id""")


async def prune_events(database: Database, hours: int) -> int:
    """Remove the events of turns that ended more than so many hours ago. Returns how many turns those were."""

    async def prune(session: AsyncSession, rows: Sequence[Swept]) -> None:
        await session.execute(_PRUNE, {"owners": [row.owner_id for row in rows], "ids": [row.id for row in rows]})

    return await remove_swept(database, "prunable", hours, prune, "events.pruned")
