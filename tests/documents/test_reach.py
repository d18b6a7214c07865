"""Nobody but its owner reaches an own document: by no turn, call, page, citation or statement."""

from typing import Any

import httpx2
import pytest
from mcp import Client as McpClient
from mcp import MCPError
from mcp.client.streamable_http import streamable_http_client
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from agent_server.db import new_id
from agent_server.identity.credentials import issue_key
from agent_server.identity.resolver import resolve_caller
from tests.commands import agent_server
from tests.conftest import ROOT, everything
from tests.documents.conftest import LOCKER, Person
from tests.server import Client

QUESTION = "What is the code of my blue locker at the harbour?"
TABLES = ("own_document", "own_passage", "own_word")


async def _add_locker(ann: Person) -> tuple[str, str]:
    """The document's id and that of its passage."""
    added = await ann.add("locker.md", LOCKER)
    assert added.status_code == 201, added.text
    (hit, *_) = (await ann.call("search_knowledge", query=QUESTION))["hits"]
    assert "4711" in hit["text"]
    return added.json()["id"], hit["id"]


async def test_no_route_shows_or_deletes_a_document_of_somebody_else(ann: Person, ben: Person) -> None:
    id, passage = await _add_locker(ann)
    for method, path in (
        ("GET", f"/api/documents/{id}"),
        ("DELETE", f"/api/documents/{id}"),
        ("GET", f"/api/passages/{passage}"),
    ):
        assert (await ben.send(method, path)).status_code == 404
    assert await ben.list() == []
    assert (await ben.send("GET", "/api/documents")).json()["room"]["documents"] == 0
    exported = (await ben.send("GET", "/api/me/export")).text
    assert "4711" not in exported and id not in exported
    assert (await ann.send("GET", f"/api/passages/{passage}")).json()["text"].strip() == LOCKER.strip()
    assert [document["id"] for document in await ann.list()] == [id]


async def test_no_tool_finds_reads_or_deletes_a_document_of_somebody_else(ann: Person, ben: Person) -> None:
    id, _ = await _add_locker(ann)
    hits = (await ben.call("search_knowledge", query=QUESTION, limit=20))["hits"]
    assert not any("4711" in hit["text"] for hit in hits)
    assert (await ben.call("list_my_documents"))["items"] == []
    for tool in ("read_my_document", "delete_my_document"):
        for reference in (id, "locker.md"):
            assert (await ben.call(tool, document=reference))["code"] == "not_found"
    for tool in ("list_documents", "search_conversations"):
        found = await ben.call(tool, **({"text": "4711"} if tool == "search_conversations" else {}))
        assert "locker" not in str(found).lower()
    assert [document["id"] for document in await ann.list()] == [id]


async def test_no_turn_of_somebody_else_answers_from_it(ann: Person, ben: Person) -> None:
    await _add_locker(ann)
    mine, theirs = await ann.ask(QUESTION), await ben.ask(QUESTION)
    assert "4711" in mine["text"]
    assert "4711" not in str(theirs)
    async with everything(ann.client.server.database) as session:
        found = await session.execute(text("select owner_id, count(*) from item where text like '%4711%' group by 1"))
        assert [owner for owner, _ in found] == [(await resolve_caller(ann.client.server.database, ann.key)).id]


async def test_no_mcp_client_of_somebody_else_reaches_it(ann: Person, ben: Person) -> None:
    id, passage = await _add_locker(ann)

    async def ask(person: Person) -> tuple[str, str]:
        headers = {"Authorization": f"Bearer {person.key}"}
        async with httpx2.AsyncClient(headers=headers, timeout=60) as http:
            url = f"{person.client.http.base_url}/mcp".replace("//mcp", "/mcp")
            async with McpClient(streamable_http_client(url, http_client=http)) as client:
                calls: list[tuple[str, dict[str, Any]]] = [
                    ("search_knowledge", {"query": QUESTION}),
                    ("list_my_documents", {}),
                    ("read_my_document", {"document": id}),
                    ("delete_my_document", {"document": id}),
                ]
                told = "" if person is ann else str([await client.call_tool(*call) for call in calls])
                told += str(await client.list_resources())
                try:
                    return told, str(await client.read_resource(f"passage://{passage}"))
                except MCPError as error:
                    return told, str(error)

    told, shown = await ask(ben)
    assert "4711" not in told + shown and "locker.md" not in told
    told, shown = await ask(ann)
    assert "4711" in shown
    assert [document["id"] for document in await ann.list()] == [id]


