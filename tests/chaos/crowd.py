"""A crowd: far more clients than one server has processor time for.

Each scene is a server of so many workers on one core of this machine, of which it gets a share; the clients, the model and
Postgres have the other cores. First a few clients keep it busy, then a crowd; both send the same kinds of messages, and
the crowd must be answered at nearly the same rate. A client that is refused comes back when it was told to.
"""

import asyncio
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.chaos.count import Evidence, Rates
from tests.chaos.jobs import KINDS, Job
from tests.chaos.outside import Outside, outside
from tests.chaos.postgres import Postgres, postgres
from tests.chaos.record import Record, count_unfinished, install_triggers, read_record
from tests.chaos.replicas import cluster
from tests.sse import read_frames

CROWD, FEW = 256, 16
ANSWER_SECONDS = 600
"""How long a client stays, its waits among that, before it complains."""
SETTINGS = {
    "AGENT_SERVER_RATE_GUESTS_PER_ADDRESS": "0",
    # How soon a model is given up is another matter: here the server is what is slow.
    "AGENT_SERVER_MODEL_FIRST_TOKEN_TIMEOUT": "60",
    "AGENT_SERVER_MODEL_TOKEN_TIMEOUT": "60",
}
# A process of its own: the clients would keep a thread of theirs from waking in time.
_THROTTLE = """
import os, signal, sys, time
group, share, parent = int(sys.argv[1]), float(sys.argv[2]), os.getppid()
while os.getppid() == parent:
    os.killpg(group, signal.SIGCONT)
    time.sleep(0.04 * share)
    os.killpg(group, signal.SIGSTOP)
    time.sleep(0.04 * (1 - share))
"""


@dataclass(frozen=True)
class Scene:
    """A server of so many `workers` that gets a `share` of one core."""

    workers: int
    share: float

    @property
    def phase(self) -> str:
        return f"crowd-{self.workers}x{self.share:g}"


SCENES = tuple(Scene(workers, share) for workers in (1, 2) for share in (1.0, 0.5))


@dataclass
class Guests:
    """Clients with a guest's token each. `first_texts` are the seconds from a request that was accepted to its first
    word, `refusals` counts by status."""

    http: httpx.AsyncClient
    tokens: Sequence[str]
    first_texts: list[float] = field(default_factory=list)
    refusals: Counter[int] = field(default_factory=Counter)

    async def answer_all(self, jobs: Sequence[Job]) -> None:
        """Send each job once, as many at the same time as there are guests."""
        left = iter(jobs)

        async def stay(token: str) -> None:
            for job in left:
                try:
                    async with asyncio.timeout(ANSWER_SECONDS):
                        await self._answer(job, token)
                except TimeoutError:
                    job.complaints.append("no answer came in time")
                except httpx.TransportError as error:
                    job.complaints.append(f"the connection broke: {error!r}")

        async with asyncio.TaskGroup() as staying:
            for token in self.tokens:
                staying.create_task(stay(token))

    async def _answer(self, job: Job, token: str) -> None:
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": job.key}
        wait: float | None = 0.0
        while wait is not None:
            await asyncio.sleep(wait)
            wait = await self._try(job, headers)

    async def _try(self, job: Job, headers: dict[str, str]) -> float | None:
        """Send the message and read its answer to the end; how long to stay away where it was refused."""
        began = time.monotonic()
        async with self.http.stream("POST", "/api/chat", json={"message": job.message}, headers=headers) as response:
            if response.status_code != 200:
                return self._refused(job, response, (await response.aread()).decode())
            job.promised.append(response.headers["X-Turn-Id"])
            if random.random() < 0.1:
                await self._send_again(job, headers)
            seen = False
            async for frame in read_frames(response):
                if not seen and frame.data != "[DONE]" and frame.data["type"] == "text-delta":
                    seen = True
                    self.first_texts.append(time.monotonic() - began)
                if frame.data == "[DONE]":
                    return None
        job.complaints.append("the stream broke off")
        return None

    def _refused(self, job: Job, response: httpx.Response, text: str) -> float | None:
        self.refusals[response.status_code] += 1
        if (
            response.status_code in (429, 503)
            and "busy" in text
            and response.headers.get("Retry-After", "").isdecimal()
        ):
            return float(response.headers["Retry-After"]) + random.random() / 10
        job.complaints.append(f"refused: {response.status_code} {dict(response.headers)} {text[:300]}")
        return None

    async def _send_again(self, job: Job, headers: dict[str, str]) -> None:
        """What was accepted is never refused, however busy the server is."""
        async with self.http.stream("POST", "/api/chat", json={"message": job.message}, headers=headers) as response:
            if response.status_code == 200:
                job.promised.append(response.headers["X-Turn-Id"])
            else:
                job.complaints.append(f"sent again: {response.status_code} {(await response.aread()).decode()[:300]}")


