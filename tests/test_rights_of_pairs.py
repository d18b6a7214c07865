"""Pairs of credentials of one owner: what the second obtains, by itself or through a turn of the first, it may."""

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import httpx
import pytest
from mcp_types import CLIENT_CAPABILITIES_META_KEY, PROTOCOL_VERSION_META_KEY
from sqlalchemy import text

from agent_server.caller import beyond, covers
from agent_server.db import new_id
from agent_server.identity.credentials import issue_key
from agent_server.turns.accept import OnBusy
from tests.api.routes import BODIES, filled, routes
from tests.conftest import everything
from tests.server import Client, Start

CANARY = "canary of the owner"
SETS: Sequence[frozenset[str]] = [
    frozenset({"*"}),
    frozenset({"conversations:*", "tasks:*"}),
    frozenset({"conversations:*", "tasks:read", "keys:read"}),
    frozenset({"conversations:write", "leads:write", "account:read", "knowledge:read"}),
    frozenset({"conversations:write"}),
]
SLOW, ASKING = "How deep may I dive on nitrox 32?", "Show my tasks"
VERSION = "2026-07-28"


@dataclass
class Owner:
    """An owner on a server, and a key of it for each set of scopes."""

    client: Client
    keys: dict[frozenset[str], str]

    async def send(self, scopes: frozenset[str], method: str, path: str, **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.keys[scopes]}", **more.pop("headers", {})}
        return await self.client.http.request(method, path, headers=headers, **more)

    async def call_by_mcp(self, scopes: frozenset[str], tool: str) -> str:
        """What MCP answers to the call of a tool, whose arguments are wrong."""
        meta = {PROTOCOL_VERSION_META_KEY: VERSION, CLIENT_CAPABILITIES_META_KEY: {}}
        headers = {
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": VERSION,
            "Mcp-Method": "tools/call",
            "Mcp-Name": tool,
        }
        params = {"name": tool, "arguments": {"no such argument": 1}, "_meta": meta}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        return (await self.send(scopes, "POST", "/mcp", json=body, headers=headers)).text


async def make_owner(client: Client, *sets: frozenset[str]) -> Owner:
    owner = new_id()
    async with everything(client.server.database) as session:
        return Owner(client, {s: (await issue_key(session, owner, name="k", scopes=sorted(s))).text for s in sets})


# --- Directly

NOTHING = frozenset[str]()
ENDING = {("DELETE", "/api/me")}


async def test_each_route_is_open_to_whoever_holds_its_scope_and_to_nobody_else(start: Start) -> None:
    async with start(rate_per_caller=0, rate_per_address=0) as client:
        ways = [way for way in await routes(client) if way not in ENDING]
        owner = await make_owner(client, NOTHING, *SETS)

        async def ask(scopes: frozenset[str], method: str, path: str) -> tuple[int, str]:
            answer = await owner.send(scopes, method, filled(path), json=BODIES.get(path, {}))
            return answer.status_code, answer.text

        asked = {}
        for method, path in ways:
            status, body = await ask(NOTHING, method, path)
            if status == 403 and "needs the scope " in body:
                asked[method, path] = body.partition("needs the scope ")[2].partition(",")[0]
        assert len(asked) > 20
        for (method, path), scope in asked.items():
            answers = await asyncio.gather(*(ask(scopes, method, path) for scopes in SETS))
            for scopes, (status, body) in zip(SETS, answers, strict=True):
                assert (status != 403) is covers(scopes, scope), (method, path, scope, sorted(scopes), body)


async def test_each_tool_is_open_to_whoever_holds_its_scope_and_to_nobody_else(start: Start) -> None:
    async with start(rate_per_caller=0, rate_per_address=0) as client:
        owner = await make_owner(client, *SETS)
        for tool, scopes in itertools.product(client.server.workspace.tools.values(), SETS):
            refused = not covers(scopes, tool.scope)
            answer = await owner.send(scopes, "POST", f"/api/tools/{tool.name}", json={"no such argument": 1})
            assert (answer.status_code == 403) is refused, (tool.name, answer.text)
            said = await owner.call_by_mcp(scopes, tool.name)
            assert ("invalid_input" in said) is not refused, (tool.name, sorted(scopes), said)


# --- Through a turn


async def _take_turns(owner: Owner, first: frozenset[str], second: frozenset[str], on_busy: str) -> str | None:
    """What the second gets for a question that it asks while a message of the first's is being answered."""
    body: dict[str, Any] = {"message": SLOW, "agent": "knowledge"}
    # By its key it is known of each message who sent it.
    sent_by = [{"Idempotency-Key": f"{SETS.index(scopes)} {new_id()}"} for scopes in (first, second)]
    headers = {"Authorization": f"Bearer {owner.keys[first]}", **sent_by[0]}
    async with owner.client.http.stream("POST", "/api/chat", json=body, headers=headers) as answering:
        assert answering.status_code == 200
        conversation = answering.headers["X-Conversation-Id"]
        body = {"message": ASKING, "id": conversation, "on_busy": on_busy, "agent": "tasks"}
        got = await owner.send(second, "POST", "/api/chat", json=body, headers=sent_by[1])
    return got.text if got.status_code == 200 else None


@pytest.mark.parametrize("on_busy", get_args(OnBusy))
async def test_no_credential_obtains_more_than_it_may_through_a_turn_of_another(start: Start, on_busy: str) -> None:
    pairs = list(itertools.product(SETS[:4], repeat=2))
    limits = {"rate_per_caller": 0, "rate_per_address": 0, "turns_per_user": len(pairs)}
    async with start(offline_words_per_second=250, **limits) as client:
        owner = await make_owner(client, *SETS)
        made = await owner.send(SETS[0], "POST", "/api/tools/create_task", json={"title": CANARY})
        assert made.status_code == 200
        got = await asyncio.gather(*(_take_turns(owner, first, second, on_busy) for first, second in pairs))
        for (first, second), answer in zip(pairs, got, strict=True):
            if answer is not None and CANARY in answer:
                assert covers(second, "tasks:read"), (sorted(first), sorted(second))
        if on_busy != "reject":
            assert any(CANARY in (answer or "") for answer in got)
        await _check_turns(owner)


async def _check_turns(owner: Owner) -> None:
    """Each message, put into a turn or a turn of its own, is answered with no more than its sender's scopes."""
    statement = text("""
        select t.input -> 'caller' -> 'scopes', s.client_key from steer s join turn t on t.id = s.turn_id
        union all select input -> 'caller' -> 'scopes', client_key from turn where client_key is not null""")
    async with everything(owner.client.server.database) as session:
        rows = (await session.execute(statement)).all()
    for scopes, sender in rows:
        assert not beyond(scopes, SETS[int(sender.partition(" ")[0])]), sender
    assert len(rows) >= 16
