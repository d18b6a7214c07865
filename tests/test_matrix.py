"""Every way in x every caller: what is Alice's is reached by Alice only.

The ways in come from the registries: the routes of the app, the tools and documents of the workspace, the methods of
MCP. A new one is in here by itself; one that is open to everybody has to be named in OPEN.
"""

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi.routing import APIRoute
from mcp_types import CLIENT_CAPABILITIES_META_KEY, PROTOCOL_VERSION_META_KEY
from sqlalchemy import select
from sqlmodel import SQLModel

from agent_server.asgi import create_app
from agent_server.db import new_id, now
from agent_server.db.isolation import row_policy_of
from agent_server.identity.credentials import issue_guest, issue_key, revoke_key
from agent_server.identity.roles import define_roles
from agent_server.oauth.models import OAuthGrant
from tests.conftest import everything
from tests.rows import owned_tables
from tests.server import Client, Start

CANARY = "canary-of-alice"
OPEN = {
    ("GET", "/health"),
    ("GET", "/readyz"),
    ("GET", "/api/page"),
    ("GET", "/"),
    ("POST", "/api/session"),
    ("POST", "/api/chat"),  # makes a guest
    ("POST", "/api/lead"),  # makes a guest
    ("POST", "/api/auth/login"),
    ("POST", "/api/auth/refresh"),
    ("POST", "/api/hooks/{name}"),  # asks for a signature of the service
    ("GET", "/.well-known/oauth-protected-resource"),
    ("GET", "/.well-known/oauth-protected-resource/mcp"),
}
"""What one may ask for without a credential, beside the pages of the documentation."""
SIGNING_IN = {"/api/auth/login", "/api/auth/refresh"}
"""What asks for other credentials, which the matrix has not."""
FOR_GUESTS = {"capture_lead"}
FOR_STAFF = {"/api/feedback"}
"""What shows staff the rows of all callers, beside their tools: the other user's `*` is staff's, and a customer's scopes
are not."""
ENDING = {"/api/me", "/api/auth/logout"}
METHODS = ("tools/list", "resources/list", "resources/templates/list", "prompts/list")


@dataclass(frozen=True)
class Way:
    """A route, and the JSON schema of what it takes."""

    method: str
    path: str
    body: dict[str, Any] | None

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass
class World:
    """A server where Alice has something of everything; `credentials` are those of the others."""

    client: Client
    ids: dict[str, str] = field(default_factory=dict)
    credentials: dict[str, str | None] = field(default_factory=dict)

    @property
    def ways(self) -> Iterator[Way]:
        app = create_app(self.client.server)
        document = app.openapi()
        routes = sorted(_routes(app), key=lambda route: route.path_format in ENDING)  # these end the caller
        assert {route.path_format for route in routes} >= document["paths"].keys()
        for route in routes:
            for method in sorted((route.methods or set()) - {"HEAD", "OPTIONS"}):
                operation = document["paths"].get(route.path_format, {}).get(method.lower(), {})
                content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
                if not route.path_format.startswith(("/docs", "/openapi.json")):
                    yield Way(method, route.path_format, _resolved(content.get("schema"), document))

    async def send(self, way: Way, token: str | None, **headers: str) -> httpx.Response:
        path = way.path
        for name, value in self.ids.items():
            path = path.replace(f"{{{name}}}", value)
        if "{id}" in path:
            path = path.replace("{id}", self.ids[f"{way.path.split('/')[2]}.id"])
        if "{name}" in path:
            path = path.replace("{name}", "no_such_tool")
        body = None if way.body is None else self.filled(way.body)
        auth = {} if token is None else {"Authorization": f"Bearer {token}"}
        return await self.client.http.request(way.method, path, json=body, headers={**auth, **headers})

    def filled(self, schema: dict[str, Any]) -> Any:
        """The least that the schema takes, with Alice's ids wherever an id may stand."""
        if schema.get("type") != "object" or "properties" not in schema:
            return _least(schema)
        wanted = {n: s for n, s in schema["properties"].items() if n in schema.get("required", ()) or n in self.ids}
        return {name: self.ids.get(name, _least(about)) for name, about in wanted.items()}

    async def mcp(self, method: str, params: dict[str, Any], token: str | None) -> httpx.Response:
        version = "2026-07-28"
        meta = {PROTOCOL_VERSION_META_KEY: version, CLIENT_CAPABILITIES_META_KEY: {}}
        named = params.get("name", params.get("uri"))
        headers = {
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": version,
            "Mcp-Method": method,
            **({"Mcp-Name": named} if named else {}),
            **({} if token is None else {"Authorization": f"Bearer {token}"}),
        }
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}
        return await self.client.http.post("/mcp", json=body, headers=headers)

    async def rows_of_alice(self) -> dict[str, list[str]]:
        """All that is Alice's, as the database has it; without when her key was used last."""
        found = {}
        async with everything(self.client.server.database) as session:
            for table in owned_tables():
                policy = row_policy_of(table)
                assert policy is not None
                if policy.append_only:
                    continue
                columns = [c for c in table.columns if c.name not in ("last_used_at", "followed_at")]
                rows = await session.execute(
                    select(*columns).where(
                        table.c[policy.column].in_([UUID(self.ids["alice"]), UUID(self.ids["guest"])])
                    )
                )
                found[table.name] = sorted(repr(tuple(row)) for row in rows)
        return found


