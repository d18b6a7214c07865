"""The two servers that are measured, ours and the bare one, and what both need: the model, the database, a core each.

The servers have one core of this machine to themselves; clients, the model and Postgres have the others.
"""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from typing import IO, Any

import asyncpg
import httpx
import psutil  # type: ignore[import-untyped]

from agent_server.db import Database, new_id
from agent_server.db.embedded import EMBEDDED_USER, as_user, start_embedded
from agent_server.identity.credentials import issue_key
from agent_server.testing.wire import serve_openai
from bench.model import Script
from tests import zygote
from tests.commands import environment

ROOT = Path(__file__).parent.parent
WORKSPACE = Path(__file__).parent / "workspace"
START_SECONDS = 180
DATABASE = "bench"
CALLERS = 8
_OURS = ("-m", "agent_server")
_BARE = ("-m", "uvicorn", "bench.bare:app", "--no-access-log", "--log-level", "warning")


@contextmanager
def leave_one_core() -> Iterator[int | None]:
    """Keep this process, and all it starts from now on, off one core; which it is. None where that cannot be."""
    if not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2:
        yield None
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores - {min(cores)})
    try:
        yield min(cores)
    finally:
        os.sched_setaffinity(0, cores)


@dataclass
class Process:
    """A server in a process of its own, with those it starts. `keys` are those of several callers: one may not have
    many messages at a time."""

    address: str
    keys: Sequence[str]
    process: "subprocess.Popen[bytes] | zygote.Process"
    log: Path

    def cpu(self) -> float:
        """Seconds of processor time so far, of processes that have ended as well."""
        seconds = 0.0
        for process in self._all():
            with suppress(psutil.NoSuchProcess):
                seconds += sum(process.cpu_times()[:4])
        return seconds

    def memory(self) -> float:
        """MiB of memory."""
        return float(sum(process.memory_info().rss for process in self._all())) / 2**20

    def processes(self) -> set[int]:
        """The ids of all of them."""
        return {process.pid for process in self._all()}

    def _all(self) -> list[psutil.Process]:
        process = psutil.Process(self.process.pid)
        return [process, *process.children(recursive=True)]

    async def answers(self, path: str = "/health") -> None:
        """Wait for the first 200. Raises RuntimeError when the process ends before, or nothing comes."""
        ends = time.monotonic() + START_SECONDS
        async with httpx.AsyncClient(timeout=5) as http:
            while self.process.poll() is None and time.monotonic() < ends:
                with suppress(httpx.TransportError):
                    if (await http.get(f"{self.address}{path}")).status_code == 200:
                        return
                await asyncio.sleep(0.02)
        raise RuntimeError(f"A server did not start: {self.log.read_text()[-2000:]}")

    def end(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)  # what it started as well
            self.process.wait()


