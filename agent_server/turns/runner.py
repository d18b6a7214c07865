"""Running turns: a task per turn that belongs to no socket, leases, and what is done with turns nobody runs.

A replica says that it is alive by a heartbeat row, on the database's clock. Turns that are queued behind nothing, that
were let go at a shutdown, or whose replica has not beaten for `DEAD_AFTER` are claimed by compare-and-set on the epoch.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from agent_server.db import Database, new_id
from agent_server.errors import AgentServerError, Internal, TimedOut, Unavailable
from agent_server.identity import Caller
from agent_server.turns.events import Cancelled, Done, Failed
from agent_server.turns.hub import Hub
from agent_server.turns.journal import Fenced, Journal, NewItem, StopRequested
from agent_server.turns.models import Turn

log = structlog.get_logger()

BEAT_SECONDS = 1.0
SWEEP_SECONDS = 1.0
DEAD_AFTER = "5 seconds"
MAX_ATTEMPTS = 5

_BEAT = text("""
    insert into replica (id, beat) values (:id, now()) on conflict (id) do update set beat = now()""")

# A queued turn whose conversation is idle, or a running one that nobody runs any more.
_CANDIDATES = text(f"""
    select t.owner_id, t.id, t.epoch from turn t
    where t.status = 'queued' and not exists (
        select from turn b where b.owner_id = t.owner_id and b.conversation_id = t.conversation_id
        and (b.status = 'running' or (b.status = 'queued' and b.turn_no < t.turn_no)))
    union all
    select t.owner_id, t.id, t.epoch from turn t
    where t.status = 'running' and (t.owner is null or not exists (
        select from replica r where r.id = t.owner and r.beat > now() - interval '{DEAD_AFTER}'))
    limit 32""")  # noqa: S608  # the only value is a constant of this module

_CLAIM = text("""
    update turn t set status = 'running', owner = :me, epoch = epoch + 1, attempts = attempts + 1
    where owner_id = :owner_id and id = :id and epoch = :epoch and status in ('queued', 'running')
      and not exists (select from turn b where b.owner_id = t.owner_id and b.conversation_id = t.conversation_id
                      and b.status = 'running' and b.id <> t.id)
    returning id""")

_HELD = text("select id from turn where owner = :me and status = 'running'")
_RELEASE = text("update turn set owner = null where owner = :me and status = 'running'")
_RELEASE_ONE = text("update turn set owner = null where id = :id and owner = :me and status = 'running'")
_FORGET = text("delete from replica where id = :me or beat < now() - interval '1 hour'")
_STOP_RUNNING = text("""
    update turn set cancel = true where owner_id = :owner_id and id = :id and status = 'running'""")
_STOP_QUEUED = text("""
    with stopped as (
        update turn set status = 'cancelled', cancel = true, finished_at = now(), last_event = last_event + 1
        where owner_id = :owner_id and id = :id and status = 'queued' returning owner_id, id, last_event)
    insert into event (owner_id, turn_id, seq, kind, body, at)
    select owner_id, id, last_event, 'cancelled', '{}', now() from stopped""")


@dataclass
class Outcome:
    """How an attempt ended: the specialist that answered, and what the models used."""

    agent: str | None = None
    usage: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One attempt of one turn: what the `run` function is given."""

    journal: Journal
    caller: Caller
    message: str
    agent: str | None
    number: int


Run = Callable[[Attempt], Awaitable[Outcome]]


