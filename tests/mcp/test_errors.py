"""What a caller is told when a call fails."""

import json
from typing import Any

import httpx
import pytest
from inline_snapshot import snapshot
from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, CallToolResult, TextContent

from agent_server.caller import Caller
from agent_server.calls.call import Runtime
from agent_server.db import Database
from agent_server.mcp.server import create_mcp_server
from agent_server.settings import Settings
from tests.mcp.conftest import Mode, Notebook
from tests.mcp.notes import DOCUMENTS, TOOLS


def said(result: CallToolResult) -> str:
    """What the model reads."""
    (block,) = result.content
    assert isinstance(block, TextContent)
    return block.text


async def test_an_expected_failure_is_a_result_that_the_model_reads(notebook: Notebook, mode: Mode) -> None:
    async with notebook.client(mode) as client:
        results = [
            await client.call_tool("fail", {"how": how}) for how in ("invalid", "missing", "conflict", "busy", "away")
        ]

    assert [said(result) for result in results] == snapshot(
        [
            "invalid_input: text: must not be empty",
            "not_found: There is no note 7",
            "conflict: The note is closed",
            "too_many_requests: Ten notes a minute",
            "unavailable: The shelf is away",
        ]
    )
    assert [(result.is_error, result.structured_content) for result in results] == [(True, None)] * 5
    assert await notebook.notes() == []


async def test_a_bug_is_told_by_its_reference_and_nothing_else(notebook: Notebook, mode: Mode) -> None:
    async with notebook.client(mode) as client:
        result = await client.call_tool("fail", {"how": "bug"})

    assert result.is_error
    assert said(result).startswith("internal: fail failed; this is our fault. Reference ")
    assert "hunter2" not in result.model_dump_json()
    assert "ZeroDivision" not in result.model_dump_json()


async def test_a_result_that_json_cannot_hold_is_told_as_a_bug(notebook: Notebook, mode: Mode) -> None:
    for number in (True, False):
        async with notebook.client(mode) as client:
            result = await client.call_tool("odd_note", {"number": number})

        assert result.is_error
        assert said(result).startswith("internal: odd_note failed; this is our fault. Reference ")


async def test_a_tools_own_refusal_is_an_error_of_the_protocol(notebook: Notebook, mode: Mode) -> None:
    async with notebook.client(mode) as client:
        with pytest.raises(MCPError) as refused:
            await client.call_tool("fail", {"how": "forbidden"})

    assert refused.value.message == "forbidden: This note is sealed"
    assert await notebook.notes() == []


async def test_wrong_arguments_are_named_and_never_echoed(notebook: Notebook, mode: Mode) -> None:
    async with notebook.client(mode) as client:
        result = await client.call_tool("add_note", {"text": "sesame " * 20, "topic": 7})

    assert result.is_error
    assert said(result) == snapshot(
        "invalid_input: text: String should have at most 40 characters; topic: Input should be a valid string (add_note takes text, topic (optional))"
    )


async def test_an_unknown_argument_is_refused(notebook: Notebook, mode: Mode) -> None:
    async with notebook.client(mode) as client:
        result = await client.call_tool("add_note", {"text": "Buy fins", "owner_id": "somebody else"})

    assert result.is_error
    assert said(result) == snapshot(
        "invalid_input: owner_id: Extra inputs are not permitted (add_note takes text, topic (optional))"
    )
    assert await notebook.notes() == []


async def test_a_nul_byte_in_an_argument_is_refused(notebook: Notebook, mode: Mode) -> None:
    async with notebook.client(mode) as client:
        result = await client.call_tool("add_note", {"text": "fins\x00"})

    assert result.is_error
    assert said(result) == snapshot("invalid_input: text: holds a NUL byte or broken Unicode; send valid UTF-8 text")


async def test_an_unknown_tool_is_an_error_that_names_close_ones(notebook: Notebook, mode: Mode) -> None:
    told = {}
    async with notebook.client(mode) as client:
        for name in ("add_notes", "add\x00note", "z", "x" * 100_000):
            with pytest.raises(MCPError) as refused:
                await client.call_tool(name, {})
            assert refused.value.code == INVALID_PARAMS
            told[name[:20]] = refused.value.message

    assert told == snapshot(
        {
            "add_notes": "There is no tool 'add_notes'; did you mean add_note or odd_note or drop_notes?",
            "add\x00note": "There is no tool 'add\\x00note'; did you mean add_note or odd_note?",
            "z": "There is no tool 'z'; tools/list shows which there are",
            "xxxxxxxxxxxxxxxxxxxx": "There is no tool 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'; tools/list shows which there are",
        }
    )


