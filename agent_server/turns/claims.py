"""How a replica claims turns and lets go of them.

A turn that is queued behind nothing, was let go at a shutdown, or belongs to a dead replica (`heartbeat`) is claimed by
compare-and-set on its epoch. A replica that is taken for dead and is not, because it was frozen, finds the epoch of its
turn gone at its next write.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlmodel import select

from agent_server.db import Database, Executor
from agent_server.db.sweep import Swept, sweep_held, sweep_turns
from agent_server.heartbeat import DEAD_AFTER
from agent_server.turns.models import Turn

log = structlog.get_logger()

MOST_FOUND = 32
"""Turns to be claimed that one look finds."""

# Of several that begin turns of one owner at once, each must see those that the others have begun. Rows are locked
# before the owner, here as in `accept`: who waits for a row holds up nobody.
_LOCK_OWNER = text("select pg_advisory_xact_lock(hashtextextended('turns of ' || :owner, 0))")
_LOCK_TURN = text("""
    with held as (select id from turn where owner_id = :owner_id and id = :id for update)
    select pg_advisory_xact_lock(hashtextextended('turns of ' || :owner, 0)) from held""")
# The `not exists` spares an error in most cases. What decides is the index `uq_turn_one_running`.
# A turn that is taken over runs already: it counts once.
_CLAIM = text("""
    update turn t set status = 'running', owner = :me, epoch = epoch + 1, attempts = attempts + 1
    where owner_id = :owner_id and id = :id and epoch = :epoch and status in ('queued', 'running')
      and not exists (select from turn b where b.owner_id = t.owner_id and b.conversation_id = t.conversation_id
                      and b.status = 'running' and b.id <> t.id)
      and (status = 'running' or at_once is null or at_once > (
          select count(*) from turn r where r.owner_id = t.owner_id and r.status = 'running'))
    returning t.*""")

# What was let go in good order does not count as an attempt that failed, nor what a restart of the database broke off,
# nor what it had no room for.
_RELEASE_ALL = text("""
    update turn set owner = null, attempts = greatest(attempts - 1, 0)
    where owner_id = any(cast(:owners as uuid[])) and owner = :me and status = 'running'""")
_RELEASE = text("""
    update turn set owner = null,
        attempts = attempts - (:full or pg_postmaster_start_time() > now() - :seconds * interval '1 second')::int
    where owner_id = :owner_id and id = :id and owner = :me and epoch = :epoch and status = 'running'""")
_STOP_RUNNING = text("""
    update turn set cancel = true where owner_id = :owner_id and id = :id and status = 'running'""")
_STOP_QUEUED = text("""
    with stopped as (
        update turn set status = 'cancelled', cancel = true, finished_at = now(), last_event = last_event + 1
        where owner_id = :owner_id and id = :id and status = 'queued' returning owner_id, id, last_event)
    insert into event (owner_id, turn_id, seq, kind, body, at)
    select owner_id, id, last_event, 'cancelled', '{}', now() from stopped""")

_QUEUED = text("""
    select id from turn
    where owner_id = any(cast(:owners as uuid[])) and id = any(cast(:ids as uuid[])) and status = 'queued'""")

# The last one first: none that waits is begun because the one before it is stopped.
_OPEN = text("""
    select id from turn where owner_id = :owner_id and status in ('queued', 'running')
    order by conversation_id, turn_no desc""")


@dataclass(frozen=True, kw_only=True)
class Found:
    """Turns that a sweep has found. `free` are to be claimed, `left` are to be stopped because nobody follows them.

    With `suspects` there are others, of a replica whose lock is free and whose heartbeat is fresh: look again soon.
    `more` says that there may be others that are free.
    """

    free: Sequence[Swept]
    left: Sequence[Swept]
    suspects: bool
    more: bool


class Claims:
    """The turns that are one replica's by their rows. `running` is in each method what the replica is at work on."""

    def __init__(self, database: Database, replica: UUID) -> None:
        self._database, self._replica = database, replica
        self._suspected: set[tuple[UUID, int]] = set()
        self._unattended: set[UUID] = set()

    async def find(self, *, has_room: bool, running: Collection[UUID]) -> Found:
        """Look for turns that nobody runs and for those that nobody follows. The former are looked for where the
        replica has room."""
        candidates, left = await sweep_turns(self._database, has_room=has_room, seconds=DEAD_AFTER, batch=MOST_FOUND)
        # Two looks in a row must find a replica's lock free: where only its connection was cut it takes the lock anew.
        before, self._suspected = self._suspected, {(turn.id, turn.epoch) for turn in candidates if not turn.certain}
        free = [
            # The sweep finds this replica's own turns as well while its connection is cut.
            turn
            for turn in candidates
            if turn.id not in running and (turn.certain or (turn.id, turn.epoch) in before)
        ]
        return Found(free=free, left=left, suspects=bool(self._suspected - before), more=len(candidates) == MOST_FOUND)

    async def claim(self, turns: Sequence[Swept]) -> tuple[Sequence[Turn], Sequence[BaseException]]:
        """Make turns this replica's. Returns those that it got, and what went wrong with others."""
        # What was claimed is committed, and must be run although another claim failed.
        results = await asyncio.gather(*map(self._claim_one, turns), return_exceptions=True)
        claimed = [turn for turn in results if isinstance(turn, Turn)]
        for turn in claimed:
            log.info("turn.claimed", turn_id=str(turn.id), attempt=turn.attempts)
        return claimed, [error for error in results if isinstance(error, BaseException)]

    async def _claim_one(self, turn: Swept) -> Turn | None:
        try:
            async with self._database.transaction(turn.owner_id) as session:
                key = {"owner_id": turn.owner_id, "id": turn.id}
                await session.execute(_LOCK_TURN, {**key, "owner": str(turn.owner_id)})
                claim = {**key, "me": self._replica, "epoch": turn.epoch}
                return (await session.execute(select(Turn).from_statement(_CLAIM), claim)).scalar_one_or_none()
        except IntegrityError:  # another replica started another turn of this conversation in the same instant
            return None

    async def release(self, owner_id: UUID, id: UUID, epoch: int, *, seconds: float, full: bool = False) -> None:
        """Leave a turn that this replica has held for so many seconds to whoever has room for it.

        `full` says that the database had no room for what was to be written.
        """
        values = {"owner_id": owner_id, "id": id, "me": self._replica, "epoch": epoch, "seconds": seconds, "full": full}
        async with self._database.quick(owner_id) as session:
            await session.execute(_RELEASE, values)

    async def release_lost(self, running: Collection[UUID]) -> bool:
        """Let go of turns that are this replica's by their rows and that it does not run. Returns whether there are any.

        Such a turn is left where the answer to a commit was lost with the connection: accepted or claimed, not begun;
        interrupted, not let go.
        """
        # Two looks in a row must find it: a turn is accepted a moment before it is begun.
        held = {turn.id: turn for turn in await self._find_held()}
        before, self._unattended = self._unattended, held.keys() - set(running)
        lost = [held[id] for id in before & self._unattended]
        for turn in lost:
            log.warning("turn.lost", turn_id=str(turn.id))
            # How long the turn was held is not known here.
            await self.release(turn.owner_id, turn.id, turn.epoch, seconds=DEAD_AFTER)
        return bool(lost)

    async def release_all(self) -> None:
        """Let go of all turns of this replica's. They have not failed."""
        if held := await self._find_held():
            # Row-level security hides the rows of owners that the transaction does not name.
            owners = {turn.owner_id for turn in held}
            async with self._database.quick(*owners) as session:
                await session.execute(_RELEASE_ALL, {"me": self._replica, "owners": list(owners)})

    async def find_begun(self, waiting: Mapping[UUID, UUID]) -> Set[UUID]:
        """Those of the turns (with their owners) that do not wait any more."""
        owners = set(waiting.values())
        async with self._database.quick(*owners) as session:
            queued = await session.execute(_QUEUED, {"owners": list(owners), "ids": list(waiting)})
            return waiting.keys() - set(queued.scalars())

    async def _find_held(self) -> Sequence[Swept]:
        return await sweep_held(self._database, self._replica)


async def lock_owner(session: Executor, owner_id: UUID) -> None:
    """Have nobody else begin a turn of this owner until the transaction ends."""
    await session.execute(_LOCK_OWNER, {"owner": str(owner_id)})


async def mark_stopped(database: Database, owner_id: UUID, turn_id: UUID) -> None:
    """End a turn that waits in the queue. Whoever runs a turn that runs is asked to stop it."""
    async with database.quick(owner_id) as session:
        # In this order: a turn that is claimed between the two is still stopped by the second.
        for statement in (_STOP_QUEUED, _STOP_RUNNING):
            await session.execute(statement, {"owner_id": owner_id, "id": turn_id})


async def find_open(database: Database, owner_id: UUID) -> Sequence[UUID]:
    """The turns of an owner that have not ended. In each conversation the last one is first."""
    async with database.quick(owner_id) as session:
        return (await session.execute(_OPEN, {"owner_id": owner_id})).scalars().all()
