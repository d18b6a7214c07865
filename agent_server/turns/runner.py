"""Running turns: a task per turn that belongs to no socket, leases, and what is done with turns nobody runs.

Turns that are queued behind nothing, that were let go at a shutdown, or whose replica is dead (`liveness`) are claimed
by compare-and-set on the epoch. Whoever is taken for dead and is not, a process that was frozen, say, finds its epoch
gone at its next write; one that cannot say that it lives stops its own runs before the others take them.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy.exc import IntegrityError
from sqlmodel import select

from agent_server.caller import Caller
from agent_server.conversations.items import assistant_message
from agent_server.db import Database, Swept, is_full, new_id, sweep
from agent_server.errors import AgentServerError, Internal, TimedOut, Unavailable
from agent_server.log import without_secrets
from agent_server.turns.events import Cancelled, Done, Event, Failed
from agent_server.turns.hub import Hub
from agent_server.turns.journal import Fenced, Journal, StopRequested
from agent_server.turns.leases import CLAIM, FORGET, RELEASE, RELEASE_ONE, STOP_QUEUED, STOP_RUNNING
from agent_server.turns.liveness import DEAD_AFTER
from agent_server.turns.models import Status, Turn
from agent_server.turns.signals import Listener, Signals

log = structlog.get_logger()

BEAT_SECONDS = 1.0
SWEEP_SECONDS = 0.25
SECOND_LOOK_SECONDS = 0.1
"""How soon a replica whose lock is free, with a fresh heartbeat, is looked at again before its turns are taken."""
STOP_AFTER = DEAD_AFTER - 1.0
"""Seconds without a heartbeat after which a replica stops its own runs: before the others take it for dead."""
MAX_ATTEMPTS = 5
PAUSE_SECONDS = 5.0
"""How long a turn is left alone for which the database had no room, or this process no connection."""


@dataclass
class Outcome:
    """How an attempt ended: the specialist that answered, and what the models used."""

    agent: str | None = None
    usage: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One attempt of one turn: what the `run` function is given. `number` counts the attempts that were not let go in
    good order, `resumed` says whether an earlier one left something in the log."""

    journal: Journal
    caller: Caller
    message: str
    agent: str | None
    number: int
    resumed: bool


Run = Callable[[Attempt], Awaitable[Outcome]]


