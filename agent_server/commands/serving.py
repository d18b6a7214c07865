"""agent-server serve"""

import asyncio
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import ip_address
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import structlog
from pydantic import SecretStr
from uvicorn.loops.auto import auto_loop_factory

from agent_server import toolsets
from agent_server.app import EMBED, INGEST, create_server
from agent_server.asgi import create_app
from agent_server.commands.banner import show_banner, show_restart
from agent_server.commands.draining import Announce, Draining
from agent_server.commands.ingesting import ingest_with_progress
from agent_server.commands.listening import listen
from agent_server.commands.processes import (
    Watched,
    begin_process,
    end_process,
    prepare_processes,
    run_reloading,
    wait_for_makers,
)
from agent_server.commands.rereading import PAGES, PROMPTS, Rereading
from agent_server.commands.stores import LOCAL, get_user, open_database
from agent_server.commands.terminal import fail
from agent_server.db import Database
from agent_server.db.direct import check_direct
from agent_server.db.leftovers import list_leftovers
from agent_server.errors import AgentServerError, InvalidInput
from agent_server.identity.credentials import LOCAL_KEY, issue_key, somebody_can_sign_in
from agent_server.identity.resolver import resolve_caller
from agent_server.inspection import list_remarks, open_workspace
from agent_server.knowledge.embedders.base import Embedder
from agent_server.knowledge.parse import SUFFIXES
from agent_server.log import configure_logging
from agent_server.seed import load_seeds
from agent_server.server import Server
from agent_server.settings import ENV_FILE, Settings, load_settings
from agent_server.storage import connect, migrate
from agent_server.workspace import OUTSIDE_FILES

log = structlog.get_logger()

WATCHED = ("tools", "prompts", "content")
READ = frozenset({"prompts", "content"})
"""What a server that runs reads again by itself."""
MOST_NAMED = 3
"""Of the files that have changed so many are named."""
KEY_FILE = "local-key"
# A process that cannot start must not keep the machine busy.
REPLACE_AFTER = 0.5
"""Seconds until a process that ended is replaced."""


def serve(settings: Settings, given: Mapping[str, Any], reload: bool, workers: int) -> int:
    """Serve until a signal says to stop; returns the exit code. `given` are the options of the command line."""
    # Refused before any work; who can sign in is known only with the database, and is checked in `_prepare`.
    _check_reach(settings, can_sign_in=True)
    if reload:
        if workers > 1:
            raise InvalidInput("workers: --reload serves with one process; leave out --workers or --reload")
        return _serve_reloading(settings, given)
    listener = listen(settings)
    if workers > 1:
        return _serve_by(workers, settings, listener)
    return _run_on_loop(_serve(settings, listener, show_banner))


