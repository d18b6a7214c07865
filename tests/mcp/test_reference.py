"""The reference workspace over MCP, as real clients of both generations and over stdio see it."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from mcp import Client as McpClient
from mcp import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from tests import zygote
from tests.conftest import ROOT
from tests.server import Client, Start

EXPECTED = {
    "create_task", "list_tasks", "get_task", "update_task", "complete_task", "delete_task",
    "list_conversations", "get_conversation", "list_messages", "search_conversations", "delete_conversation",
    "capture_lead", "list_leads", "list_destinations", "get_destination", "search_sites", "get_site", "search_knowledge",
}  # fmt: skip


@asynccontextmanager
async def connect(client: Client, mode: str) -> AsyncIterator[McpClient]:
    async with (
        httpx2.AsyncClient(headers=client.auth) as http,
        McpClient(streamable_http_client(f"{client.http.base_url}/mcp", http_client=http), mode=mode) as mcp,
    ):
        yield mcp


async def _use(mcp: McpClient) -> list[str]:
    """Walk through the domains, and give the titles of the tasks."""
    listed = {tool.name: tool for tool in (await mcp.list_tools()).tools}
    assert set(listed) >= EXPECTED
    hints = {name: tool.annotations for name, tool in listed.items() if tool.annotations}
    assert hints["list_tasks"].read_only_hint
    assert hints["delete_task"].destructive_hint
    assert "destination" in listed["search_sites"].input_schema["properties"]

    async def call(name: str, **arguments: Any) -> Any:
        result = await mcp.call_tool(name, arguments)
        assert not result.is_error, result
        return result.structured_content

    task = await call("create_task", title="Service the regulator")
    await call("complete_task", task=task["id"])
    assert (await call("search_sites", destination="Red Sea", kind="wreck"))["items"]
    assert (await call("list_destinations", month=3))["items"]
    hits = (await call("search_knowledge", query="flying after diving"))["hits"]
    assert hits[0]["document"] == "safety/flying-after-diving.md"
    lead = await call("capture_lead", email="diver@example.com", interest="the Red Sea")
    assert lead["email"] == "diver@example.com"
    assert (await call("list_conversations"))["items"] == []
    return [item["title"] for item in (await call("list_tasks", status="all"))["items"]]


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_client_of_each_generation_uses_every_domain(start: Start, mode: str) -> None:
    async with start() as client, connect(client, mode) as mcp:
        assert await _use(mcp) == ["Service the regulator"]
        over_rest = await client.http.post("/api/tools/list_tasks", json={"status": "done"}, headers=client.auth)
        assert [task["title"] for task in over_rest.json()["items"]] == ["Service the regulator"]


async def test_the_command_serves_the_same_over_stdio(stocked_url: str) -> None:
    program, *arguments = zygote.command("agent_server", "mcp", "--workspace", str(ROOT))
    environment = {**os.environ, "DATABASE_URL": stocked_url}
    parameters = StdioServerParameters(command=program, args=arguments, env=environment)
    async with McpClient(parameters) as mcp:
        assert await _use(mcp) == ["Service the regulator"]
        answer = (await mcp.call_tool("ask_agent", {"message": "Can I dive with asthma?"})).structured_content or {}
        assert (answer["status"], answer["citations"] != []) == ("done", True)