def _routes(router: Any) -> Iterator[APIRoute]:
    for route in router.routes:
        if isinstance(route, APIRoute):
            yield route
        elif (included := getattr(route, "original_router", None)) is not None:
            yield from _routes(included)


def _resolved(schema: Any, document: dict[str, Any]) -> Any:
    if isinstance(schema, dict) and "$ref" in schema:
        return _resolved(document["components"]["schemas"][schema["$ref"].rpartition("/")[2]], document)
    if isinstance(schema, dict) and "anyOf" in schema and "properties" not in schema:
        return next((_resolved(s, document) for s in schema["anyOf"] if s.get("type") != "null"), schema)
    return schema


def _least(schema: dict[str, Any]) -> Any:
    if "anyOf" in schema:
        return _least(schema["anyOf"][0])
    match schema.get("type"):
        case "string" if "enum" in schema:
            return schema["enum"][0]
        case "string" if schema.get("format") == "email":
            return "somebody@example.org"
        case "string" if schema.get("format") == "date":
            return "2026-01-01"
        case "string" if schema.get("format") == "uuid":
            return str(new_id())
        case "string":
            return "x" * max(8, schema.get("minLength", 0))
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case "array":
            return []
        case _:
            return {}


@pytest.fixture
async def world(start: Start) -> AsyncIterator[World]:
    async with start() as client:
        world = World(client)
        await _settle(world)
        yield world


