"""What is removed of callers when its time is over."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import structlog
from sqlalchemy import delete, func, tuple_
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from agent_server.calls.confirmations import Confirmation
from agent_server.db import OWN_DATA, SYSTEM, Database
from agent_server.db.sweep import BATCH, Ended, remove_over, sweep
from agent_server.identity.models import Guest, Login
from agent_server.identity.own_data import erase_rows, hand_over_submissions

log = structlog.get_logger()

GUEST_GRACE_HOURS = 24
"""How long a guest's rows outlive the session, for one who is about to come back."""
AT_ONCE = 20
"""Guests whose rows are removed in one transaction: some have thousands."""


async def expire_guests(database: Database) -> int:
    """Remove guests whose sessions are over, with all that they own in any table. What they handed in for staff stays,
    as the system's. Returns how many guests those were."""
    removed = 0
    while True:
        async with database.transaction() as session:
            found = await sweep(session, "expired_guests", seconds=GUEST_GRACE_HOURS * 3600, batch=BATCH)
        guests = [row.id for row in found]
        gone = [await _forget(database, guests[i : i + AT_ONCE]) for i in range(0, len(guests), AT_ONCE)]
        removed += sum(gone)
        # Those that could not be removed are found again.
        if len(guests) < BATCH or not any(gone):
            break
    if removed:
        log.info("guests.expired", count=removed)
    return removed


async def _forget(database: Database, guests: Sequence[UUID]) -> int:
    try:
        async with database.transaction(*guests, SYSTEM, scopes=(OWN_DATA,)) as session:
            # Somebody may be taking a guest's rows over in this instant, and have the guest locked. And looked at again:
            # another replica may have been here since.
            over = col(Guest.expires_at) < func.now() - timedelta(hours=GUEST_GRACE_HOURS)
            statement = select(Guest.id).where(col(Guest.id).in_(guests), over).order_by(col(Guest.id))
            locked = (await session.execute(statement.with_for_update(skip_locked=True))).scalars().all()
            if locked:
                await hand_over_submissions(session, *locked)
                await erase_rows(session, *locked)
        return len(locked)
    except DBAPIError:
        # A row of the workspace's may refer to a guest's: the other guests must not stay for that.
        if len(guests) == 1:
            log.exception("guests.not_expired")
            return 0
    return sum([await _forget(database, [guest]) for guest in guests])


async def expire_logins(database: Database) -> int:
    """Remove what is left of users' logins that are over. Returns how many."""

    async def forget(session: AsyncSession, rows: Sequence[Ended]) -> None:
        await session.execute(delete(Login).where(tuple_(col(Login.owner_id), col(Login.id)).in_(_keys(rows))))

    return await remove_over(database, "expired_logins", 0, forget, "logins.expired")


async def expire_confirmations(database: Database) -> int:
    """Remove questions that can no longer be answered. They are kept for a day. Returns how many were removed."""

    async def forget(session: AsyncSession, rows: Sequence[Ended]) -> None:
        key = tuple_(col(Confirmation.owner_id), col(Confirmation.id))
        await session.execute(delete(Confirmation).where(key.in_(_keys(rows))))

    return await remove_over(database, "expired_confirmations", 24, forget, "confirmations.expired")


def _keys(rows: Sequence[Ended]) -> Sequence[tuple[UUID, UUID]]:
    return [(row.owner_id, row.id) for row in rows]
