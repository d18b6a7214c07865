"""A real server on a free port, real keys, and clients of both protocol generations."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import httpx
import httpx2
import pytest
import uvicorn
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CLIENT_CAPABILITIES_META_KEY, PROTOCOL_VERSION_META_KEY
from starlette.applications import Starlette

from agent_server.caller import Caller
from agent_server.calls.call import Runtime
from agent_server.changes import Changes
from agent_server.db import Database
from agent_server.identity.credentials import issue_key
from agent_server.identity.resolver import create_resolver, resolve_caller
from agent_server.mcp import McpApp, Offers, Watching, mcp_app
from agent_server.settings import Settings
from agent_server.testing.serving import serving
from agent_server.tool import Tool
from tests.conftest import everything
from tests.mcp.notes import DOCUMENTS, TOOLS, Gate, Notes
from tests.mcp.offered import create_offers

Mode = Literal["modern", "legacy"]
MODES: tuple[Mode, ...] = ("modern", "legacy")
HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
VERSIONS: dict[Mode, str] = {"modern": "2026-07-28", "legacy": "2025-11-25"}


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> Mode:
    return request.param  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Notebook:
    """The served workspace, as `me` uses it with a key that may do everything."""

    url: str
    me: Caller
    key: str
    database: Database
    gate: Gate

    @asynccontextmanager
    async def client(self, mode: Mode, key: str | None = None, **more: Any) -> AsyncIterator[Client]:
        headers = {"Authorization": f"Bearer {key or self.key}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=60) as http,
            Client(
                streamable_http_client(self.url, http_client=http), mode="auto" if mode == "modern" else mode, **more
            ) as client,
        ):
            yield client

    async def post(
        self,
        mode: Mode,
        method: str,
        params: dict[str, Any],
        headers: dict[str, str | None] | None = None,
        capabilities: dict[str, Any] | None = None,
        meta: dict[str, Any] | None = None,
    ) -> httpx.Response:
        """A request as a client writes it, for looking at the answer's status and headers; None removes a header."""
        sent: dict[str, str | None] = {
            "Authorization": f"Bearer {self.key}",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": VERSIONS[mode],
        }
        if mode == "modern":
            sent |= {"Mcp-Method": method, "Mcp-Name": params.get("name", params.get("uri"))}
            said = {PROTOCOL_VERSION_META_KEY: VERSIONS[mode], CLIENT_CAPABILITIES_META_KEY: capabilities or {}}
            params = {**params, "_meta": {**said, **(meta or {})}}
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        async with httpx.AsyncClient() as http:
            present = {name: value for name, value in (sent | (headers or {})).items() if value is not None}
            return await http.post(self.url, json=body, headers=present)

    async def send(self, body: Any, headers: dict[str, str | None]) -> httpx.Response:
        """A message of before 2026 as it stands; None leaves a header out."""
        sent: dict[str, str | None] = {
            "Authorization": f"Bearer {self.key}",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": VERSIONS["legacy"],
        }
        present = {name: value for name, value in (sent | headers).items() if value is not None}
        async with httpx.AsyncClient(timeout=60) as http:
            return await http.post(self.url, json=body, headers=present)

    async def issue_key(self, *scopes: str) -> str:
        async with everything(self.database) as session:
            return (await issue_key(session, self.me.id, name="test", scopes=scopes)).text

    async def notes(self) -> list[str]:
        async with everything(self.database) as session:
            return await Notes(session, self.me).texts()


@asynccontextmanager
async def serve_mcp(app: McpApp) -> AsyncIterator[str]:
    """The address of `app`, served on a free port."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with app.run():
            yield

    starlette = Starlette(routes=app.routes, lifespan=lifespan)
    async with serving(starlette, uvicorn.Config(starlette, http="httptools", log_level="error")) as base:
        yield f"{base}/mcp"


@pytest.fixture
def settings() -> Settings:
    return Settings(allowed_hosts=("api.example.com",), tool_timeout=3600)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def changes() -> Changes:
    return Changes()


@pytest.fixture
def offers(tmp_path: Path, changes: Changes, database: Database, settings: Settings) -> Offers:
    renew = create_resolver(settings, database, agents=(), staff=()).renew
    return create_offers(tmp_path, Watching(changes, renew, database, seconds=0.2))


@pytest.fixture
def tools() -> Mapping[str, Tool[..., Any]]:
    """The tools that are served; a module of tests may have its own."""
    return TOOLS


@pytest.fixture
def resources(gate: Gate, changes: Changes) -> Mapping[type[Any], Any]:
    return {Gate: gate, Changes: changes}


@pytest.fixture
def app(
    database: Database,
    settings: Settings,
    resources: Mapping[type[Any], Any],
    tools: Mapping[str, Tool[..., Any]],
    offers: Offers | None,
) -> McpApp:
    return mcp_app(
        Runtime(settings=settings, database=database, resources=resources),
        tools,
        name="notes",
        version="1.0",
        instructions="Notes.",
        resolve=partial(resolve_caller, database),
        documents=DOCUMENTS,
        offers=offers,
    )


@pytest.fixture
async def notebook(app: McpApp, database: Database, me: Caller, gate: Gate) -> AsyncIterator[Notebook]:
    async with everything(database) as session:
        key = await issue_key(session, me.id, name="test", scopes=["*"])
    async with serve_mcp(app) as url:
        yield Notebook(url, me, key.text, database, gate)
        gate.open.set()
