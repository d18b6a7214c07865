"""What clients of MCP are told of when it changes, and what they are never told of."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from mcp import Client as McpClient
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import Subscription
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import PromptsListChanged, ResourcesListChanged, ResourceUpdated, ToolsListChanged

from agent_server.caller import Caller
from agent_server.changes import Changes
from agent_server.db import Database
from agent_server.identity.credentials import list_keys, revoke_key
from agent_server.knowledge.ingest import IngestReport
from agent_server.knowledge.resources import announce_pages
from agent_server.mcp import Offers, Watching
from agent_server.mcp.streams import MOST_OF_CALLER
from agent_server.mcp.subscriptions import MOST_ADDRESSES
from tests.conftest import everything
from tests.mcp.conftest import Notebook
from tests.mcp.test_functions import talk
from tests.mcp.test_sessions import hear_of_another
from tests.server import Client, Start


async def next_of(stream: Subscription) -> Any:
    async with asyncio.timeout(20):
        return await anext(aiter(stream))


async def test_nobody_is_told_of_what_it_may_not_read(
    notebook: Notebook, other: Caller, database: Database, changes: Changes
) -> None:
    theirs = f"conversation://{await talk(database, other, 'My secret')}"
    mine = f"conversation://{await talk(database, notebook.me, 'Mine')}"
    uris = [theirs, mine, "notes://99", "notes://all", "content://nothing.md", "huh://x"]
    async with notebook.client("modern") as client, client.listen(resource_subscriptions=uris) as stream:
        assert stream.honored.resource_subscriptions == [mine, "notes://all"]
        changes.announce(theirs)
        changes.announce("notes://99")
        changes.announce(mine)
        assert await next_of(stream) == ResourceUpdated(uri=mine)
    key = await notebook.issue_key("conversations:read")
    async with notebook.client("modern", key) as client, client.listen(resource_subscriptions=uris) as stream:
        assert stream.honored.resource_subscriptions == [mine]


async def test_a_change_is_told_once_the_call_that_made_it_has_committed(notebook: Notebook) -> None:
    async with (
        notebook.client("modern") as client,
        client.listen(resource_subscriptions=["notes://all"]) as stream,
    ):
        await client.call_tool("fail", {"how": "bug"})
        await client.call_tool("add_note", {"text": "fins"})
        assert await next_of(stream) == ResourceUpdated(uri="notes://all")


async def test_only_lists_that_were_asked_for_are_told_of(notebook: Notebook, offers: Offers, changes: Changes) -> None:
    async with notebook.client("modern") as client, client.listen(prompts_list_changed=True) as stream:
        assert stream.honored.tools_list_changed is None
        changes.announce("tools")
        offers.replace(replace(offers.workspace, prompts={}))
        assert await next_of(stream) == PromptsListChanged()
        assert (await client.list_prompts()).prompts == []


async def test_a_changed_page_is_told_of_and_the_list_where_one_is_new(notebook: Notebook, changes: Changes) -> None:
    page = "content://safety/flying.md"
    async with (
        notebook.client("modern") as client,
        client.listen(resource_subscriptions=[page], resources_list_changed=True) as stream,
    ):
        announce_pages(changes, IngestReport(changed=1, paths=["safety/flying.md"]))
        assert await next_of(stream) == ResourceUpdated(uri=page)
        announce_pages(changes, IngestReport(added=1, paths=["safety/new.md"]))
        assert await next_of(stream) == ResourcesListChanged()


async def test_a_stream_ends_with_the_key_that_opened_it(notebook: Notebook, database: Database) -> None:
    key = await notebook.issue_key("notes:read")
    async with notebook.client("modern", key) as client, client.listen(tools_list_changed=True) as stream:
        async with everything(database) as session:
            (row,) = [each for each in await list_keys(session, notebook.me.id) if each.scopes == ["notes:read"]]
            await revoke_key(session, row.id)
        with pytest.raises(StopAsyncIteration):
            await next_of(stream)


async def test_the_lists_change_with_the_rights_of_a_caller_and_what_it_may_not_read_is_left_out(
    notebook: Notebook, offers: Offers, changes: Changes, database: Database
) -> None:
    less = asyncio.Event()

    async def renew(caller: Caller) -> Caller:
        return replace(caller, scopes=frozenset({"conversations:read"})) if less.is_set() else caller

    offers.watching = Watching(changes, renew, database, seconds=0.1)
    async with (
        notebook.client("modern") as client,
        client.listen(tools_list_changed=True, resource_subscriptions=["notes://all"]) as stream,
    ):
        less.set()
        assert await next_of(stream) == ToolsListChanged()
        changes.announce("notes://all")
        changes.announce("tools")
        assert await next_of(stream) == ToolsListChanged()


async def test_a_stream_too_many_and_an_address_too_many_are_refused(notebook: Notebook) -> None:
    params = {"notifications": {"resourceSubscriptions": [f"notes://{n}" for n in range(MOST_ADDRESSES + 1)]}}
    answer = await notebook.post("modern", "subscriptions/listen", params)
    assert "100 addresses at most" in answer.text
    async with notebook.client("modern") as client, asyncio.TaskGroup() as group:
        closed, opened = asyncio.Event(), asyncio.Semaphore(0)

        async def hold() -> None:
            async with client.listen(tools_list_changed=True):
                opened.release()
                await closed.wait()

        for _ in range(MOST_OF_CALLER):
            group.create_task(hold())
        for _ in range(MOST_OF_CALLER):
            await opened.acquire()
        with pytest.raises(MCPError, match="50 streams"):
            async with client.listen(tools_list_changed=True):
                pass
        closed.set()


async def test_a_process_that_ends_ends_its_streams(notebook: Notebook, changes: Changes) -> None:
    async with notebook.client("modern") as client, client.listen(tools_list_changed=True) as stream:
        changes.close()
        with pytest.raises(StopAsyncIteration):
            await next_of(stream)


@asynccontextmanager
async def connect(client: Client) -> AsyncIterator[McpClient]:
    async with (
        httpx2.AsyncClient(headers=client.auth, timeout=60) as http,
        McpClient(streamable_http_client(f"{client.http.base_url}/mcp", http_client=http), mode="auto") as mcp,
    ):
        yield mcp


async def test_a_conversation_is_told_of_by_every_replica_when_it_gets_a_message(start: Start) -> None:
    async with start() as one, start() as two:
        await hear_of_another(one)
        two.key = one.key
        said = await one.ask("How deep may a beginner dive?")
        uri = f"conversation://{said['conversation_id']}"
        async with connect(two) as mcp, mcp.listen(resource_subscriptions=[uri]) as stream:
            before = (await mcp.read_resource(uri)).contents
            await one.ask("And with nitrox?", id=said["conversation_id"])
            assert await next_of(stream) == ResourceUpdated(uri=uri)
            async with asyncio.timeout(20):
                while (await mcp.read_resource(uri)).contents == before:
                    await next_of(stream)
