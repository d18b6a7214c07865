"""What is removed when its time is over: the streams of finished turns, guests, logins, questions."""

from collections.abc import Sequence

import structlog
from sqlalchemy import TextClause, text

from agent_server.db import Database, What, sweep

log = structlog.get_logger()

BATCH = 200
GUEST_GRACE_HOURS = 24
"""How long a guest's conversations outlive the session, for one who is about to come back."""

# The journal of responses goes with the events: what was answered is in the items, and nobody takes over a turn that
# has ended. The ledger of tool calls stays: it says which effects took place.
_PRUNE = text("""
    with old as materialized (
        select t.owner_id, t.id from turn t
        join unnest(cast(:owners as uuid[]), cast(:ids as uuid[])) w(owner_id, id)
            on t.owner_id = w.owner_id and t.id = w.id
        where t.events_kept for update of t skip locked),
    events as (delete from event e using old where e.owner_id = old.owner_id and e.turn_id = old.id),
    journal as (delete from model_call m using old where m.owner_id = old.owner_id and m.turn_id = old.id)
    update turn t set events_kept = false from old where t.owner_id = old.owner_id and t.id = old.id""")

# A turn before its conversation, as whoever ends a turn takes the two.
_FORGET = [
    text(f"delete from {table} where {owner} = any(cast(:owners as uuid[]))")  # noqa: S608  # names of our own
    for table, owner in (("turn", "owner_id"), ("conversation", "owner_id"), ("profile", "owner_id"), ("guest", "id"))
]
_END_LOGINS, _FORGET_QUESTIONS = (
    text(f"""
        delete from {table} t using unnest(cast(:owners as uuid[]), cast(:ids as uuid[])) w(owner_id, id)
        where t.owner_id = w.owner_id and t.id = w.id""")  # noqa: S608  # names of our own
    for table in ("login", "confirmation")
)


async def prune_events(database: Database, hours: int) -> int:
    """Remove the events of turns that ended more than so many hours ago; returns how many turns those were."""
    return await _remove(database, "prunable", hours, [_PRUNE], "events.pruned")


async def expire_guests(database: Database) -> int:
    """Remove guests whose sessions are over, with their conversations and profiles; returns how many."""
    return await _remove(database, "expired_guests", GUEST_GRACE_HOURS, _FORGET, "guests.expired")


async def expire_logins(database: Database) -> int:
    """Remove what is left of users' logins that are over; returns how many."""
    return await _remove(database, "expired_logins", 0, [_END_LOGINS], "logins.expired")


async def expire_confirmations(database: Database) -> int:
    """Remove questions that can no longer be answered, a day after; returns how many."""
    return await _remove(database, "expired_confirmations", 24, [_FORGET_QUESTIONS], "confirmations.expired")


async def _remove(database: Database, what: What, hours: int, statements: Sequence[TextClause], event: str) -> int:
    removed = 0
    while True:
        async with database.transaction() as session:
            rows = await sweep(session, what, seconds=hours * 3600, batch=BATCH)
        if rows:
            owners = [row.owner_id for row in rows]
            async with database.transaction(*set(owners)) as session:
                for statement in statements:
                    await session.execute(statement, {"owners": owners, "ids": [row.id for row in rows]})
        removed += len(rows)
        if len(rows) < BATCH:
            break
    if removed:
        log.info(event, count=removed)
    return removed
