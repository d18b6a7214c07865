"""What goes wrong in each phase, and how a phase is run.

A phase sends its turns in as many shares as it has faults: each share when enough replicas serve for the fault to come,
each fault soon after its share. So faults meet turns, however slowly replicas start on this machine.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from tests.chaos.clients import Clients, clients
from tests.chaos.count import Evidence
from tests.chaos.jobs import KINDS, Job
from tests.chaos.outside import Outside, outside
from tests.chaos.postgres import Postgres, postgres
from tests.chaos.record import count_unfinished, install_triggers, read_record
from tests.chaos.replicas import Cluster, cluster

Phase = Literal["kill", "frozen", "postgres", "faults"]
PHASES: tuple[Phase, ...] = get_args(Phase)
CONCURRENCY = 16
QUIET_SECONDS = 60
"""How long turns may go on after the last fault and the last client."""
TROUBLE = 0.3
"""The share of model calls that go wrong in the phase `faults`."""

Progress = Callable[[str, int, int], None]
"""Told how many turns and how many faults there have been, and of which phase."""


@dataclass
class Chaos:
    """The parts that the phases have in common."""

    database: Postgres
    there: Outside
    cluster: Cluster
    clients: Clients
    numbers: int = 0
    sent: int = 0
    armed: int = 0
    faults: int = 0
    restarts: list[tuple[float, float]] = field(default_factory=list)
    moved: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def run(self, phase: Phase, turns: int, faults: int, progress: Progress) -> Evidence:
        """Run one phase to its end and gather what there is to count."""
        began = time.monotonic()
        self.sent, self.armed, self.faults, self.restarts = 0, 0, 0, []
        self.clients.counts, self.cluster.deserted = Counter(), []
        self.there.refused, self.there.troubles = [], Counter()
        self.there.trouble = TROUBLE if phase == "faults" else 0.0
        jobs = [self._job(phase) for _ in range(turns)]
        share = 0 if phase == "faults" else faults
        async with asyncio.TaskGroup() as both:
            both.create_task(self._trouble(phase, share, turns))
            both.create_task(self._send(phase, jobs, share, progress))
        self.there.trouble = 0.0
        await self.cluster.some_ready(len(self.cluster.replicas))
        await self._quiet(phase)
        record = await read_record(self.database, phase)
        conversations = {turn.key: turn.conversation_id for turn in record.turns}
        for job in jobs:
            if job.key in conversations:
                await self.clients.read_whole(job, conversations[job.key])
        progress(phase, turns, self.faults)
        return Evidence(
            phase=phase,
            seconds=time.monotonic() - began,
            jobs=jobs,
            record=record,
            effects=self.there.effects,
            asked=self.there.asked,
            refused=self.there.refused,
            troubles=self.there.troubles,
            faults=self.faults,
            killed=self.cluster.killed,
            restarts=self.restarts,
            deserted=self.cluster.deserted,
            connections=self.clients.counts,
        )

    def _job(self, phase: Phase) -> Job:
        self.numbers += 1
        return Job(self.numbers, random.choice(KINDS), phase, cancel=random.random() < 0.04)

    async def _send(self, phase: Phase, jobs: Sequence[Job], faults: int, progress: Progress) -> None:
        slots = asyncio.Semaphore(CONCURRENCY)
        done = 0

        async def talk(talk: Sequence[Job]) -> None:
            nonlocal done
            try:
                await self.clients.talk(talk)
            finally:
                slots.release()
            done += len(talk)
            progress(phase, done, self.faults)

        async with asyncio.TaskGroup() as talks:
            while self.sent < len(jobs):
                await self._wait(lambda: not faults or self.armed > faults * self.sent // len(jobs))
                await slots.acquire()
                several = jobs[self.sent : self.sent + random.choice((1, 1, 1, 2, 3))]
                talks.create_task(talk(several))
                await self._count(sent=len(several))

    async def _wait(self, due: Callable[[], bool]) -> None:
        async with self.moved:
            await self.moved.wait_for(due)

    async def _count(self, *, sent: int = 0, armed: int = 0, faults: int = 0) -> None:
        async with self.moved:
            self.sent, self.armed, self.faults = self.sent + sent, self.armed + armed, self.faults + faults
            self.moved.notify_all()

    async def _trouble(self, phase: Phase, faults: int, turns: int) -> None:
        while self.faults < faults:
            await self._wait(lambda: self.sent >= turns * self.faults // faults)
            await self.cluster.some_ready(2)
            await self._count(armed=1)
            await asyncio.sleep(random.uniform(0.3, 2))
            replica = random.choice(await self.cluster.some_ready(2))
            match phase:
                case "kill":
                    self.cluster.kill(replica)
                case "frozen":
                    await self.cluster.freeze(replica, random.uniform(1, 8))
                case "postgres":
                    self.restarts.append(await self.database.restart())
                case "faults":  # those of the model come of themselves
                    return
            await self._count(faults=1)

    async def _quiet(self, phase: Phase) -> None:
        """Wait until every turn has ended; what has not by then is for the count to tell."""
        until = time.monotonic() + QUIET_SECONDS
        # Another process has no event to wait for.
        while await count_unfinished(self.database, phase) and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.2)


def faults_of(phase: Phase, kills: int) -> int:
    """How many faults a phase has where the first has so many kills."""
    return {"kill": kills, "frozen": kills, "postgres": max(1, kills * 2 // 5), "faults": 0}[phase]


@asynccontextmanager
async def chaos(folder: Path, *, pooler: bool = False) -> AsyncIterator[Chaos]:
    """A database, with a pooler in front of it or not, the world outside, three replicas and their clients."""
    async with (
        postgres(folder, pooler=pooler) as database,
        outside() as there,
        cluster(folder, database, there) as (replicas, key),
        clients(replicas, key) as users,
    ):
        await install_triggers(database)
        yield Chaos(database, there, replicas, users)
