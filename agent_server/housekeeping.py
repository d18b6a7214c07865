"""What is removed of callers when its time is over."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Column, ColumnElement, Table, delete, func, literal, tuple_
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import SQLModel, col, select

from agent_server.calls.confirmations import Confirmation
from agent_server.db import OWN_DATA, PURGE, SYSTEM, Database
from agent_server.db.isolation import row_policy_of
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


async def purge_deleted(database: Database, days: int) -> int:
    """Remove the rows of all `SoftDeleted` tables that were deleted more than so many days ago. One that others refer to
    stays. Returns how many were removed."""
    removed = 0
    # Children first: what refers to a row may be deleted as well.
    for table in reversed(SQLModel.metadata.sorted_tables):
        if (policy := row_policy_of(table)) is not None and policy.soft_deleted:
            removed += await _purge(database, table, table.c[policy.column], func.now() - timedelta(days=days))
    if removed:
        log.info("deleted.purged", count=removed)
    return removed


async def _purge(database: Database, table: Table, owner: Column[UUID], before: ColumnElement[datetime]) -> int:
    removed, place = 0, tuple_(table.c.deleted_at, owner, table.c.id)
    found = select(*place.clauses).where(table.c.deleted_at < before).order_by(*place.clauses).limit(BATCH)
    rows: Sequence[Any] = ()
    while True:
        # From the last one on: those that stay are not found again.
        statement = found.where(place > tuple_(*map(literal, rows[-1]))) if rows else found
        async with database.transaction(scopes=(PURGE,)) as session:
            rows = (await session.execute(statement)).all()
        for deleted_at, owner_id, id in rows:
            # It may have been restored meanwhile.
            own = (owner == owner_id, table.c.id == id, table.c.deleted_at == deleted_at)
            try:
                async with database.transaction(owner_id, scopes=(OWN_DATA,)) as session:
                    gone = await session.execute(delete(table).where(*own).returning(table.c.id))
                    removed += len(gone.all())
            except IntegrityError:
                log.info("deleted.kept", table=table.name, id=str(id))
        if len(rows) < BATCH:
            return removed
