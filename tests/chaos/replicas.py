"""The replicas: processes of `agent-server serve` on one database, started again when they end."""

import asyncio
import json
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import httpx

from tests import zygote
from tests.chaos.outside import Outside
from tests.chaos.postgres import Postgres, free_port
from tests.commands import agent_server, environment

WORKSPACE = Path(__file__).parent / "workspace"
START_SECONDS = 120
PATIENCE = 3.0
"""Seconds that a replica waits for a model's next token."""


@dataclass
class Replica:
    """A port and the process that serves it now; `name` is another one for each process."""

    number: int
    port: int
    generation: int = 0
    ready: bool = False
    process: zygote.Process | None = None

    @property
    def name(self) -> str:
        return f"replica-{self.number}-{self.generation}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@dataclass
class Cluster:
    """`killed` is when each process that we killed was killed (by the clock that the database has too); `deserted`
    names those that ended by themselves while they served. Each replica has so many `workers`, on one `core` where one is
    named."""

    folder: Path
    database: Postgres
    variables: Mapping[str, str]
    replicas: list[Replica]
    workers: int = 1
    core: int | None = None
    killed: dict[str, float] = field(default_factory=dict)
    deserted: list[str] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def some_ready(self, at_least: int) -> list[Replica]:
        """The replicas that serve, once there are so many."""
        try:
            async with asyncio.timeout(START_SECONDS), self.changed:
                await self.changed.wait_for(lambda: sum(replica.ready for replica in self.replicas) >= at_least)
        except TimeoutError:
            said = [log.read_text()[-2000:] for log in self.folder.glob("replica-*.log")]
            raise RuntimeError("\n".join(["The replicas do not start.", *said])) from None
        return [replica for replica in self.replicas if replica.ready]

    def kill(self, replica: Replica) -> None:
        assert replica.process is not None
        replica.ready = False
        self.killed[replica.name] = time.time()
        os.killpg(replica.process.pid, signal.SIGKILL)

    async def freeze(self, replica: Replica, seconds: float) -> None:
        """Stop the process for so long, as a machine that is out of breath does."""
        assert replica.process is not None
        os.killpg(replica.process.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            os.killpg(replica.process.pid, signal.SIGCONT)

    async def keep(self, replica: Replica) -> None:
        """Keep one replica running until cancelled."""
        with (self.folder / f"replica-{replica.number}.log").open("ab") as log:
            while True:
                replica.generation += 1
                replica.process = await asyncio.to_thread(self._spawn, replica, log)
                ended = asyncio.create_task(asyncio.to_thread(replica.process.wait))
                try:
                    await self._serving(replica, ended)
                    code = await asyncio.shield(ended)
                    if replica.name not in self.killed:
                        self.deserted.append(f"{replica.name} ended by itself with {code}")
                    replica.ready = False
                finally:
                    if not ended.done():
                        os.killpg(replica.process.pid, signal.SIGKILL)
                        await ended

    def _spawn(self, replica: Replica, log: IO[bytes]) -> zygote.Process:
        arguments = ("serve", "--workspace", str(self.folder / "workspace"), "--port", str(replica.port))
        with open(os.devnull) as nothing:
            process = zygote.start(
                "agent_server",
                *arguments,
                *(("--workers", str(self.workers)) if self.workers > 1 else ()),
                environment=environment({**self.variables, **self.database.addresses(replica.name)}),
                cwd=self.folder / "workspace",
                files=(nothing, log, log),
            )
        if self.core is not None:
            os.sched_setaffinity(process.pid, {self.core})  # what it starts inherits it
        return process

    async def _serving(self, replica: Replica, ended: "asyncio.Task[int]") -> None:
        """Return when the process answers, or has ended before it did."""
        async with httpx.AsyncClient(timeout=5) as http:
            while not ended.done():
                try:
                    if (await http.get(f"{replica.url}/readyz")).status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.1)
            else:
                return
        async with self.changed:
            replica.ready = True
            self.changed.notify_all()


@asynccontextmanager
async def cluster(
    folder: Path,
    database: Postgres,
    there: Outside,
    replicas: int = 3,
    *,
    workers: int = 1,
    core: int | None = None,
    settings: Mapping[str, str] | None = None,
) -> AsyncIterator[tuple[Cluster, str]]:
    """So many replicas of the workspace, all serving, and the key of a user."""
    workspace = folder / "workspace"
    shutil.copytree(WORKSPACE, workspace, ignore=shutil.ignore_patterns("__pycache__"))
    variables = {
        "OPENAI_BASE_URL": f"{there.url}/v1",
        "CHAOS_OUTSIDE_URL": f"{there.url}/change",
        "AGENT_SERVER_MODEL": "scripted",
        "AGENT_SERVER_ENVIRONMENT": "test",
        "AGENT_SERVER_RATE_PER_CALLER": "0",  # its few clients ask for much
        "AGENT_SERVER_RATE_PER_ADDRESS": "0",
        "AGENT_SERVER_MODEL_FIRST_TOKEN_TIMEOUT": str(PATIENCE),
        "AGENT_SERVER_MODEL_TOKEN_TIMEOUT": str(PATIENCE),
        **(settings or {}),
    }
    for command in (("content", "ingest"), ("key", "create", "--json")):
        url = {"DATABASE_URL": database.url("setup")}
        done = await asyncio.to_thread(agent_server, *command, cwd=workspace, **variables, **url)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
    ports = [Replica(i, free_port()) for i in range(1, replicas + 1)]
    running = Cluster(folder, database, variables, ports, workers, core)
    keepers = [asyncio.create_task(running.keep(replica)) for replica in running.replicas]
    try:
        await running.some_ready(replicas)
        yield running, str(json.loads(done.stdout)["key"])
    finally:
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)
