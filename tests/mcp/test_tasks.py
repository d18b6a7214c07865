"""Calls that go on without their client: tasks in both generations of the protocol."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent_server import ToolContext, tool
from agent_server.errors import WorkspaceInvalid
from agent_server.identity.credentials import issue_key
from agent_server.tasks.store import prune_tasks
from tests.conftest import execute, fetch
from tests.mcp.conftest import Mode
from tests.mcp.long_tools import EXTENSION, call, lay_out_work, read_task, request, send
from tests.server import Client, Start

METHODS = {"modern": ("tasks/get", "tasks/update", "tasks/cancel"), "legacy": ("tasks/get", "tasks/result", "tasks/cancel")}  # fmt: skip


@pytest.fixture
async def work(start_other: Start, tmp_path: Path) -> AsyncIterator[Client]:
    toolsets = "looking: {tools: [look]}\n"
    async with start_other(lay_out_work(tmp_path / "w", **{"toolsets.yaml": toolsets})) as client:
        yield client


async def ask(client: Client, mode: Mode, method: str, key: str | None = None, **params: Any) -> dict[str, Any]:
    return await send(client.http, key or client.key, mode, method, params)


async def begin(client: Client, mode: Mode, name: str, **arguments: Any) -> str:
    return str(read_task(await ask(client, mode, "tools/call", **call(mode, name, **arguments)))["taskId"])


async def until(client: Client, mode: Mode, task: str, *statuses: str) -> dict[str, Any]:
    """The task once it has one of these states."""
    async with asyncio.timeout(20):
        while True:
            found = (await ask(client, mode, "tasks/get", taskId=task))["result"]
            if found["status"] in statuses:
                return dict(found)
            await asyncio.sleep(0.05)


async def lines(client: Client) -> list[str]:
    found = await fetch(client.server.database.url, "select action from audit where outcome = 'note' order by at")
    return [line for (line,) in found]


async def read_result(client: Client, mode: Mode, task: str) -> dict[str, Any]:
    """What the call of a task returned."""
    if mode == "legacy":
        answer = await ask(client, mode, "tasks/result", taskId=task)
        return dict(answer["result"])
    return dict((await until(client, mode, task, "completed"))["result"])


async def test_a_task_is_nobody_elses_by_any_method(work: Client, mode: Mode, tmp_path: Path) -> None:
    task = await begin(work, mode, "write_line", folder=str(tmp_path), line="mine")
    other = await work.new_key()
    for method in METHODS[mode]:
        refused = await ask(work, mode, method, other, taskId=task)
        assert refused["error"]["code"] == -32602, method
        nothing = await ask(work, mode, method, other, taskId=task[:-1] + ("0" if task[-1] != "0" else "1"))
        assert nothing["error"]["message"][:22] == refused["error"]["message"][:22]
    if mode == "legacy":
        assert (await ask(work, mode, "tasks/list", other))["result"] == {"tasks": []}
    (tmp_path / "open").touch()
    assert (await read_result(work, mode, task))["content"] == [{"type": "text", "text": "mine"}]


async def test_a_key_that_may_not_use_the_tool_has_nothing_of_its_tasks(
    work: Client, mode: Mode, tmp_path: Path
) -> None:
    task = await begin(work, mode, "write_line", folder=str(tmp_path), line="mine")
    me = (await fetch(work.server.database.url, "select owner_id from mcp_task"))[0][0]
    async with work.server.database.transaction(me) as session:
        reader = (await issue_key(session, me, name="reader", scopes=["work:read"])).text
    for method in METHODS[mode]:
        assert (await ask(work, mode, method, reader, taskId=task))["error"]["code"] == -32602, method
    in_set = await send(work.http, work.key, mode, "tasks/get", {"taskId": task}, path="/mcp/looking")
    assert in_set["error"]["code"] == -32602
    refused = await ask(work, mode, "tools/call", reader, **call(mode, "write_line", folder="x", line="y"))
    assert refused["error"]["data"]["scope"] == "work:do"
    (tmp_path / "open").touch()
    assert (await read_result(work, mode, task))["content"][0]["text"] == "mine"


async def test_a_task_goes_on_by_itself_and_its_result_can_be_had_again_and_again(
    work: Client, mode: Mode, tmp_path: Path
) -> None:
    begun = read_task(await ask(work, mode, "tools/call", **call(mode, "write_line", folder=str(tmp_path), line="x")))
    assert begun["status"] == "working"
    assert begun["ttlMs" if mode == "modern" else "ttl"] == 24 * 3600 * 1000
    working = await until(work, mode, begun["taskId"], "working")
    assert "result" not in working
    (tmp_path / "open").touch()
    for _ in range(2):
        result = await read_result(work, mode, begun["taskId"])
        assert result["content"] == [{"type": "text", "text": "x"}]
    assert await lines(work) == ["x"]
    if mode == "legacy":
        assert result["_meta"] == {"io.modelcontextprotocol/related-task": {"taskId": begun["taskId"]}}
        [listed] = (await ask(work, mode, "tasks/list"))["result"]["tasks"]
        assert (listed["taskId"], listed["status"]) == (begun["taskId"], "completed")


async def test_a_task_that_is_cancelled_has_no_effect(work: Client, mode: Mode, tmp_path: Path) -> None:
    task = await begin(work, mode, "write_line", folder=str(tmp_path), line="x")
    async with asyncio.timeout(20):
        while (await until(work, mode, task, "working")).get("statusMessage") != "waiting":
            pass
    cancelled = (await ask(work, mode, "tasks/cancel", taskId=task))["result"]
    if mode == "legacy":
        assert cancelled["status"] == "cancelled"
        assert (await ask(work, mode, "tasks/cancel", taskId=task))["error"]["data"] == {"code": "conflict"}
        assert (await ask(work, mode, "tasks/result", taskId=task))["error"]["code"] == -32800
    else:
        assert (await ask(work, mode, "tasks/cancel", taskId=task))["result"]["resultType"] == "complete"
    (tmp_path / "open").touch()
    assert (await until(work, mode, task, "cancelled", "completed"))["status"] == "cancelled"
    again = await begin(work, mode, "write_line", folder=str(tmp_path), line="y")
    await read_result(work, mode, again)
    assert await lines(work) == ["y"]


async def test_a_call_that_fails_is_a_result_that_says_so(work: Client, mode: Mode) -> None:
    task = await begin(work, mode, "refuse")
    ended = await until(work, mode, task, "completed", "failed")
    assert ended["status"] == ("completed" if mode == "modern" else "failed")
    result = await read_result(work, mode, task)
    assert result["isError"]
    assert result["content"] == [{"type": "text", "text": "conflict: not today"}]


async def test_who_does_not_ask_for_a_task_waits_for_the_result(work: Client, mode: Mode, tmp_path: Path) -> None:
    (tmp_path / "open").touch()
    params = {"name": "write_line", "arguments": {"folder": str(tmp_path), "line": "x"}}
    answer = await send(work.http, work.key, mode, "tools/call", params, tasks=False)
    assert answer["result"]["content"] == [{"type": "text", "text": "x"}]
    assert await fetch(work.server.database.url, "select count(*) from mcp_task") == [(0,)]


async def test_what_is_not_long_is_no_task(work: Client, mode: Mode) -> None:
    answer = await ask(work, mode, "tools/call", **call(mode, "look"))
    if mode == "legacy":
        assert answer["error"]["code"] == -32601
    else:
        assert answer["result"]["structuredContent"] == {"result": 1}


async def test_a_task_asks_its_user_and_goes_on(work: Client) -> None:
    task = await begin(work, "modern", "fit")
    waiting = await until(work, "modern", task, "input_required")
    [(name, asked)] = waiting["inputRequests"].items()
    assert asked["params"]["message"] == "Which size?"
    other = {"other": {"action": "accept", "content": {"size": 1}}}
    await ask(work, "modern", "tasks/update", taskId=task, inputResponses=other)
    assert (await until(work, "modern", task, "input_required"))["inputRequests"].keys() == {name}
    given = {name: {"action": "accept", "content": {"size": 42}}}
    told = await ask(work, "modern", "tasks/update", taskId=task, inputResponses=given)
    assert told["result"]["resultType"] == "complete"
    assert (await read_result(work, "modern", task))["content"][0]["text"] == "size 42"
    # What the run before wrote is rolled back.
    assert await lines(work) == ["begun"]


async def test_each_generation_has_the_methods_that_it_defines(work: Client) -> None:
    legacy = await begin(work, "legacy", "refuse")
    modern = await begin(work, "modern", "refuse")
    for method in ("tasks/list", "tasks/result"):
        assert (await ask(work, "modern", method, taskId=modern))["error"]["code"] == -32601
    assert (await ask(work, "legacy", "tasks/update", taskId=legacy, inputResponses={}))["error"]["code"] == -32601
    discovered = await ask(work, "modern", "server/discover")
    assert discovered["result"]["capabilities"]["extensions"] == {EXTENSION: {}}
    hello: dict[str, Any] = {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "t", "version": "1"},
    }
    told = (await ask(work, "legacy", "initialize", **hello))["result"]["capabilities"]
    assert told["tasks"] == {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}}
    listed = {tool["name"]: tool for tool in (await ask(work, "legacy", "tools/list"))["result"]["tools"]}
    assert listed["write_line"]["execution"] == {"taskSupport": "optional"}
    assert listed["ask_agent"]["execution"] == {"taskSupport": "optional"}
    assert "execution" not in listed["look"]


async def test_a_client_of_2026_declares_tasks_and_names_them_in_a_header(work: Client) -> None:
    task = await begin(work, "modern", "refuse")
    for method in METHODS["modern"]:
        undeclared = await send(work.http, work.key, "modern", method, {"taskId": task}, tasks=False)
        assert undeclared["error"]["code"] == -32021
        assert undeclared["error"]["data"] == {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
        params = {"taskId": task}
        other = await send(work.http, work.key, "modern", method, params, headers={"Mcp-Name": "other"})
        assert other["error"]["code"] == -32020


async def test_a_caller_has_so_many_open_tasks(start_other: Start, mode: Mode, tmp_path: Path) -> None:
    async with start_other(lay_out_work(tmp_path / "w"), tasks_per_user=2) as work:
        for line in "ab":
            await begin(work, mode, "write_line", folder=str(tmp_path), line=line)
        refused = await ask(work, mode, "tools/call", **call(mode, "write_line", folder=str(tmp_path), line="c"))
        told = refused["error"]["data"]["code"] if mode == "legacy" else refused["result"]["content"][0]["text"]
        assert told.startswith("too_many")
        other = await work.new_key()
        read_task(
            await ask(work, mode, "tools/call", other, **call(mode, "write_line", folder=str(tmp_path), line="d"))
        )
        (tmp_path / "open").touch()


async def test_an_agent_is_asked_by_a_task(work: Client, mode: Mode) -> None:
    task = await begin(work, mode, "ask_agent", message="hello")
    answer = (await read_result(work, mode, task))["structuredContent"]
    assert (answer["status"], bool(answer["text"])) == ("done", True)
    turn = await work.get(f"/api/turns/{answer['turn_id']}")
    assert turn["status"] == "done"


async def test_a_client_of_before_2026_is_asked_while_it_waits_for_the_result(work: Client) -> None:
    capabilities: dict[str, Any] = {"elicitation": {"form": {}}}
    hello = {"protocolVersion": "2025-11-25", "capabilities": capabilities, "clientInfo": {"name": "t", "version": "1"}}
    body, headers = request("legacy", "initialize", hello)
    headers |= work.auth
    headers["Mcp-Session-Id"] = (await work.http.post("/mcp", json=body, headers=headers)).headers["Mcp-Session-Id"]
    begun = await send(work.http, work.key, "legacy", "tools/call", call("legacy", "fit"), headers=headers)
    task = read_task(begun)["taskId"]
    body, _ = request("legacy", "tasks/result", {"taskId": task})
    async with work.http.stream("POST", "/mcp", json=body, headers=headers) as response:
        told = (json.loads(line[5:]) async for line in response.aiter_lines() if line.startswith("data: {"))
        asked = await anext(told)
        assert asked["method"] == "elicitation/create"
        assert asked["params"]["_meta"] == {"io.modelcontextprotocol/related-task": {"taskId": task}}
        assert (await until(work, "legacy", task, "input_required"))["status"] == "input_required"
        answer = {"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "accept", "content": {"size": 40}}}
        async with httpx.AsyncClient(base_url=work.http.base_url) as http:
            assert (await http.post("/mcp", json=answer, headers=headers)).status_code == 202
        assert (await anext(told))["result"]["content"][0]["text"] == "size 40"
    assert await lines(work) == ["begun"]


async def test_a_client_of_before_2026_is_told_how_its_tasks_are(work: Client, tmp_path: Path) -> None:
    headers = {**work.auth, "Mcp-Session-Id": "mine", "Accept": "text/event-stream"}
    task, other = "", await work.new_key()
    async with work.http.stream("GET", "/mcp", headers=headers) as response:
        told = (json.loads(line[5:]) async for line in response.aiter_lines() if line.startswith("data: {"))
        async with httpx.AsyncClient(base_url=work.http.base_url) as http:
            params = call("legacy", "write_line", folder=str(tmp_path), line="x")
            await send(http, other, "legacy", "tools/call", params)
            task = read_task(await send(http, work.key, "legacy", "tools/call", params))["taskId"]
        (tmp_path / "open").touch()
        async with asyncio.timeout(20):
            while (message := await anext(told))["params"]["status"] != "completed":
                assert message["params"]["taskId"] == task
    assert message["method"] == "notifications/tasks/status"
    assert message["params"]["taskId"] == task


async def test_a_key_makes_a_call_count_once(work: Client, mode: Mode, tmp_path: Path) -> None:
    (tmp_path / "open").touch()
    params = {"name": "write_now", "arguments": {"folder": str(tmp_path), "line": "x"}}

    async def write(key: Any, of: str | None = None, **more: Any) -> dict[str, Any]:
        meta = {"idempotencyKey": key}
        return await send(work.http, of or work.key, mode, "tools/call", {**params, **more}, tasks=False, meta=meta)

    answers = await asyncio.gather(*(write("k") for _ in range(5)))
    assert [answer["result"]["content"][0]["text"] for answer in answers] == ["x"] * 5
    assert await lines(work) == ["x"]
    # A key is a caller's own, and of one call.
    await write("k", await work.new_key())
    await write("l")
    assert await lines(work) == ["x"] * 3
    refused = await write("k", arguments={"folder": str(tmp_path), "line": "y"})
    assert "idempotencyKey: was sent with another call" in refused["result"]["content"][0]["text"]
    for wrong in ("", "k" * 201, 7):
        assert "idempotencyKey" in (await write(wrong))["result"]["content"][0]["text"]
    assert await lines(work) == ["x"] * 3
    # No client was given the id of such a call.
    [(id,), *_] = await fetch(work.server.database.url, "select id from mcp_task")
    assert (await ask(work, mode, "tasks/get", taskId=str(id)))["error"]["code"] == -32602
    if mode == "legacy":
        assert (await ask(work, mode, "tasks/list"))["result"] == {"tasks": []}


async def test_a_key_makes_a_question_to_an_agent_count_once(work: Client, mode: Mode) -> None:
    params = {"name": "ask_agent", "arguments": {"message": "hello"}}
    turns = {
        (await send(work.http, work.key, mode, "tools/call", params, tasks=False, meta={"idempotencyKey": "k"}))[
            "result"
        ]["structuredContent"]["turn_id"]
        for _ in range(2)
    }
    assert len(turns) == 1


async def test_a_task_that_is_begun_again_with_its_key_is_the_same(work: Client, mode: Mode) -> None:
    tasks = {
        read_task(
            await send(work.http, work.key, mode, "tools/call", call(mode, "refuse"), meta={"idempotencyKey": "k"})
        )["taskId"]
        for _ in range(2)
    }
    assert len(tasks) == 1


async def test_a_call_with_a_key_asks_its_user_as_any_other(work: Client) -> None:
    params = {"name": "fit_now", "arguments": {}}
    meta = {"idempotencyKey": "k"}
    asked = (await send(work.http, work.key, "modern", "tools/call", params, meta=meta))["result"]
    assert asked["resultType"] == "input_required"
    given = {name: {"action": "accept", "content": {"size": 39}} for name in asked["inputRequests"]}
    more = {**params, "requestState": asked["requestState"], "inputResponses": given}
    for _ in range(2):
        answer = (await send(work.http, work.key, "modern", "tools/call", more, meta=meta))["result"]
        assert answer["content"][0]["text"] == "size 39"
        more = params
    assert await lines(work) == ["begun"]
    other = await work.new_key()
    stolen = {**params, "requestState": asked["requestState"], "inputResponses": given}
    assert (await send(work.http, other, "modern", "tools/call", stolen))["error"]["code"] == -32602


def test_what_asks_before_something_is_lost_is_not_long() -> None:
    with pytest.raises(WorkspaceInvalid, match="tool drop: long is for a tool that is not destructive"):

        @tool(scope="work:do", effect="stored", destructive=True, long=True)
        async def drop(context: ToolContext) -> None:
            """Drop all."""


async def test_what_is_over_is_removed(work: Client, mode: Mode) -> None:
    task = await begin(work, mode, "refuse")
    await read_result(work, mode, task)
    assert await prune_tasks(work.server.database) == 0
    await execute(work.server.database.url, "update mcp_task set expires_at = now() - interval '1 minute'")
    assert (await ask(work, mode, "tasks/get", taskId=task))["error"]["code"] == -32602
    assert await prune_tasks(work.server.database) == 1
    assert await fetch(work.server.database.url, "select count(*) from mcp_task") == [(0,)]
