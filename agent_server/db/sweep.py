"""The one look across owners. It finds what is due and shows nothing but ids.

The function `sweep` of the database (migrations/engine) is owned by a role that may read no more than it needs. What is
then done with a row is done for its owner, in a transaction that names it.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, NamedTuple
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from agent_server.db.database import Database
from agent_server.db.executor import Executor

log = structlog.get_logger()

What = Literal[
    "claimable",
    "left",
    "held",
    "prunable",
    "prunable_calls",
    "expired_guests",
    "expired_logins",
    "expired_confirmations",
]
"""Turns that nobody runs, with False for `certain` where only the lock says so: a replica whose connection was cut takes
a moment to say that it lives; turns that nobody has followed for as long as their senders asked to be waited for; turns
that are a replica's; turns that ended so many seconds ago and have their events still, or their calls; guests, logins and questions that
expired so many seconds ago."""

BATCH = 200
"""Rows that are removed in one transaction."""

_SWEEP = text("select * from sweep(:what, :replica, :seconds, :batch)")


class Swept(NamedTuple):
    """A row to look after. `epoch` is a turn's."""

    owner_id: UUID
    id: UUID
    epoch: int
    certain: bool


async def sweep(
    session: Executor, what: What, *, replica: UUID | None = None, seconds: float = 0, batch: int = 32
) -> Sequence[Swept]:
    """Find up to `batch` rows. Of those that a replica holds it finds all."""
    values = {"what": what, "replica": replica, "seconds": seconds, "batch": batch}
    return [Swept(*row) for row in await session.execute(_SWEEP, values)]


_OPEN_TURNS = text("""
    select true as free, s.* from sweep('claimable', :replica, :seconds, :batch) s where :has_room
    union all select false, s.* from sweep('left', :replica, 0, :batch) s""")


async def sweep_turns(
    database: Database, *, has_room: bool, seconds: float, batch: int
) -> tuple[Sequence[Swept], Sequence[Swept]]:
    """Find turns that nobody runs where there is room for them, and those that nobody follows, in one statement."""
    values = {"replica": None, "seconds": seconds, "batch": batch, "has_room": has_room}
    found = await database.single(_OPEN_TURNS, values)
    return tuple([Swept(*row[1:]) for row in found if row[0] is free] for free in (True, False))  # type: ignore[return-value]


async def sweep_held(database: Database, replica: UUID) -> Sequence[Swept]:
    """Find all turns that are a replica's."""
    values = {"what": "held", "replica": replica, "seconds": 0, "batch": 32}
    return [Swept(*row) for row in await database.single(_SWEEP, values)]


Remove = Callable[[AsyncSession, Sequence[Swept]], Awaitable[None]]
"""Removes what hangs on rows that a sweep has found, in a transaction for their owners."""


async def remove_swept(database: Database, what: What, hours: int, remove: Remove, event: str) -> int:
    """Remove all that has been over for so many hours. Logs it as `event`. Returns how many rows there were."""
    removed = 0
    while True:
        # The look is for no owner, the removal for those that it finds: each is a transaction of its own.
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
