"""What is removed when its time is over: the streams of finished turns, and guests."""

import structlog
from sqlalchemy import text

from agent_server.db import Database

log = structlog.get_logger()

BATCH = 200
GUEST_GRACE_HOURS = 24
"""How long a guest's conversations outlive the session, for one who is about to come back."""

# The journal of responses goes with the events: what was answered is in the items, and nobody takes over a turn that
# has ended. The ledger of tool calls stays: it says which effects took place.
_PRUNE = text("""
    with old as materialized (
        select owner_id, id from turn
        where finished_at < now() - :hours * interval '1 hour' and events_kept
        order by finished_at limit :batch for update skip locked),
    events as (delete from event e using old where e.owner_id = old.owner_id and e.turn_id = old.id),
    journal as (delete from model_call m using old where m.owner_id = old.owner_id and m.turn_id = old.id)
    update turn t set events_kept = false from old where t.owner_id = old.owner_id and t.id = old.id
    returning t.id""")

_EXPIRED = text("""
    select id from guest where expires_at < now() - :hours * interval '1 hour' order by expires_at limit :batch""")
# A turn before its conversation, as whoever ends a turn takes the two.
_FORGET = [
    text(f"delete from {table} where {owner} = any(cast(:ids as uuid[]))")  # noqa: S608  # names of our own
    for table, owner in (("turn", "owner_id"), ("conversation", "owner_id"), ("profile", "owner_id"), ("guest", "id"))
]


async def prune_events(database: Database, hours: int) -> int:
    """Remove the events of turns that ended more than so many hours ago; returns how many turns those were."""
    pruned = 0
    while True:
        async with database.transaction() as session:
            rows = (await session.execute(_PRUNE, {"hours": hours, "batch": BATCH})).all()
        pruned += len(rows)
        if len(rows) < BATCH:
            break
    if pruned:
        log.info("events.pruned", turns=pruned)
    return pruned


async def expire_guests(database: Database) -> int:
    """Remove guests whose sessions are over, with their conversations and profiles; returns how many."""
    removed = 0
    while True:
        async with database.transaction() as session:
            expired = await session.execute(_EXPIRED, {"hours": GUEST_GRACE_HOURS, "batch": BATCH})
            ids = expired.scalars().all()
            for statement in _FORGET if ids else ():
                await session.execute(statement, {"ids": ids})
        removed += len(ids)
        if len(ids) < BATCH:
            break
    if removed:
        log.info("guests.expired", guests=removed)
    return removed
