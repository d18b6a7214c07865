"""Work that is nobody's request. When it is due it is done by one replica, and by another when that one dies.

Whoever does a job holds an advisory lock on a connection of its own; the lock goes with the process. A job that was cut
off is still due, so it is done again from its start: what a job does must bear that.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime

import structlog
from sqlalchemy import DateTime, text
from sqlmodel import Field, SQLModel

from agent_server.db import Database
from agent_server.db.sleep import Sleep
from agent_server.errors import Unavailable

log = structlog.get_logger()

LOCK_SPACE = 730_043
"""The first of the two keys of the advisory locks of jobs; the second is a hash of the job's kind."""
LOOK_SECONDS = 10.0
WAIT_SECONDS = 0.2
RETRY_SECONDS = 30.0
"""After a failure; as many times longer as there were failures in a row, up to `every`."""

_PLAN = text("insert into job (kind, due_at) values (:kind, now()) on conflict (kind) do nothing")
_DUE_NOW = text("""
    insert into job (kind, due_at) values (:kind, now()) on conflict (kind) do update set due_at = excluded.due_at""")
_DUE = text("select kind from job where due_at <= now() and kind = any(cast(:kinds as text[])) order by due_at")
_IS_DUE = text("select due_at <= now() from job where kind = :kind")
# A job without `every` is due again when it is asked for.
_DONE = text("""
    update job set failures = 0, finished_at = now(),
        due_at = coalesce(now() + cast(:every as float) * interval '1 second', 'infinity')
    where kind = :kind""")
_FAILED = text("""
    update job set failures = failures + 1,
        due_at = now() + least(cast(:every as float), :retry * (failures + 1)) * interval '1 second'
    where kind = :kind""")


class JobRow(SQLModel, table=True):
    """When each kind of job is due next. `failures` counts those in a row."""

    __tablename__ = "job"

    kind: str = Field(primary_key=True)
    due_at: datetime = Field(sa_type=DateTime(timezone=True))
    failures: int = Field(default=0, sa_column_kwargs={"server_default": text("0")})
    finished_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))


@dataclass(frozen=True)
class Job:
    """Work of one `kind`.

    `run` is done every so many seconds; with None, when it is asked for and when whoever was asked has died. With
    `beside` other jobs do not wait for it.
    """

    kind: str
    run: Callable[[], Awaitable[object]]
    every: float | None = None
    beside: bool = False


class Jobs:
    """Looks for jobs that are due until it is closed. While the process is asleep (`db.sleep`) it does not."""

    def __init__(self, database: Database, jobs: Sequence[Job], sleep: Sleep | None = None) -> None:
        self._database, self._jobs = database, {job.kind: job for job in jobs}
        self._sleep = sleep or Sleep()
        self._looking: asyncio.Task[None] | None = None
        self._beside: dict[str, asyncio.Task[None]] = {}

    async def start(self) -> None:
        async with self._database.transaction() as session:
            for job in self._jobs.values():
                if job.every is not None:
                    await session.execute(_PLAN, {"kind": job.kind})
        self._looking = asyncio.create_task(self._look())

    async def close(self) -> None:
        """Stop looking. A job that is being done is left to another replica."""
        if self._looking is not None:
            tasks = [self._looking, *self._beside.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def ask(self, kind: str) -> None:
        """Have a job done by a replica that looks for jobs."""
        async with self._database.transaction() as session:
            await session.execute(_DUE_NOW, {"kind": kind})

    async def do(self, kind: str, run: Callable[[], Awaitable[object]]) -> None:
        """Do a job now by `run`. It waits for whoever is doing the job. Raises what it raises, and Unavailable."""
        with self._sleep.work():
            while True:
                async with self._hold(kind) as mine:
                    if mine:
                        async with self._database.transaction() as session:
                            # On record as due before it is begun, so that another replica does it when this one dies.
                            await session.execute(_DUE_NOW, {"kind": kind})
                        await self._do(replace(self._jobs[kind], run=run))
                        return
                await asyncio.sleep(WAIT_SECONDS)  # a lock of another process says nothing when it is free

    async def _look(self) -> None:
        while True:
            try:
                with self._sleep.hold():
                    due = (await self._database.single(_DUE, {"kinds": list(self._jobs)})).scalars()
                    for kind in due:
                        await self._begin(kind)
            except Unavailable:
                log.warning("database.unavailable")
            except Exception:  # a bug in one look must not be the last look
                log.exception("jobs.failed")
            await self._sleep.pause(LOOK_SECONDS)  # what is due by the clock announces itself to nobody

    async def _begin(self, kind: str) -> None:
        if not self._jobs[kind].beside:
            await self._do_if_due(kind)
        elif kind not in self._beside:
            task = self._beside[kind] = asyncio.create_task(self._do_beside(kind))
            task.add_done_callback(lambda _: self._beside.pop(kind, None))

    async def _do_beside(self, kind: str) -> None:
        with self._sleep.work(), contextlib.suppress(Unavailable):  # it is still due
            await self._do_if_due(kind)

    async def _do_if_due(self, kind: str) -> None:
        async with self._hold(kind) as mine:
            if not mine:
                return
            async with self._database.transaction() as session:
                # Asked again under the lock: another replica may just have done it.
                due = (await session.execute(_IS_DUE, {"kind": kind})).scalar_one_or_none()
            if due:
                with contextlib.suppress(Exception):  # it is on record, and logged
                    await self._do(self._jobs[kind])

    async def _do(self, job: Job) -> None:
        values = {"kind": job.kind, "every": job.every}
        try:
            await job.run()
        # There is nowhere to count it as a failure, and the job is still due.
        except Unavailable:
            raise
        except Exception:  # raised again, when it is on record
            log.exception("job.failed", job=job.kind)
            async with self._database.transaction() as session:
                await session.execute(_FAILED, {**values, "retry": RETRY_SECONDS})
            raise
        async with self._database.transaction() as session:
            await session.execute(_DONE, values)

    @asynccontextmanager
    async def _hold(self, kind: str) -> AsyncIterator[bool]:
        """Hold the lock of a job for as long as the block. Yields whether this process got it."""
        connection = await self._database.direct()
        try:
            yield await connection.fetchval("select pg_try_advisory_lock($1, hashtext($2))", LOCK_SPACE, kind)
        finally:
            await connection.close(timeout=2)