@dataclass
class Stage:
    """What all parts have in common. `url` is the database's address for the user who owns it, `core` the servers'.

    With `forked`, processes are forks of one that has imported everything: what starting costs is not measured then.
    """

    folder: Path
    url: str
    model: str
    script: Script
    core: int | None
    forked: bool = False
    keys: Sequence[str] = ()
    started: int = 0

    @property
    def variables(self) -> dict[str, str]:
        """The environment of our commands."""
        variables = environment(
            {
                "DATABASE_OWNER_URL": self.url,
                "DATABASE_URL": as_user(self.url, EMBEDDED_USER),
                "PYTHONPATH": str(ROOT),
                "OPENAI_BASE_URL": self.model,
                "OPENAI_API_KEY": Script.name,  # any will do
                "AGENT_SERVER_MODEL": Script.name,
                "AGENT_SERVER_ENVIRONMENT": "production",
                "AGENT_SERVER_LOG_LEVEL": "WARNING",
                "AGENT_SERVER_RATE_PER_CALLER": "100000000",  # counted, and never reached
                "AGENT_SERVER_RATE_PER_ADDRESS": "100000000",
            }
        )
        variables.pop("PYTHONDONTWRITEBYTECODE", None)  # with it, each start would compile what is ours
        return variables

    def url_of(self, name: str) -> str:
        """The address of another database on the same server."""
        head, _, options = self.url.partition("?")
        return f"{head.rpartition('/')[0]}/{name}?{options}"

    @asynccontextmanager
    async def ours(
        self, *options: str, workspace: Path = WORKSPACE, path: str = "/health", **variables: str
    ) -> AsyncIterator[Process]:
        """Our server, from its first 200 on."""
        port = str(free_port())
        command = (*_OURS, "serve", "--workspace", str(workspace), "--port", port, *options)
        async with self._serve(command, port, {**self.variables, **variables}, path) as process:
            yield process

    @asynccontextmanager
    async def bare(self) -> AsyncIterator[Process]:
        """The bare SDK, from its first 200 on."""
        port = str(free_port())
        async with self._serve((*_BARE, "--port", port), port, self.variables, "/health") as process:
            yield process

    @asynccontextmanager
    async def _serve(
        self, command: Sequence[str], port: str, variables: Mapping[str, str], path: str
    ) -> AsyncIterator[Process]:
        self.started += 1
        log = self.folder / f"server-{self.started}.log"
        with log.open("wb") as written:
            process = self._start(command, variables, written)
        if self.core is not None:
            os.sched_setaffinity(process.pid, {self.core})  # before it has started another, which inherits it
        server = Process(f"http://127.0.0.1:{port}", self.keys, process, log)
        try:
            await server.answers(path)
            yield server
        finally:
            server.end()

    def _start(
        self, command: Sequence[str], variables: Mapping[str, str], log: IO[bytes]
    ) -> "subprocess.Popen[bytes] | zygote.Process":
        if self.forked:
            with open(os.devnull) as nothing:
                return zygote.start(*command[1:], cwd=ROOT, environment=variables, files=(nothing, log, log))
        options: dict[str, Any] = {"cwd": ROOT, "env": dict(variables), "start_new_session": True}
        return subprocess.Popen([sys.executable, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, **options)

    def run(self, *arguments: str, **variables: str) -> tuple[float, str]:
        """Run a command of ours to its end: the processor time it took, seconds, and what it printed. Raises
        RuntimeError."""
        return self.run_python(*_OURS, *arguments, **variables)

    def run_python(self, *arguments: str, **variables: str) -> tuple[float, str]:
        """The same of any Python."""
        before, variables = getrusage(RUSAGE_CHILDREN), {**self.variables, **variables}
        if self.forked and arguments[0] == "-m":
            done = zygote.run(*arguments[1:], cwd=ROOT, environment=variables)
        else:
            command = [sys.executable, *arguments]
            done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
        after = getrusage(RUSAGE_CHILDREN)
        if done.returncode:
            raise RuntimeError(f"{' '.join(arguments)}: {done.stdout[-1000:]}{done.stderr[-1000:]}")
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout

    @asynccontextmanager
    async def database(self, name: str = DATABASE) -> AsyncIterator[asyncpg.Connection]:
        """A connection of the superuser."""
        connection = await asyncpg.connect(self.url_of(name))
        try:
            yield connection
        finally:
            await connection.close()


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@asynccontextmanager
async def stage(*, forked: bool = False) -> AsyncIterator[Stage]:
    """A model and a migrated database, which end with this."""
    folder = Path(tempfile.mkdtemp(prefix="bench"))
    try:
        with leave_one_core() as core:
            server = await asyncio.to_thread(start_embedded, folder)
            script = Script()
            async with serve_openai(script) as model:
                there = Stage(folder, server, model, script, core, forked)
                there.url = there.url_of(DATABASE)
                async with there.database("postgres") as connection:
                    await connection.execute(f"create database {DATABASE}")
                await asyncio.to_thread(there.run, "db", "upgrade", AGENT_SERVER_WORKSPACE=str(WORKSPACE))
                there.keys = await _make_keys(there.url)
                yield there
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _make_keys(url: str) -> list[str]:
    """A key of each of several callers."""
    database = Database(url)
    try:
        keys = []
        for owner in (new_id() for _ in range(CALLERS)):
            async with database.transaction(owner) as session:
                keys.append((await issue_key(session, owner, name="bench", scopes=["*"])).text)
        return keys
    finally:
        await database.close()
