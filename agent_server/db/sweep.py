"""The one look across owners. It finds what is due and shows nothing but ids.

The function `sweep` of the database (migrations/engine) is owned by a role that may read no more than it needs. What is
then done with a row is done for its owner, in a transaction that names it.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

What = Literal["claimable", "left", "held", "prunable", "expired_guests", "expired_logins", "expired_confirmations"]
"""Turns that nobody runs, with False for `certain` where only the lock says so: a replica whose connection was cut takes
a moment to say that it lives; turns that nobody has followed for as long as their senders asked to be waited for; turns
that are a replica's; turns that ended so many seconds ago and have their events still; guests, logins and questions that
expired so many seconds ago."""

_SWEEP = text("select * from sweep(:what, :replica, :seconds, :batch)")


class Swept(NamedTuple):
    """A row to look after. `epoch` is a turn's."""

    owner_id: UUID
    id: UUID
    epoch: int
    certain: bool


async def sweep(
    session: AsyncSession, what: What, *, replica: UUID | None = None, seconds: float = 0, batch: int = 32
) -> Sequence[Swept]:
    """Find up to `batch` rows. Of those that a replica holds it finds all."""
    values = {"what": what, "replica": replica, "seconds": seconds, "batch": batch}
    return [Swept(*row) for row in await session.execute(_SWEEP, values)]