@asynccontextmanager
async def _guests(url: str, number: int) -> AsyncIterator[Guests]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=httpx.Timeout(None)) as http:
        some = asyncio.Semaphore(8)

        async def come() -> str:
            async with some:
                response = await http.post("/api/session", json={})
                response.raise_for_status()
                return str(response.json()["token"])

        yield Guests(http, await asyncio.gather(*(come() for _ in range(number))))


@contextmanager
def _on_other_cores() -> Iterator[int | None]:
    """Leave one core to the server; which it is. None where there is only one."""
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        yield None
        return
    os.sched_setaffinity(0, cores - {max(cores)})
    try:
        yield max(cores)
    finally:
        os.sched_setaffinity(0, cores)


@asynccontextmanager
async def _throttled(group: int, share: float) -> AsyncIterator[None]:
    """Let the processes of a group run for a share of the time."""
    if share == 1:
        yield
        return
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", _THROTTLE, str(group), str(share))
    try:
        yield
    finally:
        process.kill()
        await process.wait()
        os.killpg(group, signal.SIGCONT)


def _rate(jobs: Sequence[Job], record: Record, began: float) -> float:
    """Turns that were ended a second, from the first request to the last end."""
    turns = {turn.key: turn.id for turn in record.turns}
    ends = [record.events[turns[job.key]][-1].at for job in jobs if record.events.get(turns.get(job.key, ""))]
    return len(ends) / (max(ends) - began) if ends else 0.0


@dataclass
class Crowd:
    """The parts that the scenes have in common."""

    database: Postgres
    there: Outside
    folder: Path
    core: int | None
    numbers: int = 0
    has_triggers: bool = False

    def _jobs(self, scene: Scene, number: int) -> list[Job]:
        self.numbers += number
        first = self.numbers - number + 1
        return [Job(n, random.choice(KINDS), scene.phase) for n in range(first, self.numbers + 1)]

    async def run(self, scene: Scene, *, crowd: int, few: int, turns: int, **settings: str) -> Evidence:
        """Play one scene: `few` clients, then a `crowd` with so many `turns`."""
        began = time.monotonic()
        sparse, dense = self._jobs(scene, turns // 3), self._jobs(scene, turns)
        folder = self.folder / scene.phase
        folder.mkdir()
        async with cluster(
            folder, self.database, self.there, 1, workers=scene.workers, core=self.core, settings=SETTINGS | settings
        ) as (running, _):
            if not self.has_triggers:  # the first server makes the tables
                await install_triggers(self.database)
                self.has_triggers = True
            (server,) = running.replicas
            assert server.process is not None
            async with _guests(server.url, crowd) as guests, _throttled(server.process.pid, scene.share):
                starts = [time.time()]
                await Guests(guests.http, guests.tokens[:few]).answer_all(sparse)
                starts.append(time.time())
                await guests.answer_all(dense)
                while await count_unfinished(self.database, scene.phase):  # noqa: ASYNC110
                    await asyncio.sleep(0.2)
            record = await read_record(self.database, scene.phase)
            return Evidence(
                phase=scene.phase,
                seconds=time.monotonic() - began,
                jobs=[*sparse, *dense],
                record=record,
                effects=self.there.effects,
                asked=self.there.asked,
                refused=self.there.refused,
                deserted=running.deserted,
                rates=Rates(
                    few=_rate(sparse, record, starts[0]),
                    crowd=_rate(dense, record, starts[1]),
                    refusals=guests.refusals,
                    first_texts=sorted(guests.first_texts),
                ),
            )


@asynccontextmanager
async def crowds(folder: Path) -> AsyncIterator[Crowd]:
    """A database and the world outside, on the cores that the server does not have."""
    with _on_other_cores() as core:
        async with postgres(folder) as database, outside() as there:
            there.hurry = True
            yield Crowd(database, there, folder, core)