async def _settle(world: World) -> None:
    client = world.client
    answer = await client.ask(f"Add {CANARY} to my list")
    rated = {"rating": "bad", "comment": CANARY}
    await client.http.put(f"/api/turns/{answer['turn_id']}/feedback", json=rated, headers=client.auth)
    task = await client.http.post("/api/tools/create_task", json={"title": CANARY}, headers=client.auth)
    await client.http.post("/api/lead", json={"email": f"{CANARY}@example.org", "name": CANARY}, headers=client.auth)
    own = {"name": CANARY, "text": f"# {CANARY}\n\nThe {CANARY} of Alice."}
    document = await client.http.post("/api/tools/add_my_document", json=own, headers=client.auth)
    report = await client.http.post("/api/tools/request_report", json={"topic": CANARY}, headers=client.auth)
    written = {"text": f"{CANARY} [1]", "sources": ["study/visa/cas.md"]}
    delivered = await client.http.post("/api/tools/write_report", json=written, headers=client.auth)
    assert delivered.json()["status"] == "delivered", delivered.text
    session = (await client.http.post("/api/session", json={"profile": {"name": CANARY}})).json()
    guest = {"Authorization": f"Bearer {session['token']}"}
    said = await client.http.post("/api/chat", json={"message": CANARY, "stream": False}, headers=guest)
    assert said.status_code == 200, said.text
    passage = (await client.ask("How long do I wait before flying?"))["sources"][0]["passage"]
    async with everything(client.server.database) as db:
        turn = SQLModel.metadata.tables["turn"]
        alice = (await db.execute(select(turn.c.owner_id).where(turn.c.id == UUID(answer["turn_id"])))).scalar_one()
        keys = {
            "other": await issue_key(db, new_id(), name="t", scopes=["*"]),
            "expired": await issue_key(db, alice, name="t", scopes=["*"], expires_at=now() - timedelta(seconds=1)),
            "revoked": await issue_key(db, alice, name="t", scopes=["*"]),
            # All that a user may do who is not of the staff.
            "customer": await issue_key(
                db, new_id(), name="t", scopes=sorted(define_roles({}, _scopes_of_tools(client)).of([]))
            ),
            "without scopes": await issue_key(db, alice, name="t", scopes=["nothing:read"]),
        }
        await revoke_key(db, keys["revoked"].row.id)
        key_of_alice = await issue_key(db, alice, name="t", scopes=["tasks:read"])
        grant = OAuthGrant(
            owner_id=alice,
            client_id="a client",
            client_name=CANARY,
            redirect_uri="https://client.example/",
            redirect_named=True,
            resource="https://agents.example/mcp",
            scopes=["tasks:read"],
            challenge="x",
            code_sha=b"x",
            code_expires_at=now(),
            exchanged_at=now(),
            expires_at=now() + timedelta(days=1),
        )
        db.add(grant)
        stranger = await issue_guest(db, new_id(), 1)
        old = await issue_guest(db, new_id(), -1)
    bought = await _buy(client, str(alice))
    asked = await client.http.post(
        "/api/chat", json={"message": f"Delete the task {task.json()['id']}", "stream": False}, headers=client.auth
    )
    (question,) = await fetch_ids(client, "confirmation", asked.text)
    world.credentials |= await _signed_in_and_out(client)
    world.ids |= {
        "clients.id": str(grant.id),
        "confirmations.id": question,
        "keys.id": str(key_of_alice.row.id),
        "users.id": str(alice),
        "alice": str(alice),
        "guest": session["id"],
        "session.id": session["id"],
        "conversation": answer["conversation_id"],
        "conversation_id": answer["conversation_id"],
        "turn": answer["turn_id"],
        "task": task.json()["id"],
        "report": report.json()["id"],
        "passage": passage,
        "document": document.json()["id"],
        **bought,
    }
    world.credentials |= {
        **{name: key.text for name, key in keys.items()},
        "guest": stranger.token,
        "expired guest": old.token,
        "nobody": None,
        "garbage": "ask_00000000000000000000000000000000.AAAA",
        "not a token": "Bearer",  # pragma: allowlist secret
    }


async def _buy(client: Client, account: str) -> dict[str, str]:
    """Have staff sell something to Alice, who has an account; what an order, its customer and its invoice are named by."""

    async def call(tool: str, **arguments: Any) -> Any:
        answer = await client.http.post(f"/api/tools/{tool}", json=arguments, headers=client.auth)
        assert answer.status_code == 200, answer.text
        return answer.json()

    customer = await call("add_customer", name=CANARY, address=CANARY, account_id=account)
    items = [{"product": "MUG-01", "quantity": 1}]
    order = await call("create_order", customer=customer["id"], items=items, ship_to=CANARY)
    await call("place_order", order=order["number"])
    invoice = await call("issue_invoice", order=order["number"])
    return {"order": str(order["number"]), "customer": customer["id"], "invoice": invoice["name"]}


def _scopes_of_tools(client: Client) -> set[str]:
    return {tool.scope for tool in client.server.workspace.tools.values()}


async def fetch_ids(client: Client, table: str, why: str) -> list[str]:
    async with everything(client.server.database) as db:
        found = [str(id) for id in (await db.execute(select(SQLModel.metadata.tables[table].c.id))).scalars()]
    assert found, why
    return found