def _check_reach(settings: Settings, *, can_sign_in: bool) -> None:
    """Raises InvalidInput where other machines could reach a server that nobody has set up for them."""
    if _is_loopback(settings.host):
        return
    missing = []
    if settings.environment == "development":
        missing.append("set AGENT_SERVER_ENVIRONMENT=production, since this is the development preset")
    if not settings.allowed_hosts and settings.public_url is None:
        missing.append(
            'set AGENT_SERVER_ALLOWED_HOSTS to the names that it is reached by, as in ["agents.example"], or '
            "AGENT_SERVER_PUBLIC_URL to its address, as in https://agents.example"
        )
    if missing or not can_sign_in:
        missing.append("make a key with `agent-server key create`, or set AGENT_SERVER_ISSUERS, if not yet done")
        todo = "; ".join(f"{number}. {what}" for number, what in enumerate(missing, 1))
        raise InvalidInput(
            f"host: {settings.host} is reachable from other machines, and not everything is set up for that. "
            f"In this order: {todo}. Or listen on 127.0.0.1"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _serve_reloading(settings: Settings, given: Mapping[str, Any]) -> int:
    from watchfiles import PythonFilter  # noqa: PLC0415  # heavy

    root = settings.workspace.resolve()
    embedded = None
    if settings.database_url is None:
        database = connect(settings)  # held here, so that the embedded server outlives the restarts
        embedded = (database.url, database.owner_url)
    named = [root / name for name in (toolsets.FILE, *OUTSIDE_FILES)]
    watched = Watched(
        root=root,
        folders=WATCHED,
        kinds=PythonFilter(extra_extensions=(*SUFFIXES, ".yaml", ".yml", ".json")),
        files=[*dict.fromkeys((root / ENV_FILE, Path(ENV_FILE).absolute(), *named))],
    )
    run_reloading(watched, partial(_tell_change, root), _serve_again, {**given, "workspace": root}, embedded)
    return 0


def _tell_change(root: Path, changed: Sequence[Path], ready: bool) -> bytes:
    """Say what has changed; returns what the server that runs is told to read, nothing where another starts."""
    names = [str(path.relative_to(root)) if path.is_relative_to(root) else str(path) for path in changed]
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    # Of Python the old version stays imported. Windows has no event loop that reads from such a socket.
    folders = {name.split(os.sep)[0] for name in names}
    read = ready and sys.platform != "win32" and folders <= READ
    fail(f"Changed: {', '.join(names[:MOST_NAMED])}{more}. {'Reading it.' if read else 'Starting again.'}")
    return b"" if not read else PAGES if "content" in folders else PROMPTS


def _serve_again(
    given: Mapping[str, Any], embedded: tuple[str, str | None] | None, first: bool, line: socket.socket
) -> None:
    """The server of one reload. What is wrong with the workspace or a setting is reported, and waits for a change."""
    begin_process()
    try:
        settings = load_settings(**given)
        if embedded is not None and settings.database_url is None:
            url, owner = (None if each is None else SecretStr(each) for each in embedded)
            settings = settings.model_copy(update={"database_url": url, "database_owner_url": owner})
        configure_logging(settings.log_level, settings.log_format)
        _check_reach(settings, can_sign_in=True)
        _run_on_loop(_serve(settings, listen(settings), show_banner if first else show_restart, line))
    except AgentServerError as error:
        fail(f"{error.message}\nWaiting for a change.")
        wait_for_makers()


def _serve_by(workers: int, settings: Settings, listener: socket.socket) -> int:
    """Serve by so many processes that accept from one socket. One that ends is replaced; a signal to this process is
    handed on to them."""
    # Migrated and ingested once, before the workers start, so that they do not wait for one another.
    url, key = asyncio.run(_prepare_database(settings))
    settings = settings.model_copy(update={"database_url": SecretStr(url)})
    new = prepare_processes()
    running: dict[int, BaseProcess] = {}

    def start(announce: bool) -> None:
        process = new(target=_work, args=(settings, listener, key, announce))
        process.start()
        running[process.sentinel] = process

    told, teller = socket.socketpair()
    # Python requires it: a signal must not wait for space in the socket.
    teller.setblocking(False)
    signal.set_wakeup_fd(teller.fileno())  # the loop below learns of a signal as it does of the end of a process
    for number in (signal.SIGTERM, signal.SIGINT):
        # Without a function of its own, the signal would end this process before the workers.
        signal.signal(number, lambda *_: None)
    signals: list[int] = []
    for i in range(workers):
        start(announce=i == 0)
    while running or not signals:
        missing = not signals and len(running) < workers
        ready = wait([told, *running], timeout=REPLACE_AFTER if missing else None)
        if missing and not ready:
            start(announce=False)
        for sentinel in ready:
            if isinstance(sentinel, int):
                process = running.pop(sentinel)
                process.join()
                if not signals:
                    log.warning("worker.ended", pid=process.pid, code=process.exitcode)
                continue
            # The workers have theirs. With this copy open, the port would stay taken after they ended.
            listener.close()
            signals += told.recv(64)
            for process in running.values():
                # A second signal goes on as SIGINT: the workers may have had two SIGTERMs by the first one, which was
                # perhaps sent to the whole group.
                end_process(process, signal.SIGTERM if signals == [signal.SIGTERM] else signal.SIGINT)
    return 130 if signal.SIGINT in signals else 0


def _work(settings: Settings, listener: socket.socket, key: str | None, announce: bool) -> None:
    """One of several processes."""
    begin_process()
    configure_logging(settings.log_level, settings.log_format)
    try:
        _run_on_loop(_listen(settings, listener, key, show_banner if announce else None))
    except AgentServerError as error:
        fail(f"{error.code}: {error.message}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _run_on_loop(work: Coroutine[Any, Any, int]) -> int:
    """Run on an event loop of uvloop, where that is installed: it is not for Windows."""
    with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
        return runner.run(work)


async def _serve(
    settings: Settings, listener: socket.socket, announce: Announce, line: socket.socket | None = None
) -> int:
    async with _server(settings) as server:
        key = await _prepare(server)
        return await _run(server, listener, key, announce, line)


async def _listen(settings: Settings, listener: socket.socket, key: str | None, announce: Announce | None) -> int:
    async with _server(settings) as server:
        return await _run(server, listener, key, announce)


async def _prepare_database(settings: Settings) -> tuple[str, str | None]:
    """The address of a database that is ready, and the local user's key."""
    async with _server(settings) as server:
        return server.database.url, await _prepare(server)


@asynccontextmanager
async def _server(settings: Settings) -> AsyncIterator[Server]:
    workspace = open_workspace(settings)
    database = await open_database(settings)
    try:
        yield create_server(settings, workspace, database)
    finally:
        await database.close()


async def _prepare(server: Server) -> str | None:
    """What is done once, however many processes serve; returns the local user's key."""
    settings, workspace, database = server.settings, server.workspace, server.database
    for remark in list_remarks(workspace):
        log.warning("workspace.remark", problem=str(remark))
    await check_direct(database)
    for table in await migrate(settings, workspace.root, database):
        # No warning: while a workspace is being written that is how its tables are made.
        log.info("table.unmigrated", table=table, hint="agent-server db revision MESSAGE")
    for table in await list_leftovers(database):
        log.warning("table.left_over", table=table, hint="agent-server db leftovers")
    # Only now: whether somebody can sign in stands in the database. Before the ingest, which takes the longest.
    if not _is_loopback(settings.host):
        _check_reach(settings, can_sign_in=bool(settings.issuers) or await somebody_can_sign_in(database))
    await load_seeds(database, workspace.seeds, workspace.root)
    await server.jobs.do(INGEST, lambda: _ingest(server))
    return await _local_key(settings, database)


async def _ingest(server: Server) -> None:
    embedder = server.runtime.resources[Embedder]
    workspace = server.workspace
    report = await ingest_with_progress(
        server.database,
        embedder,
        workspace.content,
        without=workspace.left_out.collections,
        later=lambda: server.jobs.ask(EMBED),
    )
    for problem in report.problems:
        log.warning("content.skipped", problem=str(problem))
    for remark in report.remarks:
        log.info("content.remark", remark=str(remark))
    log.info("content.ingested", added=report.added, changed=report.changed, removed=report.removed)


async def _run(
    server: Server,
    listener: socket.socket,
    key: str | None,
    announce: Announce | None,
    line: socket.socket | None = None,
) -> int:
    """Serve until a signal says to stop; returns the exit code. A byte from `line` says to read the workspace again."""
    app = create_app(server)
    http = Draining(app, server, key, announce)
    if line is not None and sys.platform != "win32":
        http.rereading = Rereading(app, line)
    await http.serve([listener])
    return 130 if http.interrupted else 0


async def _local_key(settings: Settings, database: Database) -> str | None:
    """The local user's key, kept in a file that only its owner reads; none outside development."""
    if settings.environment not in ("development", "test"):
        return None
    file = settings.workspace.resolve() / ".data" / KEY_FILE
    if file.is_file():
        key = file.read_text().strip()
        try:
            await resolve_caller(database, key)
            _keep_private(file, key)  # it may have been written by a version that left it open
            return key
        except AgentServerError:
            # The file may be older than the database, which then does not know the key.
            log.info("local_key.renewed")
    user = await get_user(database, LOCAL)
    async with database.transaction(user.id) as session:
        issued = await issue_key(session, user.id, name=LOCAL_KEY, scopes=["*"])
    _keep_private(file, issued.text)
    return issued.text


def _keep_private(file: Path, key: str) -> None:
    """Write the file anew, in a folder that only its owner opens."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.parent.chmod(0o700)
    # A file that is there keeps its mode, and may be open elsewhere. `mkstemp` makes one that only its owner reads.
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")
    with os.fdopen(handle, "w") as new:
        new.write(key + "\n")
    os.replace(name, file)
