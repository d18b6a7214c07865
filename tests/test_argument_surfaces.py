"""Lists and objects as JSON text, and null, reach a tool in the same form from a model, an MCP client and over REST."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from mcp import Client as McpClient
from mcp.client.streamable_http import streamable_http_client
from pydantic import BaseModel

from agent_server import ToolContext, tool
from agent_server.testing import Call, Say, scripted_openai
from agent_server.workspace import Workspace, load_workspace
from tests.conftest import ROOT
from tests.mcp.conftest import MODES, Mode
from tests.server import Client, Start


class Box(BaseModel):
    """A box."""

    width: int
    labels: list[str] = []


class Order(BaseModel):
    """What the tool was given."""

    numbers: list[int]
    box: Box
    limit: int
    note: str | None


@tool(scope="probe:read", effect="read")
async def pack(
    context: ToolContext,
    numbers: list[int],
    box: Box,
    limit: int = 5,
    note: str | None = "none",
) -> Order:
    """Pack a box."""
    return Order(numbers=numbers, box=box, limit=limit, note=note)


PACKED = {"numbers": [1, 2], "box": {"width": 3, "labels": ["a"]}, "limit": 5, "note": None}
TYPED: dict[str, Any] = {"numbers": [1, 2], "box": {"width": 3, "labels": ["a"]}, "limit": None, "note": None}
SPELLED: dict[str, dict[str, Any]] = {
    "as the schema has them": TYPED,
    "a list as text": {**TYPED, "numbers": "[1, 2]"},
    "an object as text": {**TYPED, "box": '{"width": 3, "labels": ["a"]}'},
    "a list in an object as text": {**TYPED, "box": {"width": "3", "labels": '["a"]'}},
    "text twice": {**TYPED, "numbers": json.dumps("[1, 2]"), "box": json.dumps({"width": 3, "labels": '["a"]'})},
}
WRONG = {**TYPED, "numbers": '{"1": 2}'}


@pytest.fixture(scope="module")
def workspace() -> Workspace:
    """One agent with this tool."""
    reference = load_workspace(ROOT)
    agent = replace(reference.agents["knowledge"], tools=("pack",), handoffs=(), knowledge=())
    return replace(reference, tools={**reference.tools, "pack": pack}, agents={agent.name: agent}, entry=agent.name)


@asynccontextmanager
async def mcp(client: Client, mode: Mode) -> AsyncIterator[McpClient]:
    at = f"{client.http.base_url}/mcp"
    async with (
        httpx2.AsyncClient(headers=client.auth) as http,
        McpClient(streamable_http_client(at, http_client=http), mode="auto" if mode == "modern" else mode) as session,
    ):
        yield session


async def test_a_model_may_write_lists_and_objects_as_text_and_null(start: Start, workspace: Workspace) -> None:
    async with scripted_openai([]) as model, start(workspace=workspace, openai_base_url=model.url, model="m") as client:
        spelled: dict[str, dict[str, Any] | str] = {**SPELLED, "all of them, text twice": json.dumps(json.dumps(TYPED))}
        for how, arguments in spelled.items():
            model.requests.clear()
            model.script = [Call("pack", arguments), Say("Packed.")]
            assert (await client.ask("Pack it"))["text"] == "Packed.", how
            told = [m["content"] for m in model.requests[-1]["messages"] if m["role"] == "tool"]
            assert told == [json.dumps(PACKED)], how
        model.requests.clear()
        model.script = [Call("pack", WRONG), Say("No.")]
        await client.ask("Pack it")
        told = [m["content"] for m in model.requests[-1]["messages"] if m["role"] == "tool"]
        assert len(told) == 1 and "numbers: Input should be a valid list" in told[0]


@pytest.mark.parametrize("mode", MODES)
async def test_so_may_clients_of_mcp_and_rest(start: Start, workspace: Workspace, mode: Mode) -> None:
    async with start(workspace=workspace) as client, mcp(client, mode) as session:
        for how, arguments in SPELLED.items():
            result = await session.call_tool("pack", arguments)
            assert result.structured_content == PACKED, how
            over_rest = await client.http.post("/api/tools/pack", json=arguments, headers=client.auth)
            assert over_rest.json() == PACKED, how
        refused = await session.call_tool("pack", WRONG)
        assert refused.is_error
        assert "numbers: Input should be a valid list" in str(refused.content)
        over_rest = await client.http.post("/api/tools/pack", json=WRONG, headers=client.auth)
        assert over_rest.status_code == 422 and "numbers" in over_rest.text
