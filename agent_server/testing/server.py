"""A server of a workspace, in the process of the test."""

import difflib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal
from uuid import UUID

import httpx
from fastapi import FastAPI
from sqlalchemy import delete
from sqlmodel import col

from agent_server.app import create_server
from agent_server.asgi import create_app
from agent_server.caller import Caller
from agent_server.calls.call import call_tool
from agent_server.db import Database, new_id
from agent_server.errors import NotFound
from agent_server.evals.answer import Answer, TurnFailed, collect
from agent_server.identity.credentials import issue_guest, issue_key
from agent_server.identity.models import Guest
from agent_server.knowledge.embedders.base import Embedder
from agent_server.knowledge.ingest import ingest
from agent_server.models.choice import OFFLINE
from agent_server.seed import load_seeds
from agent_server.server import Server
from agent_server.settings import Settings, load_settings
from agent_server.storage import migrate
from agent_server.testing.wire import InProcess, OpenAIModel
from agent_server.turns.accept import Message
from agent_server.turns.events import Failed
from agent_server.workspace import Workspace

_NOWHERE = "http://model.invalid/v1"
"""Where the server believes its model to be; requests go to the model of the test in its place."""


@dataclass
class AgentServer:
    """A running server and `model`, which answers in it."""

    server: Server
    model: OpenAIModel | None = None

    @property
    def workspace(self) -> Workspace:
        return self.server.workspace

    @property
    def database(self) -> Database:
        return self.server.database

    @cached_property
    def app(self) -> FastAPI:
        """The ASGI app: REST, the chat and the page."""
        return create_app(self.server)

    def as_caller(self, *scopes: str, kind: Literal["user", "guest"] = "user") -> "AgentCaller":
        """A new caller, who holds these scopes; a guest without any holds what the settings give to guests."""
        if kind == "guest" and not scopes:
            scopes = tuple(self.server.resolver.guest_scopes)
        return AgentCaller(self, Caller(id=new_id(), kind=kind, scopes=frozenset(scopes)))


@dataclass(frozen=True)
class AgentCaller:
    """Acts on the server as `caller`."""

    agent_server: AgentServer
    caller: Caller

    @property
    def id(self) -> UUID:
        return self.caller.id

    async def call(self, tool: str, /, **arguments: Any) -> Any:
        """Call a tool as REST does and return its result as JSON-ready data.

        Raises NotFound for a tool that is not there, Forbidden without its scope, InvalidInput for wrong arguments, and
        what the tool raises.
        """
        tools = self.agent_server.workspace.tools
        if tool not in tools:
            near = difflib.get_close_matches(tool, tools) or sorted(tools)
            raise NotFound(f"There is no tool {tool!r}; there are {', '.join(near)}")
        await self._arrive()
        runtime = self.agent_server.server.runtime
        return await call_tool(runtime, tools[tool], arguments, caller=self.caller, surface="rest")

    async def chat(self, message: str, *, conversation: UUID | str | None = None, agent: str | None = None) -> Answer:
        """Send a message and wait for the whole answer. Raises TurnFailed.

        `conversation` continues that of an earlier answer. `agent` names who answers; otherwise the message is routed.
        """
        await self._arrive()
        server = self.agent_server.server
        accepted = await server.accept(self.caller, Message(text=message, conversation_id=conversation, agent=agent))
        followed = server.hub.follow(self.id, accepted.turn.id)
        # None says only that nothing has come for a while.
        events = [numbered.event async for numbered in followed if numbered is not None]
        for event in events:
            if isinstance(event, Failed):
                # Users are told little of a provider's error; a failed test has to say what the model complained of.
                complaint = self.agent_server.model.complaint if self.agent_server.model else None
                raise TurnFailed(event.code, complaint or event.message)
        return collect(accepted.turn.conversation_id, events)

    async def _arrive(self) -> None:
        """Have a guest be one of the database's, which keeps nothing of others."""
        if self.caller.kind == "guest":
            async with self.agent_server.database.transaction(self.id) as session:
                if await session.get(Guest, self.id) is None:
                    await issue_guest(session, self.id, hours=1)

    async def key(self) -> str:
        """A key for REST and MCP, with the scopes of this caller; for a guest its token, with those of all guests."""
        async with self.agent_server.database.transaction(self.id) as session:
            if self.caller.kind == "guest":
                # Another token for one that has acted before.
                await session.execute(delete(Guest).where(col(Guest.id) == self.id))
                return (await issue_guest(session, self.id, hours=1)).token
            return (await issue_key(session, self.id, name="test", scopes=sorted(self.caller.scopes))).text

    @asynccontextmanager
    async def http(self) -> AsyncIterator[httpx.AsyncClient]:
        """An HTTP client of the server with a key of this caller. A stream comes as a whole, when it has ended."""
        headers = {"Authorization": f"Bearer {await self.key()}"}
        transport = httpx.ASGITransport(self.agent_server.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as client:
            yield client


@asynccontextmanager
async def run_agent_server(
    workspace: Workspace, url: str, *, model: OpenAIModel | None = None, settings: Mapping[str, Any] | None = None
) -> AsyncIterator[AgentServer]:
    """Run a server of `workspace` on the database at `url`, which `stock` has prepared.

    `model` answers for every agent. Without one the answers are quotes of the content.
    """
    database = Database(url)
    chosen = _settings(workspace, model, settings or {})
    transport = InProcess(model) if model else None
    # an agent's own `model:` would call a provider
    agents = workspace.agents if model else {n: replace(a, model=None) for n, a in workspace.agents.items()}
    server = create_server(chosen, replace(workspace, agents=agents), database, transport=transport)
    try:
        await server.runner.start()
        yield AgentServer(server, model)
    finally:
        await server.runner.close()
        await server.close_models()
        await server.resolver.close()
        await database.close()


async def stock(workspace: Workspace, url: str) -> None:
    """Make the tables of `workspace` in the database at `url`, and load its seeds and its content."""
    database, settings = Database(url), _settings(workspace, None, {})
    try:
        await migrate(settings, workspace.root, database)
        await fill(create_server(settings, workspace, database))
    finally:
        await database.close()


async def fill(server: Server) -> None:
    """Load the seeds and the content of a server's workspace into tables that are there."""
    await load_seeds(server.database, server.workspace.seeds)
    embedder, workspace = server.runtime.resources[Embedder], server.workspace
    await ingest(server.database, embedder, workspace.content, without=workspace.left_out.collections)


def _settings(workspace: Workspace, model: OpenAIModel | None, given: Mapping[str, Any]) -> Settings:
    """The settings of the environment, save those that would have a test reach a provider."""
    settings = load_settings(
        **{"environment": "test", "workspace": workspace.root, "migrate": True, "offline_words_per_second": 0, **given}
    )
    reached = (
        {"model": model.name, "openai_base_url": _NOWHERE} if model else {"model": OFFLINE, "openai_base_url": None}
    )
    return settings.model_copy(
        # Set after the environment is read: a key in the shell of a developer must not send a test to a provider.
        update={**reached, "model_fallback": given.get("model_fallback"), "openai_api_key": None}
    )
