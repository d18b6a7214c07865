"""Documents as resources."""

from base64 import urlsafe_b64encode
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inline_snapshot import snapshot
from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp_types import TextResourceContents

from agent_server.caller import Caller
from agent_server.calls.call import Runtime
from agent_server.db import Database
from agent_server.mcp.pages import read_cursor, write_cursor
from agent_server.mcp.server import create_mcp_server
from agent_server.settings import Settings
from tests.mcp import notes
from tests.mcp.conftest import Mode, Notebook
from tests.mcp.notes import DOCUMENTS, TOOLS, Page


@pytest.fixture
def offers() -> None:
    """Nothing beside documents."""


async def test_documents_are_listed_as_resources(notebook: Notebook, mode: Mode) -> None:
    async with notebook.client(mode) as client:
        resources = (await client.list_resources()).resources
        templates = (await client.list_resource_templates()).resource_templates

    assert [resource.model_dump(exclude_none=True) for resource in resources] == snapshot(
        [
            {
                "name": "destinations/über uns.md",
                "title": "About us",
                "uri": "content://destinations/%C3%BCber%20uns.md",
                "mime_type": "text/markdown",
            },
            {
                "name": "safety/flying.md",
                "title": "Flying after diving",
                "uri": "content://safety/flying.md",
                "mime_type": "text/markdown",
            },
        ]
    )
    assert [template.model_dump(exclude_none=True) for template in templates] == snapshot(
        [
            {
                "name": "document",
                "title": "Knowledge document",
                "uri_template": "content://{+path}",
                "description": "A Markdown document of the knowledge base, by its path.",
                "mime_type": "text/markdown",
            }
        ]
    )


async def test_a_document_is_read_by_its_address(notebook: Notebook, mode: Mode) -> None:
    texts = {
        "content://safety/flying.md": "# Flying\n\nWait 18 hours.",
        "content://destinations/%C3%BCber%20uns.md": "# Über uns",
        "content://destinations/über uns.md": "# Über uns",
    }
    async with notebook.client(mode) as client:
        for uri, text in texts.items():
            contents = (await client.read_resource(uri)).contents

            assert contents == [TextResourceContents(uri=uri, mime_type="text/markdown", text=text)]


async def test_an_address_without_a_document_is_an_error_that_names_it(notebook: Notebook, mode: Mode) -> None:
    addresses = (
        "content://safety/diving.md",
        "content://",
        "content://safety/../../etc/passwd",
        "content://%00",
        "file:///etc/passwd",
        "safety/flying.md",
        "",
    )
    async with notebook.client(mode) as client:
        for uri in addresses:
            with pytest.raises(MCPError) as missing:
                await client.read_resource(uri)

            assert (missing.value.code, missing.value.data) == (-32602, {"code": "not_found", "uri": uri})


async def test_a_caller_without_the_scope_sees_no_documents(notebook: Notebook, mode: Mode) -> None:
    async with notebook.client(mode, await notebook.issue_key("notes:*")) as client:
        resources = (await client.list_resources()).resources
        templates = (await client.list_resource_templates()).resource_templates
        with pytest.raises(MCPError) as refused:
            await client.read_resource("content://safety/flying.md")

    assert (resources, templates) == ([], [])
    assert refused.value.message == "forbidden: Documents need the scope knowledge:read, which this caller lacks"


async def test_a_server_without_documents_does_not_speak_of_resources(database: Database, me: Caller) -> None:
    runtime = Runtime(settings=Settings(), database=database)
    server = create_mcp_server(runtime, TOOLS, name="n", version="1", instructions="", caller=lambda: me)

    async with Client(server) as client:
        assert client.server_capabilities.resources is None
        with pytest.raises(MCPError):
            await client.list_resources()


async def test_a_long_list_comes_in_pages_that_miss_nothing_also_while_it_changes(
    database: Database, me: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = {Page(f"{n:04}/a b.md", f"Page {n}"): "text" for n in range(1203)}
    monkeypatch.setattr(notes, "PAGES", pages)
    server = create_mcp_server(
        Runtime(settings=Settings(), database=database),
        TOOLS,
        name="n",
        version="1",
        instructions="",
        caller=lambda: me,
        documents=DOCUMENTS,
    )
    seen: list[str] = []
    async with Client(server) as client:
        cursor = None
        while True:
            page = await client.list_resources(cursor=cursor)
            seen += [resource.name for resource in page.resources]
            if (cursor := page.next_cursor) is None:
                break
            del pages[Page(seen[0], f"Page {int(seen.pop(0)[:4])}")]  # what was shown is deleted
            pages[Page(f"0000/new {len(seen)}.md", "New")] = "text"  # and something comes before the cursor
    assert seen == [f"{n:04}/a b.md" for n in range(2, 1203)]


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")))
def test_a_cursor_is_read_as_it_was_written(key: str) -> None:
    assert read_cursor(write_cursor(key)) == key


@given(st.text() | st.binary().map(lambda sent: urlsafe_b64encode(sent).decode()))
def test_any_other_cursor_is_refused(cursor: str) -> None:
    with suppress(MCPError):
        key = read_cursor(cursor)
        assert key is not None and write_cursor(key) == cursor


async def test_a_cursor_of_nobody_is_refused_through_the_door(notebook: Notebook, mode: Mode) -> None:
    async with notebook.client(mode) as client:
        for cursor in ("page2", "", "bm9uZQ", "é"):
            with pytest.raises(MCPError, match="cursor: none of this list's"):
                await client.list_resources(cursor=cursor)
