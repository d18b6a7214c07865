"""One declaration, four surfaces: the same call, refusal, bad argument and not-found mean the same on each."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
from mcp import Client as McpClient
from mcp.client.streamable_http import streamable_http_client
from mcp_types import TextContent
from sqlmodel import col, select

from agent_server.audit import Audit
from agent_server.identity.credentials import issue_key
from agent_server.identity.resolver import resolve_caller
from agent_server.testing import Call, Say, ScriptedOpenAI, scripted_openai
from tests.commands import agent_server
from tests.conftest import ROOT, everything
from tests.server import Client, Start

VOLATILE = {"id", "created_at", "updated_at"}


@dataclass(frozen=True)
class Outcome:
    """`ok` and a result, or an error's code and message."""

    code: str
    value: Any


@dataclass
class Surfaces:
    """One server and the four ways to call a tool on it."""

    client: Client
    model: ScriptedOpenAI
    url: str

    async def agent(self, name: str, arguments: dict[str, Any], key: str) -> Outcome:
        self.model.script = [Call(name, arguments), Say("done")]
        body = {"message": "please", "agent": "tasks", "stream": False}
        await self.client.http.post("/api/chat", json=body, headers={"Authorization": f"Bearer {key}"})
        told = _parsed(next(m["content"] for m in self.model.requests[-1]["messages"][::-1] if m["role"] == "tool"))
        if told.code != "ok" or "confirmation" not in told.value:
            return told
        path = f"/api/confirmations/{told.value['confirmation']}"
        headers = {"Authorization": f"Bearer {key}"}
        confirmed = await self.client.http.post(path, json={"confirm": True}, headers=headers)
        body = confirmed.json()
        return Outcome("ok", body["output"]) if confirmed.status_code == 200 else Outcome(body["code"], body["detail"])

    async def mcp(self, name: str, arguments: dict[str, Any], key: str) -> Outcome:
        base = str(self.client.http.base_url)
        async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}) as http:
            transport = streamable_http_client(f"{base}/mcp", http_client=http)
            async with McpClient(transport) as mcp:
                result = await mcp.call_tool(name, arguments)
        (block,) = result.content
        assert isinstance(block, TextContent)
        text = block.text
        return _parsed(text) if result.is_error else Outcome("ok", result.structured_content)

    async def rest(self, name: str, arguments: dict[str, Any], key: str) -> Outcome:
        headers = {"Authorization": f"Bearer {key}"}
        response = await self.client.http.post(f"/api/tools/{name}", json=arguments, headers=headers)
        body = response.json()
        return Outcome("ok", body) if response.status_code == 200 else Outcome(body["code"], body["detail"])

    async def cli(self, name: str, arguments: dict[str, Any], key: str) -> Outcome:
        words = ("tool", "call", name, "--yes", "--json", json.dumps(arguments))
        variables = {"DATABASE_URL": self.url, "AGENT_SERVER_KEY": key}
        done = await asyncio.to_thread(agent_server, *words, cwd=ROOT, **variables)
        if done.returncode == 0:
            return Outcome("ok", json.loads(done.stdout))
        assert done.returncode == 1, done.stderr
        return _parsed(done.stderr.strip().splitlines()[-1])


def _parsed(text: str) -> Outcome:
    """JSON is a result; `code: message` an error."""
    try:
        return Outcome("ok", json.loads(text))
    except ValueError:
        code, _, message = text.partition(": ")
        return Outcome(code, message)


def _stable(outcome: Outcome) -> Outcome:
    """The outcome without what differs between any two calls."""
    if outcome.code != "ok":
        return outcome
    return Outcome("ok", {key: value for key, value in outcome.value.items() if key not in VOLATILE})


@pytest.fixture
async def surfaces(start: Start, stocked_url: str) -> AsyncIterator[Surfaces]:
    async with (
        scripted_openai([]) as model,
        start(openai_base_url=model.url, model="m") as client,
    ):
        yield Surfaces(client, model, stocked_url)


async def _key(client: Client, *scopes: str) -> tuple[str, UUID]:
    owner = (await resolve_caller(client.server.database, client.key)).id
    async with everything(client.server.database) as session:
        return (await issue_key(session, owner, name="t", scopes=scopes)).text, owner


async def _audit(client: Client, owner: UUID) -> list[tuple[str, str, str]]:
    async with everything(client.server.database) as session:
        rows = await session.execute(
            select(Audit.surface, Audit.action, Audit.outcome).where(Audit.owner_id == owner).order_by(col(Audit.at))
        )
        return [(surface, action, outcome) for surface, action, outcome in rows]


def _all(surfaces: Surfaces) -> dict[str, Callable[..., Awaitable[Outcome]]]:
    return {"agent": surfaces.agent, "mcp": surfaces.mcp, "rest": surfaces.rest, "cli": surfaces.cli}