class Runner:
    """Runs the turns that this replica holds, up to `slots` at once."""

    def __init__(self, database: Database, hub: Hub, run: Run, *, slots: int = 64, turn_timeout: float = 300.0) -> None:
        self.replica = new_id()
        self._database, self._hub, self._run = database, hub, run
        self._slots, self._turn_timeout = slots, turn_timeout
        self._tasks: dict[UUID, asyncio.Task[None]] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._lost: set[UUID] = set()
        self._freed = asyncio.Event()
        self._closing = False

    @property
    def has_slot(self) -> bool:
        return not self._closing and len(self._tasks) < self._slots

    async def start(self) -> None:
        """Announce this replica, then beat and sweep until `close`."""
        await self._execute(_BEAT, id=self.replica)
        self._freed.set()  # the first sweep is at once
        self._background = {
            asyncio.create_task(_every(BEAT_SECONDS, self._beat, asyncio.Event())),
            asyncio.create_task(_every(SWEEP_SECONDS, self._sweep, self._freed)),
        }

    async def close(self) -> None:
        """Let go of what still runs, at once, for whoever starts next; nothing of it is lost."""
        self._closing = True
        tasks = [*self._background, *self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(Unavailable):
            await self._execute(_RELEASE, me=self.replica)
            await self._execute(_FORGET, me=self.replica)

    def begin(self, turn: Turn) -> None:
        """Run a turn that this replica owns, in a task of its own."""
        if self._closing or turn.id in self._tasks:
            return
        task = asyncio.create_task(self._attempt(turn), name=f"turn {turn.id}")
        self._tasks[turn.id] = task
        task.add_done_callback(lambda _: self._ended(turn.id))

    async def stop_turn(self, owner_id: UUID, turn_id: UUID) -> None:
        """Cancel a turn: here at once, on another replica at its next write, in the queue before it starts."""
        async with self._database.transaction() as session:
            for statement in (_STOP_QUEUED, _STOP_RUNNING):
                await session.execute(statement, {"owner_id": owner_id, "id": turn_id})
        self._hub.wake(turn_id)
        task = self._tasks.get(turn_id)
        if task and not task.cancelling():  # a second stop must not break off the writing of the first
            task.cancel()

    def _ended(self, turn_id: UUID) -> None:
        del self._tasks[turn_id]
        self._freed.set()  # what waited behind it, or for a slot, need not wait for the next sweep

    async def _attempt(self, turn: Turn) -> None:
        journal = Journal(
            self._database, self._hub, turn.owner_id, turn.conversation_id, turn.id, turn.turn_no, turn.epoch
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
        )
        try:
            await self._to_the_end(attempt, turn)
        except Fenced:
            log.info("turn.fenced", epoch=turn.epoch)
        except Unavailable:
            # The turn stays `running` under this epoch: let it go, so that the sweep takes it up again.
            log.warning("turn.interrupted", reason="database unavailable")
            with contextlib.suppress(Unavailable):  # then `_beat` finds it, once the database is back
                await self._let_go(turn.id)

    async def _to_the_end(self, attempt: Attempt, turn: Turn) -> None:
        journal = attempt.journal
        outcome = Outcome()
        try:
            if turn.cancel:
                raise StopRequested
            if turn.attempts > MAX_ATTEMPTS:
                raise Internal(f"This turn was cut off {MAX_ATTEMPTS} times and", secrets.token_hex(6))
            if turn.attempts > 1:
                await journal.reset_unfinished()
            outcome = await self._run_in_time(attempt)
            await journal.finish("done", Done(outcome.agent, outcome.usage), agent=outcome.agent, usage=outcome.usage)
            log.info("turn.done", agent=outcome.agent)
        except StopRequested:
            await self._cancelled(journal)
        except asyncio.CancelledError:
            if self._closing:
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
        said = [NewItem({"role": "assistant", "content": text}, role="assistant", text=text)] if text else []
        await journal.finish("cancelled", Cancelled(), items=said)
        log.info("turn.cancelled")

    async def _failed(self, journal: Journal, code: str, message: str) -> None:
        await journal.finish("failed", Failed(code, message), error={"code": code, "message": message})

    async def _sweep(self) -> None:
        if not self.has_slot:
            return
        async with self._database.transaction() as session:
            candidates = (await session.execute(_CANDIDATES)).all()
        for owner_id, id, epoch in candidates:
            if id in self._tasks or not self.has_slot:
                continue
            if (turn := await self._claim(owner_id, id, epoch)) is not None:
                log.info("turn.claimed", turn_id=str(id), attempt=turn.attempts)
                self.begin(turn)

    async def _claim(self, owner_id: UUID, id: UUID, epoch: int) -> Turn | None:
        try:
            async with self._database.transaction() as session:
                claim = {"me": self.replica, "owner_id": owner_id, "id": id, "epoch": epoch}
                if (await session.execute(_CLAIM, claim)).one_or_none() is None:
                    return None
                return await session.get_one(Turn, (owner_id, id))
        except IntegrityError:  # another replica started another turn of this conversation in the same instant
            return None

    async def _let_go(self, turn_id: UUID) -> None:
        await self._execute(_RELEASE_ONE, id=turn_id, me=self.replica)
        self._freed.set()

    async def _beat(self) -> None:
        """Say that this replica is alive, and let go of turns that are its own by their row and that it does not run.

        Such a turn is left where the answer to a commit was lost with the connection: accepted or claimed, not begun;
        interrupted, not let go. It counts as lost when two beats in a row find it, as a turn is accepted a moment
        before it is begun.
        """
        async with self._database.transaction() as session:
            await session.execute(_BEAT, {"id": self.replica})
            held = set((await session.execute(_HELD, {"me": self.replica})).scalars())
        before, self._lost = self._lost, held - self._tasks.keys()
        for turn_id in before & self._lost:
            log.warning("turn.lost", turn_id=str(turn_id))
            await self._let_go(turn_id)

    async def _execute(self, statement: Any, **values: Any) -> None:
        async with self._database.transaction() as session:
            await session.execute(statement, values)


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