class Runner:
    """Runs the turns that this replica holds, up to `slots` at once."""

    def __init__(self, database: Database, hub: Hub, run: Run, *, slots: int = 64, turn_timeout: float = 300.0) -> None:
        self.replica = new_id()
        self._database, self._hub, self._run = database, hub, run
        self._slots, self._turn_timeout = slots, turn_timeout
        listener = Listener(grown=hub.grown, stopped=self._stop_here, work=lambda: self._freed.set())
        self._signals = Signals(database, self.replica, listener, changed=lambda: self._beat_due.set())
        hub.announce = self._signals.turn_grew
        self._tasks: dict[UUID, asyncio.Task[None]] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._lost: set[UUID] = set()
        self._suspected: set[tuple[UUID, int]] = set()
        self._given_up: set[UUID] = set()
        self._beaten = time.monotonic()
        self._freed, self._beat_due, self._hurry = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._drained: asyncio.Task[None] | None = None

    @property
    def closing(self) -> bool:
        """Whether this process takes no more turns."""
        return self._drained is not None

    @property
    def has_slot(self) -> bool:
        return not self.closing and len(self._tasks) < self._slots

    @property
    def _silent(self) -> bool:
        """Whether it is so long since this replica could say that it lives that others may take it for dead."""
        return time.monotonic() - self._beaten > STOP_AFTER

    async def start(self) -> None:
        """Announce this replica, then beat and sweep until `close`. Raises Unavailable."""
        await self._signals.start()
        await self._signals.beat()
        self._beaten = time.monotonic()
        self._freed.set()  # the first sweep is at once
        self._background = {
            asyncio.create_task(_every(BEAT_SECONDS, self._beat, self._beat_due)),
            asyncio.create_task(_every(SWEEP_SECONDS, self._sweep, self._freed)),
            asyncio.create_task(self._watch()),
        }

    async def drain(self, seconds: float) -> None:
        """Take no more turns, wait so long for those that run here, hand over the rest at once and end the streams.

        A second call with 0 cuts the waiting of the first short.
        """
        if seconds <= 0:
            self._hurry.set()
        if self._drained is None:
            self._drained = asyncio.create_task(self._drain(seconds))
        await asyncio.shield(self._drained)

    async def close(self) -> None:
        """Let go of what still runs, at once; nothing of it is lost."""
        await self.drain(0)
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        with contextlib.suppress(Unavailable):
            async with self._database.transaction() as session:
                await session.execute(FORGET, {"me": self.replica})
        await self._signals.close()

    async def _drain(self, seconds: float) -> None:
        hurry = asyncio.create_task(self._hurry.wait())
        deadline = time.monotonic() + seconds
        while self._tasks and not hurry.done() and (left := deadline - time.monotonic()) > 0:
            await asyncio.wait({hurry, *self._tasks.values()}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        self._given_up.update(self._tasks)
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(Unavailable):
            await self._release()
        self._signals.work_waits()
        self._hub.close()

    def begin(self, turn: Turn) -> None:
        """Run a turn that this replica owns, in a task of its own."""
        if self.closing or turn.id in self._tasks:
            return
        task = asyncio.create_task(self._attempt(turn), name=f"turn {turn.id}")
        self._tasks[turn.id] = task
        task.add_done_callback(lambda _: self._ended(turn.id))

    def queued(self) -> None:
        """A turn was accepted that waits for whoever has room for it."""
        self._freed.set()
        self._signals.work_waits()

    async def stop_turn(self, owner_id: UUID, turn_id: UUID) -> None:
        """Cancel a turn, wherever it runs; in the queue before it starts."""
        async with self._database.transaction(owner_id) as session:
            for statement in (STOP_QUEUED, STOP_RUNNING):
                await session.execute(statement, {"owner_id": owner_id, "id": turn_id})
        self._hub.grown(turn_id)
        self.interrupted(turn_id)
        self._signals.turn_grew(turn_id)

    def interrupted(self, turn_id: UUID) -> None:
        """A turn's row says that it is to stop."""
        self._stop_here(turn_id)
        self._signals.turn_stopped(turn_id)

    def _stop_here(self, turn_id: UUID) -> None:
        task = self._tasks.get(turn_id)
        if task and not task.cancelling():  # a second stop must not break off the writing of the first
            task.cancel()

    def _ended(self, turn_id: UUID) -> None:
        del self._tasks[turn_id]
        self._given_up.discard(turn_id)
        self._freed.set()  # what waited behind it, or for a slot, need not wait for the next sweep

    async def _attempt(self, turn: Turn) -> None:
        journal = Journal(
            self._database,
            self._hub,
            turn.owner_id,
            turn.conversation_id,
            turn.id,
            turn.turn_no,
            turn.epoch,
            turn.steers,
        )
        caller = Caller(
            id=turn.owner_id, kind=turn.input["caller"]["kind"], scopes=frozenset(turn.input["caller"]["scopes"])
        )
        structlog.contextvars.bind_contextvars(
            conversation_id=str(turn.conversation_id), turn_id=str(turn.id), caller=str(turn.owner_id)
        )
        attempt = Attempt(
            journal=journal,
            caller=caller,
            message=turn.input["message"],
            agent=turn.input.get("agent"),
            number=turn.attempts,
            resumed=turn.last_event > 0 or turn.attempts > 1,
        )
        began = time.monotonic()
        try:
            await self._to_the_end(attempt, turn)
        except Fenced:
            log.info("turn.fenced", epoch=turn.epoch)
        except Unavailable as error:
            # The turn stays `running` under this epoch: let it go, so that the sweep takes it up again.
            log.warning("turn.interrupted", reason="database unavailable")
            seconds = time.monotonic() - began
            while is_full(error):
                await asyncio.sleep(PAUSE_SECONDS)  # or a model would be asked again and again for what cannot be kept
                try:
                    return await self._let_go(turn.owner_id, turn.id, turn.epoch, seconds, full=True)
                except Unavailable as again:
                    error = again
            with contextlib.suppress(Unavailable):  # then `_beat` finds it, once the database is back
                await self._let_go(turn.owner_id, turn.id, turn.epoch, seconds)
        except Exception:  # its end could not be written: `_beat` finds it, and it is tried again up to MAX_ATTEMPTS
            log.exception("turn.unended")

    async def _to_the_end(self, attempt: Attempt, turn: Turn) -> None:
        journal = attempt.journal
        outcome = Outcome()
        try:
            if turn.attempts > MAX_ATTEMPTS:
                raise Internal(f"This turn was cut off {MAX_ATTEMPTS} times and", secrets.token_hex(6))
            if turn.cancel:
                raise StopRequested
            if attempt.resumed:
                await journal.load()
                await journal.reset_unfinished()
            outcome = await self._run_in_time(attempt)
            await self._finish(journal, "done", Done(outcome.agent, outcome.usage), outcome=outcome)
            log.info("turn.done", agent=outcome.agent)
        except StopRequested:
            await self._cancelled(journal)
        except asyncio.CancelledError:
            if turn.id in self._given_up:
                raise
            await self._cancelled(journal)
        except (Fenced, Unavailable):
            raise
        except AgentServerError as error:
            log.warning("turn.failed", code=error.code, reason=error.message)
            await self._failed(journal, error.code, error.message)
        except Exception:  # the one catch-all of a turn: a bug ends it with a reference, not with silence
            bug = Internal("The answer", secrets.token_hex(6))
            log.exception("turn.failed", code=bug.code, reference=bug.reference)
            await self._failed(journal, bug.code, bug.message)

    async def _run_in_time(self, attempt: Attempt) -> Outcome:
        deadline = asyncio.timeout(self._turn_timeout)
        try:
            async with deadline:
                return await self._run(attempt)
        except TimeoutError:
            if not deadline.expired():  # a bug of the run's own
                raise
            raise TimedOut(f"The answer took longer than {self._turn_timeout:g} seconds") from None

    async def _cancelled(self, journal: Journal) -> None:
        text = await journal.interrupted_text()
        items = [assistant_message(text)] if text else []
        await journal.finish("cancelled", Cancelled(), items=items)
        log.info("turn.cancelled")

    async def _failed(self, journal: Journal, code: str, message: str) -> None:
        message = without_secrets(message)
        await self._finish(journal, "failed", Failed(code, message), error={"code": code, "message": message})

    async def _finish(
        self,
        journal: Journal,
        status: Status,
        event: Event,
        *,
        outcome: Outcome | None = None,
        error: dict[str, Any] | None = None,
    ) -> None:
        agent, usage = (outcome.agent, outcome.usage) if outcome else (None, None)
        if await journal.finish(status, event, agent=agent, usage=usage, error=error):
            self.queued()

    async def _sweep(self) -> None:
        if self.closing or self._silent:
            return
        async with self._database.transaction() as session:
            candidates = await sweep(session, "claimable", seconds=DEAD_AFTER) if self.has_slot else []
            left = await sweep(session, "left")
        before, self._suspected = self._suspected, {(id, epoch) for _, id, epoch, certain in candidates if not certain}
        if self._suspected - before:
            asyncio.get_running_loop().call_later(SECOND_LOOK_SECONDS, self._freed.set)
        free = [
            (owner_id, id, epoch)
            for owner_id, id, epoch, certain in candidates
            if id not in self._tasks and (certain or (id, epoch) in before)
        ]
        # All are claimed before any is begun: their work would hold up the claims behind it.
        claims = (self._claim(*key) for key in free[: self._slots - len(self._tasks)])
        claimed = await asyncio.gather(*claims, return_exceptions=True)
        for turn in claimed:
            if isinstance(turn, Turn):
                log.info("turn.claimed", turn_id=str(turn.id), attempt=turn.attempts)
                self.begin(turn)
        if errors := [claim for claim in claimed if isinstance(claim, BaseException)]:
            raise errors[0]
        for owner_id, id, _, _ in left:
            log.info("turn.left", turn_id=str(id))
            await self.stop_turn(owner_id, id)

    async def _claim(self, owner_id: UUID, id: UUID, epoch: int) -> Turn | None:
        try:
            async with self._database.transaction(owner_id) as session:
                claim = {"me": self.replica, "owner_id": owner_id, "id": id, "epoch": epoch}
                return (await session.execute(select(Turn).from_statement(CLAIM), claim)).scalar_one_or_none()
        except IntegrityError:  # another replica started another turn of this conversation in the same instant
            return None

    async def _let_go(self, owner_id: UUID, id: UUID, epoch: int, seconds: float, *, full: bool = False) -> None:
        """Leave a turn that this replica has held for so many seconds to whoever has room for it."""
        values = {"owner_id": owner_id, "id": id, "me": self.replica, "epoch": epoch, "seconds": seconds, "full": full}
        async with self._database.transaction(owner_id) as session:
            await session.execute(RELEASE_ONE, values)
        self.queued()

    async def _beat(self) -> None:
        """Say that this replica is alive, and let go of turns that are its own by their row and that it does not run.

        Such a turn is left where the answer to a commit was lost with the connection: accepted or claimed, not begun;
        interrupted, not let go. It counts as lost when two beats in a row find it, as a turn is accepted a moment
        before it is begun.
        """
        began = time.monotonic()
        await self._signals.beat()
        self._beaten = began
        held = {row.id: row for row in await self._held()}
        before, self._lost = self._lost, held.keys() - self._tasks.keys()
        for turn_id in before & self._lost:
            log.warning("turn.lost", turn_id=str(turn_id))
            await self._let_go(held[turn_id].owner_id, turn_id, held[turn_id].epoch, DEAD_AFTER)

    async def _held(self) -> Sequence[Swept]:
        """The turns that are this replica's by their rows."""
        async with self._database.transaction() as session:
            return await sweep(session, "held", replica=self.replica)

    async def _release(self) -> None:
        """Let go of all turns of this replica's."""
        if held := await self._held():
            owners = {turn.owner_id for turn in held}
            async with self._database.transaction(*owners) as session:
                await session.execute(RELEASE, {"me": self.replica, "owners": list(owners)})

    async def _watch(self) -> None:
        """Stop the runs of a process that cannot say that it lives, before others take them for a dead one's."""
        while True:
            await asyncio.sleep(BEAT_SECONDS / 4)
            if self._silent and (running := self._tasks.keys() - self._given_up):
                log.warning("replica.silent", turns=len(running))
                self._given_up |= running
                for turn_id in running:
                    self._tasks[turn_id].cancel()


async def _every(seconds: float, work: Callable[[], Awaitable[None]], soon: asyncio.Event) -> None:
    """Do `work` every so many seconds, and when `soon` is set."""
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await soon.wait()
        soon.clear()
        try:
            await work()
        except Unavailable:
            log.warning("database.unavailable")
        except Exception:  # a replica that has stopped beating loses its turns, one that has stopped sweeping its queue
            log.exception("runner.failed")
