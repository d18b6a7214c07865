"""Listing and calling tools, by a real client of each protocol generation."""

import asyncio
from dataclasses import replace
from functools import partial

import pytest
from inline_snapshot import snapshot
from mcp.shared.exceptions import MCPError
from mcp_types import CacheableResult, TextContent
from sqlmodel import col

from agent_server.audit import Audit, AuditRepository
from agent_server.calls.call import Runtime, call_tool
from agent_server.db import Database, new_id
from agent_server.identity.credentials import issue_key
from agent_server.identity.resolver import resolve_caller
from agent_server.mcp import mcp_app
from agent_server.settings import Settings
from tests.conftest import everything
from tests.mcp.conftest import MODES, Mode, Notebook, serve_mcp
from tests.mcp.notes import TOOLS

NOTE = {"text": "Buy fins"}


async def test_a_tool_is_listed_as_it_was_declared(notebook: Notebook, mode: Mode) -> None:
    async with notebook.client(mode) as client:
        listed = {tool.name: tool for tool in (await client.list_tools()).tools}

    add_note = listed["add_note"].model_dump(by_alias=True, exclude_none=True)
    assert add_note == snapshot(
        {
            "name": "add_note",
            "title": "Add note",
            "description": "Write a note.",
            "inputSchema": {
                "type": "object",
                "properties": {
                    "text": {"maxLength": 40, "type": "string"},
                    "topic": {"type": "string"},
                },
                "additionalProperties": False,
                "required": ["text"],
            },
            "annotations": {
                "destructiveHint": False,
                "openWorldHint": False,
            },
        }
    )


async def test_the_hints_follow_from_the_declared_effect(notebook: Notebook, mode: Mode) -> None:
    async with notebook.client(mode) as client:
        tools = (await client.list_tools()).tools

    hints = {
        tool.name: [
            name.removesuffix("_hint")
            for name, on in (tool.annotations.model_dump() if tool.annotations else {}).items()
            if on
        ]
        for tool in tools
    }
    assert hints == snapshot(
        {
            "add_note": [],
            "chatter": ["read_only"],
            "count_notes": ["read_only"],
            "drop_note": ["destructive"],
            "drop_notes": ["destructive"],
            "fail": [],
            "list_notes": ["read_only"],
            "long_note": ["read_only"],
            "mail_note": ["open_world"],
            "odd_note": ["read_only"],
            "share_note": ["open_world"],
            "wait_forever": [],
        }
    )


async def test_tools_are_listed_in_the_same_order_by_every_replica(notebook: Notebook, mode: Mode) -> None:
    async with notebook.client(mode) as client:
        names = [tool.name for tool in (await client.list_tools()).tools]

    assert names == sorted(TOOLS)


async def test_schemas_of_results_are_not_listed_unless_a_setting_says_so(notebook: Notebook, mode: Mode) -> None:
    async with notebook.client(mode) as client:
        assert {tool.output_schema for tool in (await client.list_tools()).tools} == {None}


@pytest.mark.parametrize("settings", [Settings(mcp_output_schemas=True)], ids=["with schemas"])
async def test_a_result_that_is_no_object_is_wrapped_and_its_schema_says_so(
    settings: Settings, notebook: Notebook, mode: Mode
) -> None:
    async with notebook.client(mode) as client:
        listed = {tool.name: tool.output_schema for tool in (await client.list_tools()).tools}
        await client.call_tool("add_note", NOTE)
        notes = await client.call_tool("list_notes", {})
        nothing = await client.call_tool("drop_notes", {})

    assert [listed["list_notes"], listed["drop_notes"]] == snapshot(
        [
            {
                "type": "object",
                "properties": {"result": {"items": {"$ref": "#/$defs/Note"}, "type": "array"}},
                "required": ["result"],
                "$defs": {
                    "Note": {
                        "description": "What a tool shows of a note.",
                        "properties": {
                            "text": {"type": "string"},
                            "topic": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
                        },
                        "required": ["text"],
                        "type": "object",
                    }
                },
            },
            {"type": "object", "properties": {"result": {"type": "null"}}, "required": ["result"]},
        ]
    )
    assert notes.structured_content == {"result": [{"text": "Buy fins", "topic": None}]}
    assert nothing.structured_content == {"result": None}


async def test_a_call_returns_what_call_tool_returns(notebook: Notebook, mode: Mode) -> None:
    runtime = Runtime(settings=Settings(), database=notebook.database)
    arguments = {"text": "Buy fins", "topic": "kit"}
    directly = await call_tool(runtime, TOOLS["add_note"], arguments, caller=notebook.me, surface="rest")

    async with notebook.client(mode) as client:
        result = await client.call_tool("add_note", arguments)

    assert not result.is_error
    assert result.structured_content == directly
    assert result.content == [TextContent(text='{"text":"Buy fins","topic":"kit"}')]
    assert await notebook.notes() == ["Buy fins", "Buy fins"]


