"""What is removed of callers when its time is over."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import delete, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from agent_server.calls.confirmations import Confirmation
from agent_server.conversations.models import Conversation
from agent_server.db import Database, Swept, remove_swept
from agent_server.identity.models import Guest, Login, Profile
from agent_server.turns.models import Turn

GUEST_GRACE_HOURS = 24
"""How long a guest's conversations outlive the session, for one who is about to come back."""


async def expire_guests(database: Database) -> int:
    """Remove guests whose sessions are over. Their conversations and profiles go too. Returns how many guests those
    were."""
    return await remove_swept(database, "expired_guests", GUEST_GRACE_HOURS, _forget_guests, "guests.expired")


async def expire_logins(database: Database) -> int:
    """Remove what is left of users' logins that are over. Returns how many."""

    async def forget(session: AsyncSession, rows: Sequence[Swept]) -> None:
        await session.execute(delete(Login).where(tuple_(col(Login.owner_id), col(Login.id)).in_(_keys(rows))))

    return await remove_swept(database, "expired_logins", 0, forget, "logins.expired")


async def expire_confirmations(database: Database) -> int:
    """Remove questions that can no longer be answered. They are kept for a day. Returns how many were removed."""

    async def forget(session: AsyncSession, rows: Sequence[Swept]) -> None:
        key = tuple_(col(Confirmation.owner_id), col(Confirmation.id))
        await session.execute(delete(Confirmation).where(key.in_(_keys(rows))))

    return await remove_swept(database, "expired_confirmations", 24, forget, "confirmations.expired")


async def _forget_guests(session: AsyncSession, rows: Sequence[Swept]) -> None:
    guests = [row.owner_id for row in rows]
    # A turn before its conversation, as whoever ends a turn takes the two.
    await session.execute(delete(Turn).where(col(Turn.owner_id).in_(guests)))
    await session.execute(delete(Conversation).where(col(Conversation.owner_id).in_(guests)))
    await session.execute(delete(Profile).where(col(Profile.owner_id).in_(guests)))
    await session.execute(delete(Guest).where(col(Guest.id).in_(guests)))


def _keys(rows: Sequence[Swept]) -> Sequence[tuple[UUID, UUID]]:
    return [(row.owner_id, row.id) for row in rows]
