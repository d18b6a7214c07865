"""What is removed when its time is over."""

from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

import structlog
from sqlalchemy import delete, text, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from agent_server.calls.confirmations import Confirmation
from agent_server.conversations.models import Conversation
from agent_server.db import Database, Swept, What, sweep
from agent_server.identity.models import Guest, Login, Profile
from agent_server.turns.models import Turn

log = structlog.get_logger()

Remove = Callable[[AsyncSession, Sequence[Swept]], Awaitable[None]]
"""Removes what hangs on rows that a sweep has found, in a transaction for their owners."""

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


async def prune_events(database: Database, hours: int) -> int:
    """Remove the events of turns that ended more than so many hours ago. Returns how many turns those were."""

    async def prune(session: AsyncSession, rows: Sequence[Swept]) -> None:
        await session.execute(_PRUNE, {"owners": [row.owner_id for row in rows], "ids": [row.id for row in rows]})

    return await _remove(database, "prunable", hours, prune, "events.pruned")


async def expire_guests(database: Database) -> int:
    """Remove guests whose sessions are over. Their conversations and profiles go too. Returns how many guests those
    were."""
    return await _remove(database, "expired_guests", GUEST_GRACE_HOURS, _forget_guests, "guests.expired")


async def expire_logins(database: Database) -> int:
    """Remove what is left of users' logins that are over. Returns how many."""

    async def forget(session: AsyncSession, rows: Sequence[Swept]) -> None:
        await session.execute(delete(Login).where(tuple_(col(Login.owner_id), col(Login.id)).in_(_keys(rows))))

    return await _remove(database, "expired_logins", 0, forget, "logins.expired")


async def expire_confirmations(database: Database) -> int:
    """Remove questions that can no longer be answered. They are kept for a day. Returns how many were removed."""

    async def forget(session: AsyncSession, rows: Sequence[Swept]) -> None:
        key = tuple_(col(Confirmation.owner_id), col(Confirmation.id))
        await session.execute(delete(Confirmation).where(key.in_(_keys(rows))))

    return await _remove(database, "expired_confirmations", 24, forget, "confirmations.expired")


async def _forget_guests(session: AsyncSession, rows: Sequence[Swept]) -> None:
    guests = [row.owner_id for row in rows]
    # A turn before its conversation, as whoever ends a turn takes the two.
    await session.execute(delete(Turn).where(col(Turn.owner_id).in_(guests)))
    await session.execute(delete(Conversation).where(col(Conversation.owner_id).in_(guests)))
    await session.execute(delete(Profile).where(col(Profile.owner_id).in_(guests)))
    await session.execute(delete(Guest).where(col(Guest.id).in_(guests)))


def _keys(rows: Sequence[Swept]) -> Sequence[tuple[UUID, UUID]]:
    return [(row.owner_id, row.id) for row in rows]


async def _remove(database: Database, what: What, hours: int, remove: Remove, event: str) -> int:
    removed = 0
    while True:
        async with database.transaction() as session:
            rows = await sweep(session, what, seconds=hours * 3600, batch=BATCH)
        if rows:
            async with database.transaction(*{row.owner_id for row in rows}) as session:
                await remove(session, rows)
        removed += len(rows)
        if len(rows) < BATCH:
            break
    if removed:
        log.info(event, count=removed)
    return removed
