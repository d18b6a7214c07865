"""A whole turn of an agent as one call of an MCP client."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from mcp import Client as McpClient
from mcp.client.streamable_http import streamable_http_client
from sqlalchemy import text

from agent_server.errors import NotFound
from agent_server.mcp.process import create_mcp
from agent_server.testing import AgentServer, Call, Calls, Say, Step, scripted_openai
from tests.conftest import everything
from tests.mcp.conftest import MODES, VERSIONS, Mode
from tests.mcp.test_sessions import open_session
from tests.server import Client, Start
from tests.test_workspace import lay_out

FLYING = "How long should I wait before flying after diving?"


@asynccontextmanager
async def connect(client: Client, mode: Mode, key: str | None = None) -> AsyncIterator[McpClient]:
    headers = {"Authorization": f"Bearer {key or client.key}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as http,
        McpClient(
            streamable_http_client(f"{client.http.base_url}/mcp", http_client=http),
            mode="auto" if mode == "modern" else mode,
        ) as mcp,
    ):
        yield mcp


async def ask(mcp: McpClient, **arguments: Any) -> dict[str, Any]:
    result = await mcp.call_tool("ask_agent", arguments)
    return dict(result.structured_content or {"refused": result.content[0].text})  # type: ignore[union-attr]


async def post(client: Client, mode: Mode, key: str, **arguments: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}", "MCP-Protocol-Version": VERSIONS[mode]}
    meta: dict[str, Any] = {}
    if mode == "modern":
        headers |= {"Mcp-Method": "tools/call", "Mcp-Name": "ask_agent"}
        prefix = "io.modelcontextprotocol/"
        meta = {"_meta": {f"{prefix}protocolVersion": VERSIONS[mode], f"{prefix}clientCapabilities": {}}}
    body = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "ask_agent", "arguments": arguments, **meta},
    }
    return await client.http.post("/mcp", json=body, headers=headers)


async def read_status(client: Client, turn: str) -> str:
    return str((await client.get(f"/api/turns/{turn}"))["status"])


@asynccontextmanager
async def asking(client: Client, message: str) -> AsyncIterator[tuple[str, httpx.AsyncClient]]:
    """A call that is under way: the id of its turn, which progress told, with the client that is to close."""
    headers = {
        **client.auth,
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": VERSIONS["legacy"],
    }
    body = {
        "jsonrpc": "2.0", "id": 7, "method": "tools/call",
        "params": {"name": "ask_agent", "arguments": {"message": message}, "_meta": {"progressToken": 1}},
    }  # fmt: skip
    async with (
        httpx.AsyncClient(base_url=client.http.base_url, timeout=60) as http,
        http.stream("POST", "/mcp", json=body, headers=headers) as response,
    ):
        async for line in response.aiter_lines():
            if line.startswith("data: ") and "turn_id: " in line:
                yield json.loads(line[6:])["params"]["message"].removeprefix("turn_id: "), http
                return


@pytest.mark.parametrize("mode", MODES)
async def test_nobody_asks_or_reads_more_than_in_a_chat(start: Start, mode: Mode) -> None:
    async with start() as client:
        mine = await client.ask("hello")
        reader = await client.new_key("conversations:read")
        async with connect(client, mode, reader) as mcp:
            assert "ask_agent" not in {tool.name for tool in (await mcp.list_tools()).tools}
        for arguments in ({"message": "hello"}, {"turn_id": mine["turn_id"], "stop": True}):
            refused = await post(client, mode, reader, **arguments)
            assert refused.status_code == 403
            assert "conversations:write" in refused.headers["www-authenticate"]
        async with connect(client, mode, await client.new_key()) as other:
            for arguments in (
                {"turn_id": mine["turn_id"]},
                {"turn_id": mine["turn_id"], "stop": True},
                {"message": "hello", "conversation_id": mine["conversation_id"]},
                {"turn_id": "x"},
                {},
                {"message": "hello", "agent": "nobody"},
            ):
                assert "refused" in await ask(other, **arguments), arguments
        assert await read_status(client, mine["turn_id"]) == "done"


@pytest.mark.parametrize("mode", MODES)
async def test_the_answer_comes_with_its_citations_and_grows_while_it_is_made(start: Start, mode: Mode) -> None:
    heard: list[str] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append(message or "")

    async with start() as client, connect(client, mode) as mcp:
        result = await mcp.call_tool("ask_agent", {"message": FLYING}, progress_callback=hear)
        answer = result.structured_content or {}
        assert not result.is_error
        assert "safety/flying-after-diving.md" in {citation["document"] for citation in answer["citations"]}
        assert (answer["status"], f"[{answer['citations'][0]['n']}]" in answer["text"]) == ("done", True)
        # What is told first is the id by which a lost answer can be had, then the text as far as there is any.
        assert heard[0] == f"turn_id: {answer['turn_id']}"
        texts = [message for message in heard[1:] if message != heard[0]]
        assert all(answer["text"].startswith(each) for each in texts)
        assert texts[-1] == answer["text"]
        # It is a turn as every other, and the conversation goes on.
        [message] = [one for one in (await client.get(f"/api/conversations/{answer['conversation_id']}/messages"))["items"] if one["role"] == "assistant"]  # fmt: skip
        assert message["text"] == answer["text"]
        more = await ask(mcp, message="and at altitude?", conversation_id=answer["conversation_id"])
        assert more["conversation_id"] == answer["conversation_id"]
        assert await ask(mcp, turn_id=answer["turn_id"]) == answer


async def test_who_lost_the_answer_has_it_from_another_replica_after_a_kill(start: Start) -> None:
    never = asyncio.Event()
    async with (
        scripted_openai([Say("one two three", hold=(2, never))]) as first,
        scripted_openai([Say("one two three four")]) as second,
        start(openai_base_url=first.url, model="m") as here,
        start(openai_base_url=second.url, model="m") as there,
    ):
        there.key = here.key
        async with asking(here, "Count to four") as (turn, _):
            pass
        # That its client has left stops nothing.
        assert await read_status(here, turn) == "running"
        async with everything(here.server.database) as session:
            await session.execute(text("update turn set owner = gen_random_uuid() where id = :id"), {"id": turn})
        async with connect(there, "modern") as mcp:
            answer = await ask(mcp, turn_id=turn)
        assert (answer["text"], answer["status"], answer["turn_id"]) == ("one two three four", "done", turn)


@pytest.mark.parametrize("by", ["notice", "turn_id"])
async def test_a_turn_is_stopped_when_its_client_says_so(start: Start, by: str) -> None:
    never = asyncio.Event()
    async with (
        scripted_openai([Say("one two three", hold=(2, never))]) as model,
        start(openai_base_url=model.url, model="m") as client,
        open_session(client.key, f"{client.http.base_url}/mcp") as session,
    ):
        url = f"{client.http.base_url}/mcp"
        call = {"name": "ask_agent", "arguments": {"message": "Count"}, "_meta": {"progressToken": 1}}
        body = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": call}
        async with session.http.stream("POST", url, json=body, headers=session.headers) as response:
            lines = response.aiter_lines()
            turn = next_id(await anext(line async for line in lines if "turn_id: " in line))
            if by == "notice":
                notice = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}}
                async with httpx.AsyncClient(timeout=30) as http:
                    assert (await http.post(url, json=notice, headers=session.headers)).status_code == 202
            else:
                async with connect(client, "modern") as mcp:
                    assert (await ask(mcp, turn_id=turn, stop=True))["status"] == "cancelled"
            rest = [json.loads(line[6:]) async for line in lines if line.startswith("data: ")]
        async with asyncio.timeout(20):  # its events end with the turn
            await client.http.get(f"/api/turns/{turn}/events", headers=client.auth, timeout=20)
        assert await read_status(client, turn) == "cancelled"
        if by == "turn_id":
            assert rest[-1]["result"]["structuredContent"]["status"] == "cancelled"
            assert rest[-1]["result"]["isError"]
        else:
            assert "error" in rest[-1]


def next_id(line: str) -> str:
    return str(json.loads(line.removeprefix("data: "))["params"]["message"]).removeprefix("turn_id: ")


async def test_what_destroys_asks_first_as_in_a_chat(start: Start) -> None:
    script: list[Step] = [
        Call("transfer_to_tasks", {}),
        Calls((Call("delete_task", {"task": "Buy fins"}),)),
        Say("Please confirm it."),
    ]
    async with scripted_openai(script) as model, start(openai_base_url=model.url, model="m") as client:
        made = await client.http.post("/api/tools/create_task", json={"title": "Buy fins"}, headers=client.auth)
        async with connect(client, "modern") as mcp:
            answer = await ask(mcp, message="delete the task about the fins")
        [question] = answer["confirmations"]
        assert (question["tool"], "Buy fins" in question["question"]) == ("delete_task", True)
        tasks = (await client.http.post("/api/tools/list_tasks", json={}, headers=client.auth)).json()["items"]
        assert [task["id"] for task in tasks] == [made.json()["id"]]
        said = await client.http.post(
            f"/api/confirmations/{question['id']}", json={"confirm": True}, headers=client.auth
        )
        assert said.status_code == 200, said.text


async def test_a_client_without_http_asks_as_well(agent_server: AgentServer) -> None:
    caller = agent_server.as_caller("*").caller
    async with McpClient(create_mcp(agent_server.server, caller)) as mcp:
        answer = await ask(mcp, message="hello")
        assert (answer["status"], bool(answer["text"])) == ("done", True)
        assert NotFound.code in (await ask(mcp, turn_id=answer["conversation_id"]))["refused"]


async def test_a_toolset_has_it_by_its_name_only(start_other: Start, tmp_path: Path) -> None:
    prompt = "---\nname: guide\ndescription: Answers.\n---\nYou answer.\n"
    sets = "look: {effect: read}\ndesk: {tools: [ask_agent]}\n"
    root = lay_out(tmp_path / "w", {"prompts/guide.md": prompt, "toolsets.yaml": sets})
    async with start_other(root) as client:

        async def send(toolset: str, method: str, **params: Any) -> dict[str, Any]:
            body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
            told = await client.http.post(f"/mcp/{toolset}", json=body, headers=client.auth)
            return dict(told.json())

        arguments = {"message": "hello"}
        refused = await send("look", "tools/call", name="ask_agent", arguments=arguments)
        assert refused["error"]["message"].startswith("There is no tool 'ask_agent'")
        assert (await client.get("/api/conversations"))["items"] == []
        listed = (await send("desk", "tools/list"))["result"]["tools"]
        assert [tool["name"] for tool in listed] == ["ask_agent"]
        answered = await send("desk", "tools/call", name="ask_agent", arguments=arguments)
        assert answered["result"]["structuredContent"]["status"] == "done"
