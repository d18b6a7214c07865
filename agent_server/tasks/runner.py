"""The tasks that this process runs. What a process leaves undone another one takes up, from the start of its call.

begun        by the process that was asked, where it has room
free         nobody runs it: it waited, was let go at a shutdown, has its answers, or its process is dead (`heartbeat`)
claimed      by compare-and-set on its epoch; whoever held it before writes nothing more
"""

import asyncio
import contextlib
import secrets
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

import structlog

from agent_server.caller import Caller
from agent_server.calls.ledger import Interrupted
from agent_server.changes import Changes
from agent_server.db import Database
from agent_server.db.sleep import Sleep
from agent_server.errors import AgentServerError, Internal, Unavailable
from agent_server.log import without_secrets
from agent_server.tasks.models import McpTask
from agent_server.tasks.progress import TaskProgress
from agent_server.tasks.store import Found, Lease, claim, find_free
from agent_server.tool_context import Listener
from agent_server.turns.replica import Replica
from agent_server.turns.sender import read_sender

log = structlog.get_logger()

LOOK_SECONDS = 1.0
"""How soon the tasks of a dead replica are looked for by another one."""
ALONE_SECONDS = 10.0
"""The same where there is no other replica: for what a process before this one has left."""
SECOND_LOOK_SECONDS = 0.1
"""How soon a replica whose lock is free, with a fresh heartbeat, is looked at again before its tasks are taken."""
WATCH_SECONDS = 5.0
"""The longest that a hint which was lost has a task run on that was cancelled."""
PAUSE_SECONDS = 1.0
# A task that takes its process down would be taken over for ever.
MAX_ATTEMPTS = 5
WAITING = "mcp tasks that wait"
"""The subject that changes when there may be a task that nobody runs (`changes`)."""


def subject_of(task: UUID) -> str:
    """What changes when something of a task does."""
    return f"mcp task {task}"


def subject_of_owner(owner: UUID) -> str:
    """What changes when any task of a caller does."""
    return f"mcp tasks of {owner}"


@dataclass(frozen=True)
class Attempt:
    """One attempt of a task. It ends with a write of its `lease`, or raises."""

    task: McpTask
    caller: Caller
    lease: Lease
    listener: Listener


Carry = Callable[[Attempt], Awaitable[None]]
Renew = Callable[[Caller], Awaitable[Caller]]
"""Finds what a caller may now who began a task before. Raises Unauthorized where it may nothing any more."""


