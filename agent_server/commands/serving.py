"""agent-server serve | mcp"""

import asyncio
import json
import os
import signal
import socket
from pathlib import Path

import structlog
import uvicorn
from rich.console import Console
from watchfiles import PythonFilter, run_process

from agent_server.app import connect, create_app, create_server, documents, instructions, migrate
from agent_server.commands.knowledge import ingest_with_progress
from agent_server.commands.session import LOCAL, Session, fail, get_user, open_database
from agent_server.db import Database
from agent_server.errors import AgentServerError, InvalidInput
from agent_server.http.server import Server
from agent_server.identity.credentials import issue_key, resolve_caller
from agent_server.knowledge.embed import Embedder
from agent_server.knowledge.parse import SUFFIXES
from agent_server.log import configure_logging
from agent_server.mcp import create_mcp_server, serve_stdio
from agent_server.seed import load_seeds
from agent_server.settings import Settings, load_settings
from agent_server.version import VERSION
from agent_server.workspace import load_workspace

log = structlog.get_logger()

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
WATCHED = ("tools", "prompts", "content")
KEY_FILE = "local-key"


def serve(settings: Settings, reload: bool) -> int:
    if settings.host not in LOOPBACK and settings.environment == "development":
        raise InvalidInput(
            f"host: {settings.host} is reachable from other machines, and this is the development preset; "
            "set AGENT_SERVER_ENVIRONMENT=production first, or listen on 127.0.0.1"
        )
    if not reload:
        asyncio.run(_serve(settings))
        return 0
    root = settings.workspace.resolve()
    database = connect(settings)  # held here, so that the embedded server outlives the restarts
    os.environ["DATABASE_URL"] = database.url
    folders = [root / name for name in WATCHED if (root / name).is_dir()]
    run_process(
        *folders,
        target=_serve_again,
        args=(str(root), settings.host, settings.port),
        watch_filter=PythonFilter(extra_extensions=(*SUFFIXES, ".yaml", ".yml")),
        grace_period=0.5,
    )
    return 0


def _serve_again(root: str, host: str, port: int) -> None:
    """The server of one reload; a workspace with mistakes is reported, and waits for the next change."""
    settings = load_settings(workspace=Path(root), host=host, port=port)
    configure_logging(settings.log_level, settings.log_format)
    try:
        asyncio.run(_serve(settings))
    except AgentServerError as error:
        fail(f"{error.message}\nWaiting for a change.")
        signal.pause()


async def _serve(settings: Settings) -> None:
    workspace = load_workspace(settings.workspace)
    listener = _bound(settings)
    database = await open_database(settings)
    try:
        for table in await migrate(settings, workspace, database):
            log.warning("table.unmigrated", table=table, hint="agent-server db revision MESSAGE")
        await load_seeds(database, workspace.seeds)
        server = create_server(settings, workspace, database)
        report = await ingest_with_progress(database, server.runtime.resources[Embedder], workspace.content)
        for problem in report.problems:
            log.warning("content.skipped", problem=str(problem))
        log.info("content.ingested", added=report.added, changed=report.changed, removed=report.removed)
        key = await _local_key(settings, database)
        config = uvicorn.Config(
            create_app(server),
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,
            http="h11",  # httptools keeps trailing white space in header values, which MCP's header checks refuse
        )
        await _Announced(config, server, key).serve([listener])
    finally:
        await database.close()


def _bound(settings: Settings) -> socket.socket:
    """The socket to listen on, taken before the work of a start. Raises InvalidInput where that is not possible."""
    host, port = settings.host, settings.port
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise InvalidInput(
            f"port: {host}:{port} cannot be listened on ({error.strerror}); choose another with --port"
        ) from error
    return listener


class _Announced(uvicorn.Server):
    """Says where it is once it listens."""

    def __init__(self, config: uvicorn.Config, server: Server, key: str | None) -> None:
        super().__init__(config)
        self._parts, self._key = server, key

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]  # uvicorn's sockets
        await super().startup(sockets)  # type: ignore[arg-type]
        if self.started and self.servers:
            _announce(self._parts, self._key, self.servers[0].sockets[0].getsockname()[1])


def _announce(server: Server, key: str | None, port: int) -> None:
    host = server.settings.host
    base = f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{port}"  # noqa: S104  # compared, not bound
    out = Console(stderr=True, highlight=False, soft_wrap=True)
    model = server.model
    answers = (
        "no model key is set: answers are quoted from content/ (set OPENAI_API_KEY or another to change that)"
        if model.offline
        else model.title
    )
    out.print(f"\n  [bold]{server.settings.title}[/bold] is ready\n")
    out.print(f"  Page    {base}")
    if key is not None:
        out.print(f"  As you  {base}/#key={key}")
    out.print(f"  MCP     {base}/mcp")
    out.print(f"  API     {base}/docs")
    out.print(f"  Model   {answers}\n")
    bearer = key or "<API key: agent-server key create>"
    entry = {"type": "http", "url": f"{base}/mcp", "headers": {"Authorization": f"Bearer {bearer}"}}
    out.print("  For an MCP client:")
    out.print(f"  {json.dumps({'mcpServers': {'agent-server': entry}})}\n", markup=False)


async def _local_key(settings: Settings, database: Database) -> str | None:
    """The local user's key, kept in a file that only its owner reads; none outside development."""
    if settings.environment not in ("development", "test"):
        return None
    file = settings.workspace.resolve() / ".data" / KEY_FILE
    if file.is_file():
        key = file.read_text().strip()
        try:
            await resolve_caller(database, key)
            return key
        except AgentServerError:
            log.info("local_key.renewed")
    user = await get_user(database, LOCAL)
    async with database.transaction() as session:
        issued = await issue_key(session, user.id, name="local", scopes=["*"])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(mode=0o600)
    file.write_text(issued.text + "\n")
    return issued.text


async def mcp(session: Session) -> None:
    server = await session.server()
    caller = await session.caller()
    await serve_stdio(
        create_mcp_server(
            server.runtime,
            server.workspace.tools,
            name=server.settings.title,
            version=VERSION,
            instructions=instructions(server.workspace),
            caller=lambda: caller,
            documents=documents(server),
        )
    )
