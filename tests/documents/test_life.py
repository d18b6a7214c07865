"""What becomes of own documents when their owner leaves, takes them along, or was a guest."""

from pathlib import Path
from typing import Any

from sqlalchemy import text

from agent_server.db import SYSTEM
from agent_server.identity.resolver import resolve_caller
from agent_server.testing import Call, Say, scripted_openai
from tests.conftest import everything
from tests.documents.conftest import LOCKER, Person
from tests.server import Client, Start

TABLES = ("own_document", "own_passage", "own_word")
QUESTION = "What is the code of my blue locker at the harbour?"


async def _count(client: Client) -> list[int]:
    async with everything(client.server.database) as session:
        return [(await session.execute(text(f"select count(*) from {table}"))).scalar_one() for table in TABLES]


async def test_an_export_has_the_texts_and_not_what_is_made_of_them(ann: Person) -> None:
    await ann.add("locker.md", LOCKER)
    tables = (await ann.send("GET", "/api/me/export")).json()["tables"]
    (document,) = tables["own_document"]
    assert (document["name"], document["text"]) == ("locker.md", LOCKER)
    assert not {"own_passage", "own_word"} & tables.keys()


async def test_who_is_erased_leaves_no_document_behind(ann: Person, ben: Person) -> None:
    for person in (ann, ben):
        await person.add("locker.md", LOCKER)
    both = await _count(ann.client)
    erased = await ann.send("DELETE", "/api/me", json={})
    assert erased.status_code == 204, erased.text
    assert await _count(ann.client) == [n // 2 for n in both]
    assert "4711" in str(await ben.call("search_knowledge", query=QUESTION))


async def test_a_guest_is_given_documents_only_where_its_scopes_say_so(start: Start) -> None:
    async with start() as client:
        token = (await client.http.post("/api/session")).json()["token"]
        refused = await Person(client, token).add("locker.md", LOCKER)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")


async def test_a_guests_documents_are_the_users_who_takes_it_over(start: Start) -> None:
    scopes = ["conversations:*", "account:*", "knowledge:read", "documents:*"]
    async with start(guest_scopes=scopes) as client:
        guest = Person(client, (await client.http.post("/api/session")).json()["token"])
        ann = Person(client, client.key)
        assert (await guest.add("locker.md", LOCKER)).status_code == 201
        assert (await ann.add("locker.md", LOCKER.replace("4711", "0815"))).status_code == 201
        passage = (await guest.ask(QUESTION))["sources"][0]["passage"]
        claimed = await ann.send("POST", "/api/auth/claim", json={"guest_token": guest.key})
        assert claimed.status_code == 204, claimed.text
        assert [document["name"] for document in await ann.list()] == ["locker.md", "locker.md"]
        found = str(await ann.call("search_knowledge", query=QUESTION))
        assert "4711" in found and "0815" in found
        assert (await ann.send("GET", f"/api/passages/{passage}")).status_code == 200
        me = (await resolve_caller(client.server.database, ann.key)).id
        async with everything(client.server.database) as session:
            for table in TABLES:
                assert (await session.execute(text(f"select distinct owner_id from {table}"))).scalars().all() == [me]


async def test_a_model_is_given_and_cites_own_passages_of_its_user_alone(start_other: Start, tmp_path: Path) -> None:
    for folder in ("prompts", "content/open"):
        (tmp_path / folder).mkdir(parents=True)
    # Own documents belong to no collection: an agent that answers from some of them answers from these as well.
    head = "---\nname: a\ndescription: Answers.\nknowledge: [open]\ntools: [search_knowledge]\n---\nHelp.\n"
    (tmp_path / "prompts" / "a.md").write_text(head)
    (tmp_path / "content" / "open" / "turtles.md").write_text("# Turtles\n\nGreen turtles eat seagrass.\n")
    async with scripted_openai([]) as model, start_other(root=tmp_path, openai_base_url=model.url, model="m") as client:
        ann, ben = Person(client, client.key), Person(client, await client.new_key("*"))
        await ann.add("locker.md", LOCKER)
        model.script = [Say("It is 4711 [1].")]
        answer = await ann.ask(QUESTION)
        assert "4711" in str(model.requests[-1]) and answer["sources"][0]["document"] == "locker.md"
        model.script = [Call("search_knowledge", {"query": QUESTION, "limit": 20}), Say("It is [1].")]
        assert (await ann.ask(QUESTION))["sources"][0]["document"] == "locker.md"
        asked = len(model.requests)
        model.script = [Call("search_knowledge", {"query": QUESTION, "limit": 20}), Say("I do not know.")]
        await ben.ask(QUESTION)
        assert len(model.requests) == asked + 2
        assert "4711" not in str(model.requests[asked:])


async def test_the_content_and_its_statistics_are_as_they_were(ann: Person) -> None:
    async def read() -> list[list[tuple[Any, ...]]]:
        async with everything(ann.client.server.database) as session:
            found = []
            for table in ("document", "chunk", "term", "corpus", "embedding"):
                rows = await session.execute(text(f"select owner_id, count(*) from {table} group by 1"))
                found.append(list(map(tuple, rows)))
            return found

    before = await read()
    await ann.add("locker.md", LOCKER)
    assert await read() == before
    assert {owner for rows in before for owner, _ in rows} == {SYSTEM}