async def test_a_tool_that_the_caller_may_not_use_is_not_suggested(notebook: Notebook, mode: Mode) -> None:
    async with notebook.client(mode, await notebook.issue_key("notes:read")) as client:
        with pytest.raises(MCPError) as refused:
            await client.call_tool("ad_note", {})

    assert "add_note" not in refused.value.message


async def test_a_missing_scope_is_refused_again_behind_the_door(database: Database, me: Caller) -> None:
    """In process there is no HTTP layer, as over stdio: what is left is the check of call_tool."""
    reader = Caller(id=me.id, kind="user", scopes=frozenset({"notes:read"}))
    server = create_mcp_server(
        Runtime(settings=Settings(), database=database),
        TOOLS,
        name="notes",
        version="1.0",
        instructions="",
        caller=lambda: reader,
        documents=DOCUMENTS,
    )
    async with Client(server) as client:
        with pytest.raises(MCPError) as refused:
            await client.call_tool("add_note", {"text": "Buy fins"})
        with pytest.raises(MCPError) as unread:
            await client.read_resource("content://safety/flying.md")

    assert refused.value.error.model_dump() == snapshot(
        {
            "code": -32600,
            "message": "forbidden: add_note needs the scope notes:write, which this caller lacks",
            "data": {"code": "forbidden", "scope": "notes:write"},
        }
    )
    assert unread.value.data == {"code": "forbidden", "scope": "knowledge:read"}


async def test_a_bug_outside_of_a_tool_shows_nothing_of_itself(database: Database, mode: Mode) -> None:
    def nobody() -> Caller:
        raise LookupError("password=hunter2")

    server = create_mcp_server(
        Runtime(settings=Settings(), database=database),
        TOOLS,
        name="notes",
        version="1.0",
        instructions="",
        caller=nobody,
    )
    async with Client(server, mode="auto" if mode == "modern" else mode) as client:
        with pytest.raises(MCPError) as failed:
            await client.list_tools()

    assert failed.value.message.startswith("internal: tools/list failed; this is our fault. Reference ")
    assert "hunter2" not in str(failed.value.error)


async def test_a_body_that_is_not_json_is_answered_with_a_parse_error(notebook: Notebook, mode: Mode) -> None:
    for body in (b"{", b"\xff\xfe", b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": ' + b"[" * 100_000):
        answer = await send(notebook, mode, body)

        assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32700)


async def test_json_that_is_not_a_request_is_refused(notebook: Notebook, mode: Mode) -> None:
    for body in (b"[]", b"7", b"null", b'{"jsonrpc": "2.0", "id": 1, "params": []}', b'{"id": {}, "method": 3}'):
        answer = await send(notebook, mode, body)

        assert answer.status_code == 400


async def test_arguments_that_are_no_object_are_refused(notebook: Notebook, mode: Mode) -> None:
    answer = await notebook.post(mode, "tools/call", {"name": "add_note", "arguments": [1]})

    assert rpc(answer)["error"]["code"] == INVALID_PARAMS
    assert await notebook.notes() == []


async def test_a_method_that_is_not_served_is_said_to_be_unknown(notebook: Notebook, mode: Mode) -> None:
    for method in ("prompts/remove", "tools/remove"):
        answer = await notebook.post(mode, method, {})

        assert rpc(answer)["error"]["code"] == -32601


def rpc(answer: httpx.Response) -> dict[str, Any]:
    """The JSON-RPC message of an answer, whether it came as JSON or as the only event of a stream."""
    text = answer.text
    if answer.headers["content-type"].startswith("text/event-stream"):
        text = next(line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: "))
    message: dict[str, Any] = json.loads(text)
    return message


async def send(notebook: Notebook, mode: Mode, body: bytes) -> httpx.Response:
    headers = {
        "Authorization": f"Bearer {notebook.key}",
        "Accept": "application/json, text/event-stream",
        "Content-Type": "application/json",
        "MCP-Protocol-Version": "2026-07-28" if mode == "modern" else "2025-11-25",
        "Mcp-Method": "tools/call",
        "Mcp-Name": "add_note",
    }
    async with httpx.AsyncClient() as http:
        return await http.post(notebook.url, content=body, headers=headers)
