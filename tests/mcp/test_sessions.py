"""What clients of before 2026 are told of when it changes: by the stream of their session, on whichever replica."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any

import httpx
import mcp_types as types
import pytest
from mcp.shared.exceptions import MCPDeprecationWarning

from agent_server.caller import Caller
from agent_server.changes import Changes
from agent_server.db import Database
from agent_server.identity.credentials import issue_key
from tests.conftest import everything
from tests.mcp.conftest import VERSIONS, Notebook
from tests.mcp.test_functions import talk
from tests.server import Client, Start

NEXT: dict[str, str] = {"MCP-Protocol-Version": VERSIONS["legacy"], "Accept": "application/json, text/event-stream"}


class Session:
    """The session of a client of before 2026, whose requests may go to any of several servers."""

    def __init__(self, key: str) -> None:
        self.headers = {**NEXT, "Authorization": f"Bearer {key}"}
        self.http = httpx.AsyncClient(timeout=30)

    async def send(self, url: str, method: str, **params: Any) -> Any:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        answer = await self.http.post(url, json=body, headers=self.headers)
        if "mcp-session-id" in answer.headers:
            self.headers["Mcp-Session-Id"] = answer.headers["mcp-session-id"]
        data = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
        return json.loads(data[-1] if data else answer.text)

    async def begin(self, url: str) -> Any:
        client = {
            "protocolVersion": VERSIONS["legacy"],
            "capabilities": {},
            "clientInfo": {"name": "t", "version": "1"},
        }
        return (await self.send(url, "initialize", **client))["result"]

    @asynccontextmanager
    async def stream(self, url: str) -> AsyncIterator[AsyncIterator[Any]]:
        """The messages of the session's stream. It is open when this is entered."""
        async with self.http.stream("GET", url, headers=self.headers) as answer:
            assert answer.status_code == 200, await answer.aread()
            lines = answer.aiter_lines()
            assert (await anext(lines)).startswith(":")
            async with aclosing(_read_messages(lines)) as messages:
                yield messages


async def _read_messages(lines: AsyncIterator[str]) -> AsyncGenerator[Any]:
    async for line in lines:
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


@asynccontextmanager
async def open_session(key: str, url: str) -> AsyncIterator[Session]:
    session = Session(key)
    async with session.http:
        await session.begin(url)
        yield session


async def hear_of_another(client: Client) -> None:
    """Wait until a replica knows that it is not alone: one that is sends no hints."""
    while client.server.runner.replica.is_alone:  # noqa: ASYNC110  # it has no event for it
        await asyncio.sleep(0.01)


async def next_of(stream: AsyncIterator[Any]) -> Any:
    async with asyncio.timeout(20):
        return await anext(stream)


def updated(uri: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": uri}}


async def test_nobody_subscribes_to_what_it_may_not_read(notebook: Notebook, other: Caller, database: Database) -> None:
    theirs = f"conversation://{await talk(database, other, 'My secret')}"
    async with open_session(notebook.key, notebook.url) as session:
        for uri in (theirs, "notes://99", "huh://x"):
            refused = await session.send(notebook.url, "resources/subscribe", uri=uri)
            assert refused["error"]["code"] == types.INVALID_PARAMS
    async with open_session(await notebook.issue_key("conversations:read"), notebook.url) as session:
        refused = await session.send(notebook.url, "resources/subscribe", uri="notes://all")
        assert "notes:read" in refused["error"]["message"]


async def test_the_session_of_another_caller_is_another_session(
    notebook: Notebook, other: Caller, database: Database, changes: Changes
) -> None:
    async with everything(database) as session:
        key = (await issue_key(session, other.id, name="test", scopes=["*"])).text
    async with open_session(notebook.key, notebook.url) as mine, open_session(key, notebook.url) as theirs:
        assert await mine.send(notebook.url, "resources/subscribe", uri="notes://all") == {
            "jsonrpc": "2.0",
            "id": 1,
            "result": {},
        }
        theirs.headers["Mcp-Session-Id"] = mine.headers["Mcp-Session-Id"]
        async with theirs.stream(notebook.url) as stream:
            changes.announce("notes://all")
            changes.announce("tools")
            assert (await next_of(stream))["method"] == "notifications/tools/list_changed"


async def test_a_session_is_told_of_what_it_watches_until_it_does_no_more(notebook: Notebook, changes: Changes) -> None:
    async with open_session(notebook.key, notebook.url) as session, session.stream(notebook.url) as stream:
        await session.send(notebook.url, "resources/subscribe", uri="notes://all")
        await session.send(notebook.url, "tools/call", name="add_note", arguments={"text": "fins"})
        assert await next_of(stream) == updated("notes://all")
        await session.send(notebook.url, "resources/unsubscribe", uri="notes://all")
        async with session.stream(notebook.url) as again:
            changes.announce("notes://all")
            changes.announce("prompts")
            assert (await next_of(again))["method"] == "notifications/prompts/list_changed"


async def test_a_session_begins_with_what_may_be_watched(notebook: Notebook) -> None:
    session = Session(notebook.key)
    async with session.http:
        capabilities = (await session.begin(notebook.url))["capabilities"]
    assert capabilities["resources"] == {"subscribe": True, "listChanged": True}
    assert capabilities["tools"] == capabilities["prompts"] == {"listChanged": True}


async def test_a_client_of_the_sdk_is_told_of_changes(notebook: Notebook, changes: Changes) -> None:
    heard: asyncio.Queue[Any] = asyncio.Queue()

    async def hear(message: Any) -> None:
        heard.put_nowait(message)

    async with notebook.client("legacy", message_handler=hear) as client:
        with pytest.warns(MCPDeprecationWarning):
            await client.subscribe_resource("notes://all")
        while heard.empty():  # its stream is opened beside its requests
            changes.announce("notes://all")
            await asyncio.sleep(0.01)
        message = heard.get_nowait()
    assert isinstance(message, types.ResourceUpdatedNotification)
    assert message.params.uri == "notes://all"


async def test_a_stream_needs_a_session_and_an_older_protocol(notebook: Notebook) -> None:
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {notebook.key}"}) as http:
        assert (await http.get(notebook.url, headers=NEXT)).status_code == 405
        modern = {"MCP-Protocol-Version": VERSIONS["modern"], "Mcp-Session-Id": "x"}
        assert (await http.get(notebook.url, headers=modern)).status_code == 405
    async with httpx.AsyncClient(headers={**NEXT, "Mcp-Session-Id": "x"}) as http:
        assert (await http.get(notebook.url)).status_code == 401
    refused = await notebook.post("legacy", "resources/subscribe", {"uri": "notes://all"})
    assert "needs a session" in refused.text


async def test_what_one_replica_was_told_to_watch_another_tells_of(start: Start) -> None:
    async with AsyncExitStack() as stack:
        one, two = [await stack.enter_async_context(start()) for _ in range(2)]
        await hear_of_another(one)
        urls = [f"{str(each.http.base_url).rstrip('/')}/mcp" for each in (one, two)]
        said = await one.ask("How deep may a beginner dive?")
        uri = f"conversation://{said['conversation_id']}"
        session = await stack.enter_async_context(open_session(one.key, urls[0]))
        await session.send(urls[1], "resources/subscribe", uri=uri)
        stream = await stack.enter_async_context(session.stream(urls[1]))
        await one.ask("And with nitrox?", id=said["conversation_id"])
        assert await next_of(stream) == updated(uri)
