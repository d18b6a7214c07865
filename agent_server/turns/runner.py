"""The turns that this process runs. Each has a task that belongs to no socket, in one of so many slots."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, assert_never
from uuid import UUID

import structlog

from agent_server.changes import Changes
from agent_server.conversations.ids import CONVERSATION
from agent_server.db import Database
from agent_server.db.sleep import Sleep
from agent_server.errors import Unavailable
from agent_server.heartbeat import ALONE_SECONDS, BEAT_SECONDS
from agent_server.signals import TurnGrew, TurnStopped, WorkWaits
from agent_server.turns.accept import Accepted
from agent_server.turns.attempt import Attempts, Renew, Run
from agent_server.turns.claims import Claims, find_open, mark_stopped
from agent_server.turns.hub import Hub
from agent_server.turns.models import Turn
from agent_server.turns.places import Place, Places
from agent_server.turns.repeat import repeat
from agent_server.turns.replica import Replica

log = structlog.get_logger()

# How soon another replica goes on with the turns of a dead one. A look costs an idle server almost nothing.
SWEEP_SECONDS = 0.25
WATCH_SECONDS = 1.0
"""The same where there is no other replica and no turn waits here: for turns that nobody follows any more."""
IDLE_SECONDS = 4.0
"""The longest where no turn runs either: a look comes when as long again has gone by as since the last turn."""
LIVELY_SECONDS = 8.0
"""How long after the last turn, or its start, a replica is not idle: there may be turns of one that died."""
SECOND_LOOK_SECONDS = 0.1
"""How soon a replica whose lock is free, with a fresh heartbeat, is looked at again before its turns are taken."""


class Runner:
    """Runs up to `slots` turns that `replica` holds, and has up to `waiting` more wait (None: any number).

    Without `renew` a turn that has waited keeps what its sender could.
    """

    def __init__(
        self,
        database: Database,
        replica: Replica,
        hub: Hub,
        run: Run,
        *,
        renew: Renew | None = None,
        slots: int = 64,
        waiting: int | None = None,
        turn_timeout: float = 300.0,
        sleep: Sleep | None = None,
        changes: Changes | None = None,
    ) -> None:
        self.replica = replica
        self._changes = changes or Changes()
        self._sleep = sleep or Sleep()
        self._database, self._hub = database, hub
        self._places = Places(slots=slots, waiting=waiting)
        self._tasks: dict[UUID, asyncio.Task[None]] = {}
        self._given_up: set[UUID] = set()
        self._claims = Claims(database, replica.id)
        self._attempts = Attempts(
            database=database,
            hub=hub,
            claims=self._claims,
            run=run,
            renew=renew,
            turn_timeout=turn_timeout,
            given_up=self._given_up,
            format=lambda: replica.format,
            is_alone=lambda: len(self._tasks) < 2,
        )
        self._background: set[asyncio.Task[None]] = set()
        self._sleeper: asyncio.Task[None] | None = None
        self._freed, self._hurry, self._busy = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._drained: asyncio.Task[None] | None = None
        self._active = time.monotonic()

    @property
    def closing(self) -> bool:
        """Whether this process takes no more turns."""
        return self._drained is not None

    async def start(self) -> None:
        """Announce this replica and sweep until `close`. Raises Unavailable."""
        await self._get_up()
        self._sleeper = asyncio.create_task(self._sleep.run(self._has_work, self._lie_down, self._get_up))

    def _has_work(self) -> bool:
        return bool(self._tasks or self._places.waiting)

    async def _lie_down(self) -> None:
        await self._stop_background()
        await self.replica.close()
        await self._database.close()

    async def _get_up(self) -> None:
        try:
            await self.replica.start()
        except Unavailable:
            await self.replica.close()
            raise
        self._freed.set()  # the first sweep is at once
        self._background = {
            asyncio.create_task(repeat(self._pace, partial(self._awake, self._sweep), self._freed)),
            asyncio.create_task(repeat(self._pace_of_lost, partial(self._awake, self._release_lost), asyncio.Event())),
            asyncio.create_task(
                repeat(lambda: BEAT_SECONDS, partial(self._awake, self._forget_begun), asyncio.Event())
            ),
            asyncio.create_task(self._listen()),
            asyncio.create_task(self._watch()),
        }

    async def _awake(self, work: Callable[[], Awaitable[None]]) -> None:
        # Whoever is cut off within a statement may leave its connection open for a while.
        with self._sleep.hold():
            await work()

    async def drain(self, seconds: float) -> None:
        """Take no more turns and wait so long for those that run here. Then the rest is handed over at once and the
        streams are ended.

        A second call with 0 cuts the waiting of the first short.
        """
        if seconds <= 0:
            self._hurry.set()
        if self._drained is None:
            self._drained = asyncio.create_task(self._drain(seconds))
        # Another call may wait for it, too; and who is cancelled must not break the handing over off.
        await asyncio.shield(self._drained)

    async def close(self) -> None:
        """Let go at once of what still runs. Nothing of it is lost."""
        await self.drain(0)
        # Only now: hints, heartbeat and self-stop go on until every turn is handed over.
        if self._sleeper is not None:
            self._sleeper.cancel()
            await asyncio.gather(self._sleeper, return_exceptions=True)
        await self._stop_background()
        await self.replica.close()

    async def _stop_background(self) -> None:
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        self._background = set()

    async def _drain(self, seconds: float) -> None:
        hurry = asyncio.create_task(self._hurry.wait())
        deadline = time.monotonic() + seconds
        while self._tasks and not hurry.done() and (left := deadline - time.monotonic()) > 0:
            await asyncio.wait({hurry, *self._tasks.values()}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        # Copies, because a task that ends takes itself out of `_tasks`.
        tasks = list(self._tasks.values())
        self._give_up(set(self._tasks))
        await asyncio.gather(*tasks, return_exceptions=True)
        # Others find the turns of a process that has ended in any case; this is only sooner.
        with contextlib.suppress(Unavailable):
            await self._claims.release_all()
        self.replica.send(WorkWaits())
        # Last, so that followers get the ends that were written while it drained.
        self._hub.close()
        self._changes.close()

    def check_room(self) -> None:
        """Raises Unavailable where this process takes on no turn."""
        self._places.check_room()

    @contextlib.contextmanager
    def arriving(self, owner_id: UUID, most: int | None = None, at_once: int | None = None) -> Iterator[Place]:
        """Have a place ready for a turn of this owner's while it is stored; `take_up` is told of it then. At most
        `at_once` of the owner's run.

        Raises TooMany where `most` of the owner's run or wait here (None: any number), and Unavailable as `check_room`.
        """
        self._active = time.monotonic()
        place = self._places.arrive(owner_id, most=most, may_run=not self.closing, at_once=at_once)
        try:
            yield place
        finally:
            if place.turn_id not in self._tasks and place.turn_id not in self._places.waiting:
                self._places.leave(place.turn_id)
                if place.has_slot and self._places.in_line:
                    self._freed.set()

    def take_up(self, place: Place, accepted: Accepted) -> None:
        """Run a turn that was accepted, or have it wait, and stop what it interrupts."""
        if accepted.interrupted is not None:
            self.announce_stop(accepted.interrupted)
        # A request that was sent again is not fresh: its turn runs already, here or on another replica.
        if accepted.fresh and accepted.turn.owner == self.replica.id:
            self.begin(accepted.turn, accepted.recalled)
        elif accepted.fresh:
            self._places.wait(place, behind_own=accepted.behind_own)
            self.replica.send(WorkWaits())
            # Where it cannot begin here, the end of a turn here has the next look made.
            if self._places.may_begin(place, accepted.turn.at_once):
                self._freed.set()
        elif accepted.turn.status == "running":  # the message may have been put into it
            self._hub.mark_grown(accepted.turn.id)
            self.replica.send(TurnGrew(accepted.turn.id))
        self._tell_watchers(accepted.turn.conversation_id)

    def begin(self, turn: Turn, recalled: Any = None) -> None:
        """Run a turn that this replica owns. It has a task of its own. `recalled` was read as it was accepted."""
        # A turn that is not begun here is not lost: `release_all`, `release_lost` or another's sweep finds it.
        if self.closing or turn.id in self._tasks:
            return
        self._places.run(turn.id, turn.owner_id)
        if turn.last_event == 0:
            self._hub.begin(turn.owner_id, turn.id, watched=turn.leave_after is not None)
        task = asyncio.create_task(self._attempt(turn, recalled), name=f"turn {turn.id}")
        self._tasks[turn.id] = task
        self._busy.set()
        # A callback, and no `finally` in the task: one that is cancelled before it has begun never gets there.
        task.add_done_callback(partial(self._free_slot, turn.id))

    async def _attempt(self, turn: Turn, recalled: Any) -> None:
        if await self._attempts.make(turn, recalled):
            self.announce_work()
        self._tell_watchers(turn.conversation_id)

    def _tell_watchers(self, conversation_id: UUID) -> None:
        self._changes.announce(CONVERSATION + str(conversation_id))

    def _free_slot(self, turn_id: UUID, _: asyncio.Task[None]) -> None:
        del self._tasks[turn_id]
        if not self._tasks:
            self._busy.clear()
        self._given_up.discard(turn_id)
        was_full = not self._places.free_slots
        self._places.end(turn_id)
        self._hub.end(turn_id)
        self._active = time.monotonic()
        # What waited behind it, or for a slot, need not wait for the next sweep; a full one does not look for what waits.
        if was_full or self._places.waiting:
            self._freed.set()

    def announce_work(self) -> None:
        """Say that a turn waits for whoever has room for it."""
        self._freed.set()
        self.replica.send(WorkWaits())

    async def stop_turn(self, owner_id: UUID, turn_id: UUID) -> None:
        """Cancel a turn wherever it runs. One that is queued never starts."""
        # The row first: a hint may be lost, and then the next write of the attempt notices the stop.
        await mark_stopped(self._database, owner_id, turn_id)
        self._hub.mark_grown(turn_id)
        # A turn that waited has its last event by now, and no writer that publishes it.
        self.announce_stop(turn_id)
        self.replica.send(TurnGrew(turn_id))

    async def stop_all(self, owner_id: UUID) -> None:
        """Cancel all turns of one owner."""
        for turn_id in await find_open(self._database, owner_id):
            await self.stop_turn(owner_id, turn_id)

    def announce_stop(self, turn_id: UUID) -> None:
        """Stop a turn whose row says that it is to stop."""
        self._stop_here(turn_id)
        self.replica.send(TurnStopped(turn_id))

    def _stop_here(self, turn_id: UUID) -> None:
        task = self._tasks.get(turn_id)
        if task and not task.cancelling():  # a second stop must not break off the writing of the first
            task.cancel()

    def _give_up(self, turns: set[UUID]) -> None:
        """Cancel attempts so that another replica goes on with their turns."""
        self._given_up |= turns
        for turn_id in turns:
            self._tasks[turn_id].cancel()

    @property
    def _is_idle(self) -> bool:
        return not self._tasks and time.monotonic() - self._active > LIVELY_SECONDS

    def _pace(self) -> float:
        """Seconds until the next sweep that nothing asks for."""
        if not self.replica.is_alone or self._places.waiting:
            return SWEEP_SECONDS
        if self._tasks:
            return WATCH_SECONDS
        return min(max(time.monotonic() - self._active, WATCH_SECONDS), IDLE_SECONDS)

    def _pace_of_lost(self) -> float:
        """Seconds until the next look for turns that are this replica's and do not run."""
        # Twice before this replica is idle, at the least: only the second look lets go of what the first has found.
        return BEAT_SECONDS if self._tasks or not self.replica.is_alone else ALONE_SECONDS

    async def _sweep(self) -> None:
        # Who may be taken for dead must not claim: others would take the turns away again.
        if self.closing or self.replica.is_silent:
            return
        room, in_line = self._places.free_slots, self._places.in_line
        found = await self._claims.find(has_room=room > 0, running=self._places.with_slot)
        if len(found.free) < room and not found.more:
            self._places.clear_line(in_line)
        if found.suspects:
            asyncio.get_running_loop().call_later(SECOND_LOOK_SECONDS, self._freed.set)
        # All are claimed before any is begun: their work would hold up the claims behind it. Their slots are kept
        # meanwhile, or others that arrive would be begun in them.
        chosen = found.free[: self._places.free_slots]
        for free in chosen:
            self._places.run(free.id, free.owner_id)
        try:
            claimed, errors = await self._claims.claim(chosen)
            for turn in claimed:
                self.begin(turn)
        finally:
            for free in chosen:
                if free.id not in self._tasks:
                    self._places.leave(free.id)
        # Only after what was claimed is begun: its row says that this replica runs it.
        if errors:
            raise errors[0]
        for left in found.left:
            log.info("turn.left", turn_id=str(left.id))
            await self.stop_turn(left.owner_id, left.id)

    async def _release_lost(self) -> None:
        if not self._is_idle and await self._claims.release_lost(self._places.with_slot):
            self.announce_work()

    async def _forget_begun(self) -> None:
        """Give up the places of turns that another replica has begun, or that were stopped."""
        if waiting := self._places.waiting:
            self._places.stop_waiting(await self._claims.find_begun(waiting))

    async def _listen(self) -> None:
        """Do what the hints of other replicas ask for."""
        while True:
            match hint := await self.replica.signals.received.get():
                case TurnGrew(turn_id):
                    self._hub.mark_grown(turn_id)
                case TurnStopped(turn_id):
                    self._stop_here(turn_id)
                case WorkWaits():
                    self._freed.set()
                case _:
                    assert_never(hint)

    async def _watch(self) -> None:
        """Stop the runs of a process that cannot say that it lives. It must be before others take them for a dead
        one's."""
        while True:
            await self._busy.wait()
            # Between STOP_AFTER and DEAD_AFTER is one second; the look must fall well within it.
            await asyncio.sleep(BEAT_SECONDS / 4)
            if self.replica.is_silent and (running := self._tasks.keys() - self._given_up):
                log.warning("replica.silent", turns=len(running))
                self._give_up(running)
