"""A server at https://agents.example on which users let clients in, and a browser that knows Ann's password."""

import base64
import hashlib
import re
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest

from agent_server.app import create_server
from agent_server.asgi import create_app
from agent_server.db import Database
from agent_server.http.listener import create_config
from agent_server.identity.accounts import Accounts, Act
from agent_server.oauth.documents import Documents
from agent_server.server import Server
from agent_server.settings import load_settings
from agent_server.testing.serving import serving
from agent_server.workspace import Workspace, load_workspace
from tests.conftest import ROOT, fetch

ISSUER = "https://agents.example"
CALLBACK = "https://claude.ai/api/mcp/auth_callback"
PASSWORD = "a password of Ann's"
EMAIL = "ann@example.com"
VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode().rstrip("=")
SCOPES = "tasks:read tasks:write"
CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
VERSION = "2025-11-25"


class ToServer(httpx.AsyncBaseTransport):
    """Sends what is for the public address to where the server of a test is."""

    def __init__(self, base: str) -> None:
        self.base, self.inner = httpx.URL(base), httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert request.url.host == "agents.example", f"{request.url} leaves the server"
        url = request.url.copy_with(scheme="http", host=self.base.host, port=self.base.port)
        sent = httpx.Request(request.method, url, headers=request.headers, stream=request.stream)
        return await self.inner.handle_async_request(sent)

    async def aclose(self) -> None:
        await self.inner.aclose()


def fields_of(page: str) -> dict[str, Any]:
    """What a form would send as it is: its hidden fields and the scopes that are ticked."""
    inputs = [dict(re.findall(r'(\w+)="([^"]*)"', tag)) for tag in re.findall(r"<input[^>]*>", page)]
    hidden = {each["name"]: unescape(each["value"]) for each in inputs if each["type"] == "hidden"}
    return {**hidden, "scope": re.findall(r'name="scope" value="([^"]+)" checked', page)}


def address_of(page: str) -> str:
    """Where a page leads back to."""
    found = re.search(r'http-equiv="refresh" content="0; url=([^"]+)"', page)
    assert found, page
    return unescape(found[1])


def error_of(answer: httpx.Response) -> dict[str, str]:
    """What a client is told of an error, once its user goes back."""
    found = re.search(r'id="back" href="([^"]+)"', answer.text)
    assert found and answer.status_code == 400 and "location" not in answer.headers, answer.text
    where = unescape(found[1])
    assert where.startswith(f"{CALLBACK}?")
    return query_of(where)


def query_of(address: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}


@dataclass
class Site:
    """One replica, and a browser without scripts."""

    server: Server
    http: httpx.AsyncClient
    base: str
    state: str = field(default_factory=lambda: secrets.token_urlsafe(8))

    async def register(self, *redirects: str, **more: Any) -> dict[str, Any]:
        body = {"client_name": "Claude", "redirect_uris": redirects or [CALLBACK], **more}
        answer = await self.http.post("/oauth/register", json=body)
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def address(self, client: str, **more: Any) -> str:
        """Where a client sends its user. None leaves a parameter out."""
        asked = {
            "response_type": "code",
            "client_id": client,
            "redirect_uri": CALLBACK,
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
            "state": self.state,
            "scope": SCOPES,
            "resource": f"{ISSUER}/mcp",
            **more,
        }
        return f"/oauth/authorize?{urlencode({name: value for name, value in asked.items() if value is not None})}"

    async def ask(self, client: str, **more: Any) -> httpx.Response:
        """What the user's browser shows, or where it is sent to."""
        answer = await self.http.get(self.address(client, **more))
        where = answer.headers.get("location", "")
        return await self.http.get(where) if where.startswith(f"{ISSUER}/oauth/consent?") else answer

    async def decide(self, page: httpx.Response, **more: Any) -> httpx.Response:
        filled = {"email": EMAIL, "password": PASSWORD, "decision": "allow", **fields_of(page.text), **more}
        return await self.http.post("/oauth/consent", data=filled, headers={"Origin": ISSUER})

    async def allow(self, client: str, **more: Any) -> str:
        """The code that a client is given."""
        answer = await self.decide(await self.ask(client, **more))
        assert answer.status_code == 200, answer.text
        said = query_of(address_of(answer.text))
        assert said["iss"] == ISSUER
        return said["code"]

    async def exchange(self, client: str, code: str, **more: Any) -> httpx.Response:
        form = {
            "grant_type": "authorization_code",
            "client_id": client,
            "code": code,
            "code_verifier": VERIFIER,
            "redirect_uri": CALLBACK,
            **more,
        }
        return await self.post("/oauth/token", form)

    async def post(self, path: str, form: Mapping[str, Any], **headers: str) -> httpx.Response:
        present = {name: value for name, value in form.items() if value is not None}
        return await self.http.post(path, data=present, headers=headers)

    async def refresh(self, client: str, token: str, **more: Any) -> httpx.Response:
        form = {"grant_type": "refresh_token", "client_id": client, "refresh_token": token, **more}
        return await self.post("/oauth/token", form)

    async def connect(self, client: str | None = None, **more: Any) -> dict[str, Any]:
        """The tokens of a client that Ann lets in."""
        client = client or (await self.register())["client_id"]
        answer = await self.exchange(client, await self.allow(client, **more))
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = {**answer.json(), "client_id": client}
        return found

    async def call(self, token: str, tool: str = "list_tasks", path: str = "/mcp", **arguments: Any) -> httpx.Response:
        headers = {
            "Authorization": f"Bearer {token}",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": VERSION,
        }
        body = {**CALL, "params": {"name": tool, "arguments": arguments}}
        return await self.http.post(path, json=body, headers=headers)

    async def sign_in(self) -> dict[str, str]:
        """Ann's own credential."""
        answer = await self.http.post("/api/auth/login", json={"email": EMAIL, "password": PASSWORD})
        return {"Authorization": f"Bearer {answer.json()['access_token']}"}

    async def acts(self) -> list[tuple[str, str]]:
        """What is on record of clients, the first first."""
        rows = await fetch(self.server.database.url, "select action, outcome from audit order by at, id")
        return [(action, outcome) for action, outcome in rows if action.startswith("client.")]


Open = Callable[..., AbstractAsyncContextManager[Site]]
_workspaces: list[Workspace] = []


@pytest.fixture
def open_site(database: Database) -> Open:
    """Start a replica: `open_site(documents=..., **settings)`."""
    if not _workspaces:
        _workspaces.append(load_workspace(ROOT))

    @asynccontextmanager
    async def opened(
        *, documents: Documents | None = None, workspace: Workspace | None = None, **settings: Any
    ) -> AsyncIterator[Site]:
        values = {"environment": "test", "model": "offline", "workspace": ROOT, "public_url": ISSUER, "oauth": True}
        server = create_server(load_settings(**{**values, **settings}), workspace or _workspaces[0], database)
        app = create_app(server, documents=documents)
        async with (
            serving(app, create_config(app, server.settings)) as base,
            httpx.AsyncClient(base_url=ISSUER, transport=ToServer(base), timeout=30) as http,
        ):
            yield Site(server, http, base)

    return opened


async def make_user(site: Site, email: str = EMAIL, *roles: str) -> Any:
    accounts = Accounts(site.server.database, site.server.resolver)
    return await accounts.make_user(Act(surface="cli"), None, email, email=email, password=PASSWORD, roles=roles)


@pytest.fixture
async def site(open_site: Open) -> AsyncIterator[Site]:
    """A replica that Ann has an account on."""
    async with open_site() as site:
        await make_user(site)
        yield site