async def test_both_generations_are_told_the_same(notebook: Notebook) -> None:
    seen = []
    for mode in MODES:
        async with notebook.client(mode) as client:
            seen.append(
                [
                    [tool.model_dump() for tool in (await client.list_tools()).tools],
                    (await client.call_tool("count_notes", {})).structured_content,
                    (await client.call_tool("add_note", {})).content,
                    [resource.model_dump() for resource in (await client.list_resources()).resources],
                    client.server_info.model_dump() if client.server_info else None,
                    client.instructions,
                ]
            )
    # The second count sees the rows that the audit of the first generation's calls added.
    modern, legacy = seen
    assert modern[:1] + modern[2:] == legacy[:1] + legacy[2:]


async def test_a_list_is_private_to_its_caller_in_caches(notebook: Notebook) -> None:
    async with notebook.client("modern") as client:
        lists: list[CacheableResult] = [
            await client.list_tools(),
            await client.list_resources(),
            await client.list_resource_templates(),
        ]

    assert {(found.cache_scope, found.ttl_ms) for found in lists} == {("private", 60_000)}


async def test_a_caller_is_listed_only_the_tools_it_may_use(notebook: Notebook, mode: Mode) -> None:
    async with notebook.client(mode, await notebook.issue_key("notes:read")) as client:
        readers = [tool.name for tool in (await client.list_tools()).tools]
    async with notebook.client(mode, await notebook.issue_key("other:*")) as client:
        strangers = (await client.list_tools()).tools

    assert readers == ["chatter", "count_notes", "list_notes", "long_note", "odd_note"]
    assert strangers == []


async def test_a_callers_rows_are_its_own(notebook: Notebook, mode: Mode) -> None:
    async with notebook.client(mode) as client:
        await client.call_tool("add_note", {"text": "Mine"})
    async with notebook.client(mode, await other_key(notebook)) as client:
        seen = await client.call_tool("list_notes", {})

    assert seen.structured_content == {"result": []}


async def other_key(notebook: Notebook) -> str:
    async with everything(notebook.database) as session:
        return (await issue_key(session, new_id(), name="other", scopes=["*"])).text


async def test_a_call_is_on_record_as_made_over_mcp(notebook: Notebook, mode: Mode) -> None:
    async with notebook.client(mode) as client:
        await client.call_tool("count_notes", {})

    async with everything(notebook.database) as session:
        visible = AuditRepository(session, notebook.me).visible().where(col(Audit.action) == "count_notes")
        row = (await session.execute(visible)).scalar_one()
    assert (row.surface, row.outcome, row.caller_kind) == ("mcp", "ok", "user")


async def test_a_long_result_arrives_whole(notebook: Notebook, mode: Mode) -> None:
    async with notebook.client(mode) as client:
        result = await client.call_tool("long_note", {"length": 200_000})

    assert result.content == [TextContent(text="é" * 200_000)]
    assert result.structured_content is None  # a text is a text


async def test_many_calls_at_once_keep_their_callers_apart(notebook: Notebook, mode: Mode) -> None:
    stranger = await other_key(notebook)

    async def write(key: str, text: str) -> None:
        async with notebook.client(mode, key) as client:
            await client.call_tool("add_note", {"text": text})

    await asyncio.gather(
        *(write(notebook.key, f"mine {n}") for n in range(5)), *(write(stranger, f"theirs {n}") for n in range(5))
    )

    assert sorted(await notebook.notes()) == [f"mine {n}" for n in range(5)]


async def test_any_replica_answers_any_request(
    database: Database, settings: Settings, notebook: Notebook, mode: Mode
) -> None:
    runtime = Runtime(settings=settings, database=database)
    resolve = partial(resolve_caller, database)
    second = mcp_app(runtime, TOOLS, name="notes", version="1.0", instructions="Notes.", resolve=resolve)
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    async with serve_mcp(second) as url:
        opened = await notebook.post(mode, "initialize" if mode == "legacy" else "server/discover", hello)
        called = await replace(notebook, url=url).post(mode, "tools/call", {"name": "add_note", "arguments": NOTE})

    assert opened.status_code == called.status_code == 200
    assert ("mcp-session-id" in opened.headers) == (mode == "legacy")  # which another replica need not know
    assert await notebook.notes() == ["Buy fins"]


async def test_a_list_has_one_page_and_takes_no_cursor(notebook: Notebook, mode: Mode) -> None:
    async with notebook.client(mode) as client:
        for ask in (client.list_tools, client.list_resource_templates):
            with pytest.raises(MCPError, match="cursor: none of this list's") as refused:
                await ask(cursor="bm9uZQ")
            assert refused.value.code == -32602