async def _signed_in_and_out(client: Client) -> dict[str, str | None]:
    """Access tokens that ended: of a login that is over, and of a user who is disabled."""
    tokens: dict[str, str | None] = {}
    for name in ("signed out", "disabled"):
        who = {"email": f"{name.replace(' ', '.')}@example.org", "password": "0123456789 opens-everything"}
        made = await client.http.post("/api/users", json={"name": name, **who}, headers=client.auth)
        assert made.status_code == 201, made.text
        signed = await client.http.post("/api/auth/login", json=who)
        assert signed.status_code == 200, signed.text
        tokens[name] = signed.json()["access_token"]
        auth = {"Authorization": f"Bearer {tokens[name]}"}
        if name == "signed out":
            ended = await client.http.post("/api/auth/logout", headers=auth)
        else:
            path = f"/api/users/{made.json()['id']}"
            ended = await client.http.patch(path, json={"disabled": True}, headers=client.auth)
        assert ended.status_code in (200, 204), ended.text
    return tokens


REFUSED = ("expired", "revoked", "signed out", "disabled", "expired guest", "nobody", "garbage", "not a token")


@pytest.mark.parametrize("who", REFUSED)
async def test_whoever_is_not_known_is_refused_on_every_way_in(world: World, who: str) -> None:
    token, wrong = world.credentials[who], []
    for way in world.ways:
        answer = await world.send(way, token)
        known_by_nobody = token is None and (way.method, way.path) in OPEN and way.path not in SIGNING_IN
        expected = {200, 201, 404, 422} if known_by_nobody else {401}
        if token is not None and (way.method, way.path) in OPEN and answer.status_code in (200, 201, 404):
            continue  # it asks nobody who they are
        if answer.status_code not in expected or (
            answer.status_code == 401 and "www-authenticate" not in answer.headers
        ):
            wrong.append(f"{way}: {answer.status_code} {answer.text[:100]}")
        assert CANARY not in answer.text, str(way)
    for tool in world.client.server.workspace.tools:
        answer = await world.mcp("tools/call", {"name": tool, "arguments": {}}, token)
        wrong += [f"mcp {tool}: {answer.status_code}"] if answer.status_code != 401 else []
    for method in (*METHODS, "resources/read", "initialize", "server/discover", "subscriptions/listen", "nonsense"):
        answer = await world.mcp(method, {}, token)
        wrong += [f"mcp {method}: {answer.status_code}"] if answer.status_code != 401 else []
    assert wrong == []


async def test_another_user_finds_nothing_of_alices_and_changes_nothing(world: World) -> None:
    await _finds_nothing(world, "other", {200, 201, 202, 204, 404, 409, 422})


async def test_a_customer_finds_nothing_of_alices_even_where_staff_would(world: World) -> None:
    await _finds_nothing(world, "customer", {200, 201, 202, 204, 403, 404, 409, 422})


async def test_a_guest_finds_nothing_of_alices_and_calls_no_tool_but_forms(world: World) -> None:
    for tool in world.client.server.workspace.tools.values():
        answer = await world.client.http.post(
            f"/api/tools/{tool.name}",
            json=world.filled(tool.input_schema),
            headers={"Authorization": f"Bearer {world.credentials['guest']}"},
        )
        assert (answer.status_code == 403) == (tool.name not in FOR_GUESTS), tool.name
        answer = await world.mcp("tools/call", {"name": tool.name, "arguments": {}}, world.credentials["guest"])
        assert answer.status_code == 403, tool.name
    await _finds_nothing(world, "guest", {200, 201, 202, 204, 403, 404, 409, 422})


