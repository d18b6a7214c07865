"""A change of prompts/ or content/ is taken over by the server that runs: nothing is imported for it."""

import asyncio
import socket

import structlog
from fastapi import FastAPI

from agent_server.app import EMBED, INGEST
from agent_server.asgi import take_over
from agent_server.changes import Changes
from agent_server.commands.terminal import fail
from agent_server.errors import AgentServerError, WorkspaceInvalid
from agent_server.inspection import open_workspace
from agent_server.knowledge.embedders.base import Embedder
from agent_server.knowledge.ingest import ingest
from agent_server.knowledge.resources import announce_pages
from agent_server.server import Server

log = structlog.get_logger()

PAGES, PROMPTS = b"c", b"p"
"""What is sent where pages of content/ have changed, and where only prompts have: then no page is read."""


class Rereading:
    """Reads the workspace again for what comes from `line`, on which it says first that it is there."""

    def __init__(self, app: FastAPI, line: socket.socket) -> None:
        self._app, self._line = app, line
        self._told = asyncio.Event()
        self._pages_changed = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._line.setblocking(False)
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._read_on())]
        self._line.send(b"\n")

    async def _listen(self) -> None:
        # Empty: who wrote to it is gone.
        while sent := await asyncio.get_running_loop().sock_recv(self._line, 64):
            self._pages_changed |= PAGES in sent
            self._told.set()

    async def _read_on(self) -> None:
        while True:
            await self._told.wait()
            # Before it reads: what changes meanwhile is read once more.
            self._told.clear()
            pages, self._pages_changed, read = self._pages_changed, False, False
            try:
                read = await reread(self._app, pages=pages)
            except Exception:  # the next change must find this at work
                log.exception("workspace.not_read")
            # Pages that changed beside a mistake are read with the version that has none.
            self._pages_changed |= pages and not read


async def reread(app: FastAPI, *, pages: bool) -> bool:
    """Take over the workspace as it is now, without `pages` all but content/, and say so.

    With a mistake in it the version before goes on, and this returns False.
    """
    server: Server = app.state.server
    try:
        workspace = await asyncio.to_thread(open_workspace, server.settings)
        if pages:
            await server.jobs.do(INGEST, lambda: _ingest(server))
        await take_over(app, workspace)
    except AgentServerError as error:
        mistakes = error.problems if isinstance(error, WorkspaceInvalid) else [error.message]
        fail("\n".join(map(str, mistakes)) + "\nThe version before goes on. Waiting for a change.")
        return False
    fail("Read. What is asked from now on is answered by it.")
    return True


async def _ingest(server: Server) -> None:
    embedder, later = server.runtime.resources[Embedder], lambda: server.jobs.ask(EMBED)
    workspace = server.workspace
    without = workspace.left_out.collections
    report = await ingest(server.database, embedder, workspace.content, without=without, later=later)
    announce_pages(server.runtime.resources[Changes], report)
    for problem in report.problems:
        fail(str(problem))