class TaskRunner:
    """Runs up to `slots` tasks at once, from `start` to `close`: calls of tools by `carry`, others by what is `added`."""

    def __init__(
        self,
        database: Database,
        replica: Replica,
        changes: Changes,
        carry: Carry,
        *,
        renew: Renew,
        slots: int,
        sleep: Sleep | None = None,
    ) -> None:
        self._database, self._replica, self._changes = database, replica, changes
        self._carry, self._renew = carry, renew
        self._others: dict[str, Carry] = {}
        self._slots, self._sleep = slots, sleep or Sleep()
        self._running: dict[UUID, asyncio.Task[None]] = {}
        self._given_up: set[UUID] = set()
        self._suspected: set[tuple[UUID, int]] = set()
        self._followers: defaultdict[UUID, list[Listener]] = defaultdict(list)
        self._looking: asyncio.Task[None] | None = None
        self._closing = False

    @property
    def replica(self) -> UUID | None:
        """Who runs a task that is begun now: this process, or nobody yet."""
        return None if self._closing or len(self._running) >= self._slots else self._replica.id

    @property
    def is_busy(self) -> bool:
        """Whether a task runs here."""
        return bool(self._running)

    def add(self, name: str, carry: Carry) -> None:
        """Have tasks of this name, which is no tool of the workspace, carried out so."""
        self._others[name] = carry

    def start(self) -> None:
        """Take up tasks that nobody runs, until `close`."""
        self._looking = asyncio.create_task(self._look())

    async def drain(self, seconds: float) -> None:
        """Take up no more tasks and wait so long for those that run. What is left is free for another replica."""
        self._closing = True
        if self._running:
            await asyncio.wait(self._running.values(), timeout=seconds)
        left = list(self._running.values())
        self._given_up |= self._running.keys()
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        if left:
            self._changes.announce(WAITING)

    async def close(self) -> None:
        await self.drain(0)
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    def run(self, task: McpTask) -> None:
        """Run a task that is this replica's, or have somebody take up one that is nobody's."""
        if task.replica != self._replica.id or task.id in self._running:
            self.look_soon()
            return
        running = asyncio.create_task(self._run(task), name=f"mcp task {task.id}")
        self._running[task.id] = running
        # A callback, and no `finally`: one that is cancelled before it has begun never gets there.
        running.add_done_callback(lambda _: self._end(task))

    async def take(self, task: McpTask) -> None:
        """Run a task here that nobody runs, unless another process was first."""
        await self._claim(Found(task.owner_id, task.id, task.epoch, True))

    def look_soon(self) -> None:
        """Say that there may be a task that nobody runs."""
        self._changes.announce(WAITING)

    def tell(self, task: McpTask) -> None:
        """Tell all who wait for a task that it has changed, here and in other replicas."""
        self._changes.announce(subject_of(task.id))
        self._changes.announce(subject_of_owner(task.owner_id))

    @contextmanager
    def following(self, id: UUID, listener: Listener) -> Iterator[None]:
        """Have somebody hear what a task says that runs in this process."""
        self._followers[id].append(listener)
        try:
            yield
        finally:
            self._followers[id].remove(listener)
            if not self._followers[id]:
                del self._followers[id]

    def _end(self, task: McpTask) -> None:
        del self._running[task.id]
        self._given_up.discard(task.id)
        self.tell(task)
        if len(self._running) == self._slots - 1:
            self.look_soon()

    async def _look(self) -> None:
        with self._changes.watch() as watch:
            watch.follow([WAITING])
            while not self._closing:
                seconds = ALONE_SECONDS if self._replica.is_alone else LOOK_SECONDS
                try:
                    with self._sleep.hold():
                        if await self._take_free():
                            seconds = SECOND_LOOK_SECONDS
                except Unavailable:
                    log.warning("database.unavailable")
                except Exception:  # a bug in one look must not be the last look
                    log.exception("tasks.failed")
                if self._changes.is_closed:
                    return
                await watch.wait(seconds)
                await self._sleep.wait()

    async def _take_free(self) -> bool:
        """Take up tasks that nobody runs. Returns whether there are some that may be dead."""
        if self._closing or (room := self._slots - len(self._running)) <= 0:
            return False
        listed = await find_free(self._database, self._replica.id, room + len(self._running))
        # One of this replica's that it does not run is left where the answer to a commit was lost with the connection.
        found = [each for each in listed if each.id not in self._running]
        # Two looks in a row must find it so, and a replica's lock free: where only its connection was cut it takes the
        # lock anew.
        before, self._suspected = self._suspected, {(each.id, each.epoch) for each in found if not each.certain}
        for each in found:
            if each.certain or (each.id, each.epoch) in before:
                await self._claim(each)
        return bool(self._suspected - before)

    async def _claim(self, found: Found) -> None:
        if not self._closing and (task := await claim(self._database, found, self._replica.id)) is not None:
            log.info("task.claimed", task_id=str(task.id), attempt=task.attempts)
            self.run(task)

    async def _run(self, task: McpTask) -> None:
        structlog.contextvars.bind_contextvars(task_id=str(task.id), caller=str(task.owner_id))
        lease = Lease(self._database, task)
        watching = asyncio.create_task(self._watch(task, lease, asyncio.current_task()))
        try:
            with self._sleep.work():
                await self._run_to_end(task, lease)
        finally:
            watching.cancel()

    async def _run_to_end(self, task: McpTask, lease: Lease) -> None:
        try:
            if task.attempts > MAX_ATTEMPTS:
                raise Internal(f"This task was cut off {MAX_ATTEMPTS} times and", secrets.token_hex(6))
            caller = read_sender(task.owner_id, task.caller)
            # The first epoch begins with the call itself. Later, what its caller had may have been taken away.
            if task.epoch > 1:
                caller = await self._renew(caller)
            carry = self._others.get(task.tool, self._carry)
            listener = TaskProgress(lease, self._followers, lambda: self.tell(task))
            try:
                await carry(Attempt(task, caller, lease, listener))
            finally:
                await listener.close()
        # It was cancelled, or is another attempt's by now.
        except Interrupted:
            log.info("task.fenced", epoch=task.epoch)
        except asyncio.CancelledError:
            if task.id in self._given_up:
                with contextlib.suppress(Unavailable):
                    await lease.release(in_order=True)
            raise
        # It is this replica's still, and its next looks find that it does not run.
        except Unavailable:
            log.warning("task.interrupted", reason="database unavailable")
            await asyncio.sleep(PAUSE_SECONDS)
        except AgentServerError as error:
            await self._fail(lease, error)
        except Exception:  # the one catch-all of a task: a bug ends it with a reference, and not with silence
            bug = Internal(task.tool, secrets.token_hex(6))
            log.exception("task.failed", tool=task.tool, reference=bug.reference)
            await self._fail(lease, bug)

    async def _fail(self, lease: Lease, error: AgentServerError) -> None:
        with contextlib.suppress(Unavailable):  # as above
            await lease.fail(error.code, without_secrets(error.message))

    async def _watch(self, task: McpTask, lease: Lease, running: "asyncio.Task[None] | None") -> None:
        """Stop the attempt of a task that is cancelled or another replica's."""
        with self._changes.watch() as watch:
            watch.follow([subject_of(task.id)])
            while not self._changes.is_closed:
                await watch.wait(WATCH_SECONDS)
                with contextlib.suppress(Unavailable):
                    if not await lease.is_mine() and running is not None and not self._changes.is_closed:
                        running.cancel()
                        return