async def _finds_nothing(world: World, who: str, expected: set[int]) -> None:
    before = await world.rows_of_alice()
    token, wrong = world.credentials[who], []
    for_staff = {f"/api/tools/{tool.name}" for tool in world.client.server.workspace.tools.values() if tool.staff}
    for way in world.ways:
        if who == "other" and (way.path in FOR_STAFF or way.path in for_staff):
            continue
        answer = await world.send(way, token)
        names_alices = any(f"{{{name}}}" in way.path for name in ("conversation", "turn", "document", "id"))
        found = answer.status_code in ((403, 404) if names_alices else {401} if way.path in SIGNING_IN else expected)
        if not found:
            wrong.append(f"{way}: {answer.status_code} {answer.text[:100]}")
        if CANARY in answer.text or world.ids["conversation"] in answer.text.replace(json.dumps(way.body), ""):
            wrong.append(f"{way}: shows {answer.text[:200]}") if answer.status_code < 300 else None
    for tool in world.client.server.workspace.tools.values():
        if who == "other" and tool.staff:
            continue
        answer = await world.mcp("tools/call", {"name": tool.name, "arguments": world.filled(tool.input_schema)}, token)
        wrong += [f"mcp {tool.name}: {answer.text[:200]}"] if CANARY in answer.text else []
    for method in METHODS:
        answer = await world.mcp(method, {}, token)
        wrong += [f"mcp {method}: {answer.text[:200]}"] if CANARY in answer.text else []
    assert wrong == []
    assert await world.rows_of_alice() == before


async def test_cursors_and_keys_of_alices_lead_nobody_else_to_her_turn(world: World) -> None:
    http, other = world.client.http, {"Authorization": f"Bearer {world.credentials['other']}"}
    key = {"Idempotency-Key": "the-same"}
    body = {"message": f"Add {CANARY} to my list", "stream": False}
    mine = (await http.post("/api/chat", json=body, headers={**world.client.auth, **key})).json()
    theirs = (await http.post("/api/chat", json=body, headers={**other, **key})).json()
    assert mine["turn_id"] != theirs["turn_id"]
    assert mine["conversation_id"] != theirs["conversation_id"]
    cursor = {"Last-Event-ID": f"{mine['turn_id']}:1"}
    for path in (f"/api/chat/{theirs['conversation_id']}/stream", f"/api/turns/{mine['turn_id']}/events"):
        assert (await http.get(path, headers={**other, **cursor})).status_code == 404
    pages = await http.get("/api/conversations", params={"limit": 1}, headers=world.client.auth)
    listed = await http.get("/api/conversations", params={"cursor": pages.json()["next_cursor"]}, headers=other)
    assert {item["id"] for item in listed.json()["items"]} <= {theirs["conversation_id"]}


async def test_a_key_without_the_scope_is_refused_by_every_tool_everywhere_and_shown_none(world: World) -> None:
    token = world.credentials["without scopes"]
    auth = {"Authorization": f"Bearer {token}"}
    for tool in world.client.server.workspace.tools.values():
        answer = await world.client.http.post(
            f"/api/tools/{tool.name}", json=world.filled(tool.input_schema), headers=auth
        )
        assert (answer.status_code, tool.scope in answer.text) == (403, True), tool.name
        answer = await world.mcp("tools/call", {"name": tool.name, "arguments": {}}, token)
        assert answer.status_code == 403
        challenge = answer.headers["www-authenticate"]
        assert 'error="insufficient_scope"' in challenge
        assert tool.scope in challenge
    assert (await world.client.http.get("/api/tools", headers=auth)).json() == []
    for method in METHODS:
        answer = await world.mcp(method, {}, token)
        assert not any(tool in answer.text for tool in world.client.server.workspace.tools)
        assert "content://" not in answer.text


async def test_a_key_without_the_scope_is_refused_by_every_route(world: World) -> None:
    wrong = []
    for way in world.ways:
        answer = await world.send(way, world.credentials["without scopes"])
        asks_nobody = way.path in SIGNING_IN or (way.method, way.path) in OPEN - {
            ("POST", "/api/chat"),
            ("POST", "/api/lead"),
        }
        if not asks_nobody and answer.status_code != 403 and way.path not in UNSCOPED:
            wrong.append(f"{way}: {answer.status_code} {answer.text[:100]}")
        assert CANARY not in answer.text, str(way)
    assert wrong == []


UNSCOPED = {
    "/api/tools",
    "/api/tools/{name}",
    "/api/resources",
    "/api/resources/templates",
    "/api/resources/read",
    "/api/jobs",
    "/api/jobs/{job}",
    "/api/jobs/{job}/cancel",
}
"""What anybody who is known may ask for: it answers with what they may do."""
