"""The looks across owners. They find what is due and show nothing but ids, and since when something is over.

The functions `sweep` and `find_over` of the database (migrations/engine) are owned by a role that may read no more than
it needs. What is then done with a row is done for its owner, in a transaction that names it.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Literal, NamedTuple
from uuid import UUID

import structlog
from sqlalchemy import DateTime, bindparam, text
from sqlalchemy.ext.asyncio import AsyncSession

from agent_server.db.database import Database
from agent_server.db.executor import Executor

log = structlog.get_logger()

What = Literal["claimable", "left", "held", "expired_guests"]
"""Turns that nobody runs, with False for `certain` where only the lock says so: a replica whose connection was cut takes
a moment to say that it lives; turns that nobody has followed for as long as their senders asked to be waited for; turns
that are a replica's; guests that expired so many seconds ago."""

Over = Literal["prunable", "prunable_calls", "expired_logins", "expired_confirmations"]
"""Turns that ended so many seconds ago and have their events still, or their calls; logins and questions that expired so
many seconds ago."""

BATCH = 200
"""Rows that are removed in one transaction."""

_SWEEP = text("select * from sweep(:what, :replica, :seconds, :batch)")
_OVER = text("select * from find_over(:what, :seconds, :since, :batch)").bindparams(
    bindparam("since", type_=DateTime(timezone=True))
)
_ANY_TIME = datetime(1, 1, 2, tzinfo=UTC)


class Swept(NamedTuple):
    """A row to look after. `epoch` is a turn's."""

    owner_id: UUID
    id: UUID
    epoch: int
    certain: bool


class Ended(NamedTuple):
    """A row whose time is over, since `at`."""

    owner_id: UUID
    id: UUID
    at: datetime


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


Remove = Callable[[AsyncSession, Sequence[Ended]], Awaitable[None]]
"""Removes what hangs on rows that a look has found, in a transaction for their owners."""


async def remove_over(database: Database, what: Over, hours: int, remove: Remove, event: str) -> int:
    """Remove all that has been over for so many hours, the oldest first. Logs it as `event`. Returns how many rows there
    were."""
    removed, since = 0, _ANY_TIME
    while True:
        # The look is for no owner, the removal for those that it finds: each is a transaction of its own.
        async with database.transaction() as session:
            values = {"what": what, "seconds": hours * 3600, "since": since, "batch": BATCH}
            rows = [Ended(*row) for row in await session.execute(_OVER, values)]
        if rows:
            async with database.transaction(*{row.owner_id for row in rows}) as session:
                await remove(session, rows)
        removed += len(rows)
        if len(rows) < BATCH:
            break
        # From there on: a look from the start would read again, in the index, all that was removed before. What another
        # replica had locked is found the next time.
        since = rows[-1].at
    if removed:
        log.info(event, count=removed)
    return removed