async def test_whoever_lacks_the_scopes_is_given_nothing_by_any_way(ann: Person) -> None:
    id, passage = await _add_locker(ann)
    server = ann.client.server
    owner = (await resolve_caller(server.database, ann.key)).id
    async with server.database.transaction(owner) as session:
        scopes = ["conversations:*", "knowledge:read", "account:read"]
        narrow = Person(ann.client, (await issue_key(session, owner, name="n", scopes=scopes)).text)
        reads = Person(ann.client, (await issue_key(session, owner, name="r", scopes=["documents:read"])).text)
    for method, path in (
        ("GET", "/api/documents"),
        ("GET", f"/api/documents/{id}"),
        ("DELETE", f"/api/documents/{id}"),
    ):
        assert (await narrow.send(method, path)).status_code == 403
    assert (await narrow.add("b.md", "# B\n\nText.")).status_code == 403
    assert (await narrow.send("GET", f"/api/passages/{passage}")).status_code == 404
    assert "4711" not in str(await narrow.call("search_knowledge", query=QUESTION, limit=20))
    assert "4711" not in (await narrow.ask(QUESTION))["text"]
    assert (await reads.send("DELETE", f"/api/documents/{id}")).status_code == 403
    assert (await reads.add("b.md", "# B\n\nText.")).status_code == 403
    assert (await reads.call("delete_my_document", document=id))["code"] == "forbidden"
    assert len(await reads.list()) == 1
    unknown = await ann.client.http.get("/api/documents")
    assert unknown.status_code == 401


@pytest.mark.names_no_owner
async def test_the_database_itself_keeps_texts_vectors_and_words_to_their_owner(client: Client, ann: Person) -> None:
    await _add_locker(ann)
    database = client.server.database
    owner, stranger = (await resolve_caller(database, ann.key)).id, new_id()
    for table in TABLES:
        counts = []
        for who in (owner, stranger):
            async with database.transaction(who, scopes=["*", "own_data:all"]) as session:
                counts.append((await session.execute(text(f"select count(*) from {table}"))).scalar_one())
        assert counts[0] > 0 and counts[1] == 0
        async with database.transaction() as session:
            assert (await session.execute(text(f"select count(*) from {table}"))).scalar_one() == 0
        async with database.transaction(stranger) as session:
            for statement in (f"delete from {table}", f"update {table} set owner_id = '{stranger}'"):
                done: Any = await session.execute(text(statement))
                assert done.rowcount == 0
    nearest = text("select count(*) from own_passage order by count(emb <=> cast(:v as halfvec))")
    async with database.transaction(stranger) as session:
        assert (await session.execute(nearest, {"v": str([0.0] * 255 + [1.0])})).scalar_one() == 0
    copied = text("insert into own_word (owner_id, lexeme, document_id, n) values (:owner, 'x', :id, 1)")
    async with database.transaction(stranger) as session:
        with pytest.raises(DBAPIError, match="row-level security"):
            await session.execute(copied, {"owner": owner, "id": new_id()})


async def test_the_command_line_acts_for_its_own_user_alone(ann: Person) -> None:
    id, _ = await _add_locker(ann)
    url = ann.client.server.database.url
    for tool, arguments in (
        ("search_knowledge", ["--query", QUESTION]),
        ("list_my_documents", []),
        ("read_my_document", ["--document", id]),
    ):
        done = agent_server("tool", "call", tool, *arguments, cwd=ROOT, DATABASE_URL=url)
        assert "4711" not in done.stdout + done.stderr and "locker.md" not in done.stdout
        assert (tool == "read_my_document") == (done.returncode != 0), done.stderr
