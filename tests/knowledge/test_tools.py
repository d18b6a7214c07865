"""The knowledge as tools: what an agent, an MCP client or a REST caller gets."""

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from agent_server.caller import Caller
from agent_server.calls.call import Runtime, call_tool
from agent_server.db import Database
from agent_server.errors import Forbidden, InvalidInput, NotFound
from agent_server.knowledge.embedders.base import Embedder
from agent_server.knowledge.ingest import ingest
from agent_server.knowledge.tools import DOCUMENT_CHARACTERS, list_documents, read_document, search_knowledge
from agent_server.settings import Settings
from agent_server.tool import Tool
from tests.knowledge.conftest import Write

Call = Callable[..., Coroutine[Any, Any, Any]]
LONG = "# Long\n\n" + "More of it. " * 3000


@pytest.fixture
async def call(database: Database, embedder: Embedder, write: Write, content: Path, me: Caller) -> Call:
    write("guide/shipping.md", "---\ntitle: Shipping\ndescription: Where to.\n---\nWe ship books to Ireland.")
    write("guide/long.md", LONG)
    write("about.md", "# About\n\nThe shop is in Bath.")
    await ingest(database, embedder, content)
    runtime = Runtime(settings=Settings(environment="test"), database=database, resources={Embedder: embedder})

    async def called(tool: Tool[..., Any], caller: Caller = me, **arguments: Any) -> Any:
        return await call_tool(runtime, tool, arguments, caller=caller, surface="rest")

    return called


async def test_a_search_gives_passages_that_can_be_cited(call: Call) -> None:
    hits = (await call(search_knowledge, query="do you ship to Ireland?"))["hits"]
    assert set(hits[0]) == {"id", "document", "collection", "title", "heading", "text", "start", "end", "score"}
    assert (hits[0]["document"], hits[0]["text"]) == ("guide/shipping.md", "We ship books to Ireland.")
    assert len((await call(search_knowledge, query="shop", limit=1))["hits"]) == 1


async def test_a_search_can_be_kept_to_collections(call: Call) -> None:
    hits = (await call(search_knowledge, query="shop in Ireland", collections=[""]))["hits"]
    assert [hit["document"] for hit in hits] == ["about.md"]


async def test_a_misspelt_collection_is_named_with_those_that_there_are(call: Call) -> None:
    with pytest.raises(InvalidInput, match=r"collections: there is no collection 'giude'; there are '', 'guide'"):
        await call(search_knowledge, query="shipping", collections=["guide", "giude"])


@pytest.mark.parametrize("arguments", [{"query": ""}, {"query": "x" * 2001}, {"query": "x", "limit": 21}, {}])
async def test_what_is_no_query_is_refused(call: Call, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        await call(search_knowledge, **arguments)


async def test_documents_are_listed_and_read(call: Call) -> None:
    listed = (await call(list_documents))["items"]
    assert [item["path"] for item in listed] == ["about.md", "guide/long.md", "guide/shipping.md"]
    assert listed[2] == {
        "path": "guide/shipping.md", "collection": "guide", "title": "Shipping", "description": "Where to.",
    }  # fmt: skip
    assert await call(read_document, document="about.md") == {
        "path": "about.md", "text": "# About\n\nThe shop is in Bath.", "truncated": False,
    }  # fmt: skip
    long = await call(read_document, document="guide/long.md")
    assert (long["text"], long["truncated"]) == (LONG[:DOCUMENT_CHARACTERS], True)
    with pytest.raises(NotFound, match="no document 'guide'"):
        await call(read_document, document="guide")


async def test_reading_the_content_takes_its_scope(call: Call, me: Caller) -> None:
    stranger = Caller(id=me.id, kind="user", scopes=frozenset({"tasks:read"}))
    for tool, arguments in (
        (search_knowledge, {"query": "a"}),
        (list_documents, {}),
        (read_document, {"document": "a"}),
    ):
        with pytest.raises(Forbidden):
            await call(tool, stranger, **arguments)