@pytest.mark.parametrize(
    ("name", "arguments", "code"),
    [
        ("create_task", {"title": "Buy fins", "due": "2026-12-31"}, "ok"),
        ("list_tasks", {"status": "open"}, "ok"),
        ("create_task", {"title": ""}, "invalid_input"),
        ("create_task", {"title": "x", "colour": "red"}, "invalid_input"),
        ("create_task", {"title": "a\x00b"}, "invalid_input"),
        ("complete_task", {"task": str(uuid4())}, "not_found"),
        ("complete_task", {"task": "no such title"}, "not_found"),
    ],
)
async def test_a_call_has_one_outcome_and_one_audit_row_on_every_surface(
    surfaces: Surfaces, name: str, arguments: dict[str, Any], code: str
) -> None:
    key, owner = await _key(surfaces.client, "tasks:read", "tasks:write", "forms:read", "conversations:write")
    outcomes = {surface: _stable(await call(name, arguments, key)) for surface, call in _all(surfaces).items()}
    assert {outcome.code for outcome in outcomes.values()} == {code}
    assert len({json.dumps(outcome.value, sort_keys=True) for outcome in outcomes.values()}) == 1, outcomes
    assert await _audit(surfaces.client, owner) == [(surface, name, code) for surface in outcomes]


@pytest.mark.parametrize(("title", "code"), [("Buy fins", "ok"), ("no such title", "not_found")])
async def test_a_destructive_call_is_the_same_call_once_its_user_has_said_yes(
    surfaces: Surfaces, title: str, code: str
) -> None:
    key, owner = await _key(surfaces.client, "tasks:read", "tasks:write", "conversations:write")
    outcomes = {}
    for surface, call in _all(surfaces).items():
        await surfaces.rest("create_task", {"title": "Buy fins"}, key)
        outcomes[surface] = _stable(await call("delete_task", {"task": title}, key))
        await surfaces.rest("delete_task", {"task": "Buy fins"}, key)
    assert {outcome.code for outcome in outcomes.values()} == {code}
    assert len({json.dumps(outcome.value, sort_keys=True) for outcome in outcomes.values()}) == 1, outcomes
    deleted = [
        (surface, outcome)
        for surface, action, outcome in await _audit(surfaces.client, owner)
        if action == "delete_task"
    ]
    asked = [("agent", "asked")] if code == "ok" else []  # nobody is asked about what is not there
    assert [row for row in deleted if row[0] == "agent"] == [*asked, ("agent", code)]
    assert [row for row in deleted if row[0] in ("mcp", "cli")] == [("mcp", code), ("cli", code)]


async def test_a_caller_without_the_scope_is_refused_on_every_surface_and_nothing_happens(surfaces: Surfaces) -> None:
    key, owner = await _key(surfaces.client, "tasks:read", "conversations:write")
    for call in (surfaces.rest, surfaces.cli):
        outcome = await call("create_task", {"title": "x"}, key)
        assert outcome == Outcome("forbidden", "create_task needs the scope tasks:write, which this caller lacks")
    with pytest.raises(Exception) as refused:  # noqa: PT011  # whatever the client makes of a 403
        await surfaces.mcp("create_task", {"title": "x"}, key)
    assert "403" in repr(refused.value) or "scope" in repr(refused.value) or refused.value
    told = await surfaces.agent("create_task", {"title": "x"}, key)
    assert "not_found" in f"{told.code} {told.value}"
    offered = [tool["function"]["name"] for tool in surfaces.model.requests[0]["tools"]]
    assert "list_tasks" in offered
    assert "create_task" not in offered
    assert await _audit(surfaces.client, owner) == [
        (surface, "create_task", "forbidden") for surface in ("rest", "cli", "mcp")
    ]
    full, _ = await _key(surfaces.client, "*")
    assert (await surfaces.rest("list_tasks", {}, full)).value["items"] == []


async def test_what_one_surface_writes_the_others_read(surfaces: Surfaces) -> None:
    key, _ = await _key(surfaces.client, "*")
    await surfaces.mcp("create_task", {"title": "Service the regulator"}, key)
    for call in (surfaces.agent, surfaces.rest, surfaces.cli, surfaces.mcp):
        listed = (await call("list_tasks", {}, key)).value["items"]
        assert [task["title"] for task in listed] == ["Service the regulator"]


async def test_an_unknown_tool_is_named_as_such(surfaces: Surfaces) -> None:
    response = await surfaces.client.http.post("/api/tools/creat_task", json={}, headers=surfaces.client.auth)
    assert response.status_code == 404
    assert "create_task" in response.json()["detail"]
    words = ("tool", "call", "creat_task")
    done = await asyncio.to_thread(agent_server, *words, cwd=ROOT, DATABASE_URL=surfaces.url)
    assert done.returncode == 2
    assert "create_task" in done.stderr


async def test_the_openapi_document_has_every_tool_with_its_schemas(surfaces: Surfaces) -> None:
    document = (await surfaces.client.http.get("/openapi.json")).json()
    for tool in surfaces.client.server.workspace.tools.values():
        operation = document["paths"][f"/api/tools/{tool.name}"]["post"]
        given = operation["requestBody"]["content"]["application/json"]["schema"]
        assert set(given["properties"]) == set(tool.input_schema["properties"])
        assert operation["responses"]["200"]["content"]["application/json"]["schema"]
