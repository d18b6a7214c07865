"""A whole server: the reference workspace (or one made by a test) on real Postgres, over real HTTP."""

import os
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent_server.api import create_routers
from agent_server.app import create_server
from agent_server.asgi import create_app
from agent_server.db import Database, new_id
from agent_server.http.listener import create_config
from agent_server.identity.credentials import issue_key
from agent_server.knowledge.embedders.wordllama import WordLlama
from agent_server.protocols import find_protocols
from agent_server.protocols.base import Protocol
from agent_server.routing import Router
from agent_server.routing.workspaces import create_router
from agent_server.server import Server
from agent_server.settings import Settings, load_settings
from agent_server.testing.copies import DatabaseCopies
from agent_server.testing.server import fill
from agent_server.testing.serving import serving
from agent_server.workspace import Workspace, load_workspace
from tests.conftest import ROOT
from tests.pools import Pools
from tests.sse import Frame, read_frames


@dataclass
class Client:
    """A client of one running server, with the key of one user."""

    server: Server
    http: httpx.AsyncClient
    key: str

    @property
    def auth(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    async def chat(self, message: str, *, id: str | None = None, **headers: str) -> list[Frame]:
        """Send a message and read the whole stream."""
        body = {"message": message} | ({"id": id} if id else {})
        async with self.http.stream("POST", "/api/chat", json=body, headers={**self.auth, **headers}) as response:
            assert response.status_code == 200, await response.aread()
            return [frame async for frame in read_frames(response)]

    async def ask(self, message: str, *, id: str | None = None) -> dict[str, Any]:
        """Send a message and read the answer as one document."""
        body = {"message": message, "stream": False} | ({"id": id} if id else {})
        response = await self.http.post("/api/chat", json=body, headers=self.auth)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    async def get(self, path: str, **query: Any) -> Any:
        response = await self.http.get(path, params=query, headers=self.auth)
        assert response.status_code == 200, response.text
        return response.json()

    async def new_key(self, *scopes: str) -> str:
        """A key of another user."""
        user = new_id()
        async with self.server.database.transaction(user) as session:
            return (await issue_key(session, user, name="t", scopes=scopes or ["*"])).text


Start = Callable[..., AbstractAsyncContextManager[Client]]


@pytest.fixture
async def start(stocked_url: str, pools: Pools, _agent_copies: DatabaseCopies) -> AsyncIterator[Start]:
    """Start a server of the reference workspace: `start(**settings)`."""
    async with pools.open(stocked_url, _agent_copies) as database:
        yield starter(database, stocked=True)


@pytest.fixture
def start_other(database: Database) -> Start:
    """Start a server of another workspace: `start_other(root=..., **settings)`."""
    return starter(database)


# What hundreds of tests want of the reference workspace, and is made once.
_ROUTERS: list[Router] = []
_load_reference = cache(partial(load_workspace, ROOT))
_load_certificates = cache(ssl.create_default_context)
_find_protocols = cache(find_protocols)
_create_reference_routers = cache(lambda: create_routers(_load_reference()))
_SETTINGS: dict[tuple[object, ...], Settings] = {}


def _load_settings(values: Mapping[str, Any]) -> Settings:
    """The settings of the reference workspace; they are read again where the environment has changed."""
    variables = [(name, value) for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"]
    known = (repr(sorted(values.items())), Path.cwd(), *variables)
    if known not in _SETTINGS:
        _SETTINGS[known] = load_settings(**values)
    return _SETTINGS[known]


async def _reference_router() -> Router:
    if not _ROUTERS:
        _ROUTERS.append(await create_router(_load_reference(), WordLlama()))
    return _ROUTERS[0]


def starter(database: Database, *, stocked: bool = False) -> Start:
    """`stocked` says that seeds and content of the reference workspace are there."""

    @asynccontextmanager
    async def started(
        root: Path = ROOT,
        *,
        workspace: Workspace | None = None,
        protocols: Sequence[Protocol] | None = None,
        **settings: Any,
    ) -> AsyncIterator[Client]:
        values: dict[str, Any] = {"environment": "test", "offline_words_per_second": 0, "workspace": root}
        if "openai_base_url" not in settings:
            values["model"] = "offline"
        values |= settings
        is_reference = workspace is None and values["workspace"] == ROOT
        chosen = _load_settings(values) if is_reference else load_settings(**values)
        router = await _reference_router() if is_reference else None
        workspace = _load_reference() if is_reference else workspace or load_workspace(root)
        server = create_server(chosen, workspace, database, router=router)
        if not (is_reference and stocked):
            await fill(server)
        user = new_id()
        async with database.transaction(user) as session:
            key = (await issue_key(session, user, name="t", scopes=["*"])).text
        routers = _create_reference_routers() if is_reference else None
        app = create_app(server, _find_protocols() if protocols is None else protocols, routers=routers)
        async with (
            serving(app, create_config(app, server.settings)) as base,
            httpx.AsyncClient(base_url=base, timeout=30, verify=_load_certificates()) as http,
        ):
            yield Client(server, http, key)

    return started


@pytest.fixture
async def client(start: Start) -> AsyncIterator[Client]:
    """The reference workspace with its content, without a model key."""
    async with start() as client:
        yield client
