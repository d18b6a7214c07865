"""/api/conversations and /api/passages: a caller's own conversations, whole, in order, and nobody else's."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from dirty_equals import IsPartialDict
from sqlalchemy import text

from agent_server.conversations.models import Conversation, Item
from agent_server.db import new_id
from agent_server.identity.resolver import resolve_caller
from agent_server.testing import Call, Say, scripted_openai
from agent_server.turns.models import Turn
from tests.conftest import everything
from tests.server import Client, Start
from tests.sse import read_frames, types_of

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


async def _store(client: Client, *titles: str, turns: int = 0, items: int = 0) -> list[UUID]:
    """Conversations of the client's user, the first the oldest (every two at the same instant), each with so many
    answered turns of so many items."""
    owner = (await resolve_caller(client.server.database, client.key)).id
    ids = []
    async with everything(client.server.database) as session:
        for n, title in enumerate(titles):
            at = LONG_AGO + timedelta(minutes=n // 2)
            row = Conversation(owner_id=owner, id=new_id(), title=title, created_at=at, updated_at=at)
            session.add(row)
            await session.flush()
            ids.append(row.id)
            for turn_no in range(1, turns + 1):
                turn = Turn(
                    owner_id=owner, conversation_id=row.id, turn_no=turn_no, body_sha=b"", status="done", input={}
                )
                session.add(turn)
                await session.flush()
                session.add_all(_items(turn, items))
    return ids


def _items(turn: Turn, count: int) -> list[Item]:
    said = [("user", f"question {turn.turn_no}"), *(("assistant", f"part {k}") for k in range(2, count + 1))]
    key: dict[str, Any] = {"owner_id": turn.owner_id, "conversation_id": turn.conversation_id, "turn_no": turn.turn_no}
    return [
        Item(**key, turn_id=turn.id, k=k, role=role, text=words, body={"role": role, "content": words})
        for k, (role, words) in enumerate(said, 1)
    ]


async def _pages(client: Client, path: str, limit: int, **query: Any) -> list[list[dict[str, Any]]]:
    pages: list[list[dict[str, Any]]] = []
    cursor: dict[str, str] = {}
    while True:
        page = await client.get(path, limit=limit, **query, **cursor)
        pages.append(page["items"])
        if page["next_cursor"] is None:
            return pages
        cursor = {"cursor": page["next_cursor"]}


async def test_conversations_are_listed_latest_first_in_pages_that_miss_and_repeat_none(client: Client) -> None:
    ids = [str(id) for id in await _store(client, *(f"t{n}" for n in range(9)))]
    for limit in (1, 2, 4, 9, 10):
        pages = await _pages(client, "/api/conversations", limit)
        listed = [item["id"] for page in pages for item in page]
        assert [len(page) for page in pages[:-1]] == [limit] * (len(pages) - 1)
        assert sorted(listed) == sorted(ids)
        assert [item["updated_at"] for page in pages for item in page] == sorted(
            (item["updated_at"] for page in pages for item in page), reverse=True
        )
    first = await client.get("/api/conversations", limit=4)
    new = str((await _store(client, "new", "newer"))[0])
    rest = await client.get("/api/conversations", limit=9, cursor=first["next_cursor"])
    assert {item["id"] for item in first["items"]} & {item["id"] for item in rest["items"]} == set()
    assert new not in [item["id"] for item in first["items"]]


async def test_a_search_takes_its_words_literally_and_looks_into_titles_and_messages(client: Client) -> None:
    await _store(client, "100% sure", "100 of us", "a_b", "axb", "back\\slash")
    await client.ask("How long do I wait before flying after a single dive?")
    for words, titles in {
        "100%": ["100% sure"],
        "a_b": ["a_b"],
        "\\s": ["back\\slash"],
        "SURE": ["100% sure"],
        "flying after": ["How long do I wait before flying after a single dive?"],
        "no such words": [],
        "x' or true --": [],
    }.items():
        assert [item["title"] for item in (await client.get("/api/conversations", q=words))["items"]] == titles, words
    in_the_answer = (await client.get("/api/conversations", q="18 hours"))["items"]
    assert len(in_the_answer) == 1


async def test_a_cursor_that_is_not_ours_is_refused(client: Client) -> None:
    (id,) = await _store(client, "t", turns=1, items=2)
    early = f"0001-01-01T00:00:00+23:59~{id}"
    for path in ("/api/conversations", f"/api/conversations/{id}/messages"):
        for cursor in (
            "x",
            "",
            "~",
            "2026-01-01",
            "2026-01-01~x",
            f"x~{id}",
            str(id),
            early,
            "9" * 30,
            "-1",
            "1.5",
            "٣",
        ):
            response = await client.http.get(path, params={"cursor": cursor}, headers=client.auth)
            assert response.status_code == 422, (path, cursor, response.text)
            assert response.json()["detail"].startswith("cursor: not one of ours"), (path, cursor)


async def test_a_query_out_of_bounds_is_refused(client: Client) -> None:
    queries: list[dict[str, Any]] = [{"limit": 0}, {"limit": 201}, {"limit": "x"}, {"q": "a" * 201}, {"q": "a\0b"}]
    for query in queries:
        response = await client.http.get("/api/conversations", params=query, headers=client.auth)
        assert response.status_code == 422, query
        assert next(iter(query)) in response.json()["detail"]


async def test_a_page_of_messages_never_cuts_a_turn(client: Client) -> None:
    (id,) = await _store(client, "t", turns=5, items=4)
    for limit in (1, 3, 4, 5, 8, 19, 20, 200):
        pages = await _pages(client, f"/api/conversations/{id}/messages", limit)
        said = [(m["role"], m["text"]) for page in pages for m in page]
        answer = "part 2\n\npart 3\n\npart 4"
        assert said == [m for n in range(1, 6) for m in (("user", f"question {n}"), ("assistant", answer))]
        assert all([m["role"] for m in page] == ["user", "assistant"] * (len(page) // 2) for page in pages)


async def test_a_conversation_is_renamed(client: Client) -> None:
    (id,) = await _store(client, "old")
    renamed = await client.http.patch(f"/api/conversations/{id}", json={"title": "Wrécks ⚓"}, headers=client.auth)
    assert renamed.json() == IsPartialDict(id=str(id), title="Wrécks ⚓")
    assert (await client.get(f"/api/conversations/{id}"))["title"] == "Wrécks ⚓"
    for body in ({}, {"title": ""}, {"title": "x" * 201}, {"title": "a\0b"}, {"title": "x", "owner_id": str(uuid4())}):
        refused = await client.http.patch(f"/api/conversations/{id}", json=body, headers=client.auth)
        assert refused.status_code == 422, body
    assert (await client.get(f"/api/conversations/{id}"))["title"] == "Wrécks ⚓"


async def test_a_deleted_conversation_leaves_no_row(client: Client) -> None:
    kept = await client.ask("How deep may I dive on nitrox 32?")
    gone = await client.ask("How long do I wait before flying after a single dive?")
    path = f"/api/conversations/{gone['conversation_id']}"
    assert (await client.http.delete(path, headers=client.auth)).status_code == 204
    assert (await client.http.get(path, headers=client.auth)).status_code == 404
    assert (await client.http.delete(path, headers=client.auth)).status_code == 404
    async with everything(client.server.database) as session:
        for table in ("item", "turn"):
            rows = await session.execute(text(f"select distinct conversation_id from {table}"))
            assert list(rows.scalars()) == [UUID(kept["conversation_id"])]
        for table in ("event", "model_call"):
            rows = await session.execute(text(f"select distinct turn_id from {table}"))
            assert list(rows.scalars()) == [UUID(kept["turn_id"])]


async def test_deleting_a_conversation_stops_its_answer(start: Start) -> None:
    never = asyncio.Event()
    async with (
        scripted_openai([Say("one two three", hold=(2, never)), Say("x")]) as model,
        start(openai_base_url=model.url, model="m") as client,
    ):
        async with client.http.stream("POST", "/api/chat", json={"message": "hello"}, headers=client.auth) as response:
            conversation = response.headers["X-Conversation-Id"]
            seen = []
            async for frame in read_frames(response):
                seen.append(frame)
                if frame.data != "[DONE]" and frame.data["type"] == "text-delta":
                    path = f"/api/conversations/{conversation}"
                    assert (await client.http.delete(path, headers=client.auth)).status_code == 204
        assert types_of(seen)[-1] == "[DONE]"
        assert (await client.get("/api/conversations"))["items"] == []
        assert (await client.ask("again"))["text"] == "x"


async def test_conversations_that_are_deleted_while_they_are_answered_never_wait_for_each_other(start: Start) -> None:
    """A turn that ends locks its row, then its conversation; a deletion that went the other way would deadlock."""
    async with scripted_openai(lambda _: Say("a b c")) as model, start(openai_base_url=model.url, model="m") as client:

        async def one(n: int) -> None:
            async with client.http.stream("POST", "/api/chat", json={"message": f"{n}"}, headers=client.auth) as stream:
                conversation = stream.headers["X-Conversation-Id"]
                async for frame in read_frames(stream):
                    if frame.data != "[DONE]" and frame.data["type"] == ("text-delta" if n % 2 else "start"):
                        break
            gone = await client.http.delete(f"/api/conversations/{conversation}", headers=client.auth)
            assert gone.status_code == 204, gone.text

        for _ in range(3):
            await asyncio.gather(*(one(n) for n in range(6)))
        assert (await client.get("/api/conversations"))["items"] == []


async def test_only_its_user_deletes_the_conversation_that_a_model_answers_in(
    start_other: Start, tmp_path: Any
) -> None:
    (tmp_path / "content").mkdir()
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "helper.md").write_text(
        "---\nname: helper\ndescription: Helps.\ntools: [delete_conversation]\n---\nHelp.\n"
    )
    async with scripted_openai([]) as model, start_other(root=tmp_path, openai_base_url=model.url, model="m") as client:
        model.script = [Say("Hello.")]
        conversation = (await client.ask("hello"))["conversation_id"]
        model.script = [Call("delete_conversation", {"conversation_id": conversation}), Say("Shall I?")]
        answer = await client.ask("delete this", id=conversation)
        assert answer["text"] == "Shall I?"
        asked = json.loads(model.requests[-1]["messages"][-1]["content"])
        path = f"/api/conversations/{conversation}"
        assert (await client.http.get(path, headers=client.auth)).status_code == 200
        word = {"confirm": True}
        done = await client.http.post(f"/api/confirmations/{asked['confirmation']}", json=word, headers=client.auth)
        assert done.status_code == 200
        assert (await client.http.get(path, headers=client.auth)).status_code == 404


async def test_what_is_another_users_is_not_there(client: Client) -> None:
    answer = await client.ask("How long do I wait before flying after a single dive?")
    conversation, turn = answer["conversation_id"], answer["turn_id"]
    stranger = {"Authorization": f"Bearer {await client.new_key()}"}
    guest = {"Authorization": f"Bearer {(await client.http.post('/api/session')).json()['token']}"}
    for method, path, body in [
        ("GET", "/api/conversations/{c}", None),
        ("PATCH", "/api/conversations/{c}", {"title": "mine now"}),
        ("DELETE", "/api/conversations/{c}", None),
        ("GET", "/api/conversations/{c}/messages", None),
        ("GET", "/api/chat/{c}/stream", None),
        ("POST", "/api/chat/{c}/stop", None),
        ("POST", "/api/chat", {"id": "{c}", "message": "hello"}),
        ("GET", "/api/turns/{t}", None),
        ("POST", "/api/turns/{t}/cancel", None),
        ("GET", "/api/turns/{t}/events", None),
    ]:
        for headers in (stranger, guest):
            answers = []
            for c, t in ((conversation, turn), (str(new_id()), str(new_id()))):
                json = {k: v.format(c=c) for k, v in body.items()} if body else None
                response = await client.http.request(method, path.format(c=c, t=t), json=json, headers=headers)
                assert response.status_code == 404, (method, path, response.text)
                detail = response.json()["detail"]
                answers.append(detail.replace(c, "it").replace(t, "it"))
            assert answers[0] == answers[1]  # whether it exists elsewhere cannot be told
    assert (await client.http.get("/api/conversations", headers=stranger)).json()["items"] == []
    found = await client.http.get("/api/conversations", params={"q": "flying"}, headers=stranger)
    assert found.json()["items"] == []
    resumed = {**stranger, "Last-Event-ID": f"{turn}:1"}
    own = (await client.http.post("/api/chat", json={"message": "hi", "stream": False}, headers=stranger)).json()
    response = await client.http.get(f"/api/chat/{own['conversation_id']}/stream", headers=resumed)
    assert response.status_code == 404
    assert (await client.get(f"/api/conversations/{conversation}"))["title"].startswith("How long")


async def test_a_cursor_of_a_turn_works_for_the_conversation_it_is_in_only(client: Client) -> None:
    first = await client.ask("How deep may I dive on nitrox 32?")
    second = await client.ask("How long do I wait before flying after a single dive?")
    headers = {**client.auth, "Last-Event-ID": f"{first['turn_id']}:1"}
    response = await client.http.get(f"/api/chat/{second['conversation_id']}/stream", headers=headers)
    assert response.status_code == 404
    response = await client.http.get(f"/api/turns/{second['turn_id']}/events", headers=headers)
    assert response.status_code == 422


@pytest.mark.parametrize(("seq", "status"), [("999999999", 200), ("2147483648", 422), ("9223372036854775808", 422)])
async def test_a_cursor_beyond_the_end_brings_nothing_and_one_beyond_all_numbers_is_refused(
    client: Client, seq: str, status: int
) -> None:
    answer = await client.ask("How deep may I dive on nitrox 32?")
    for path in (f"/api/turns/{answer['turn_id']}/events", f"/api/chat/{answer['conversation_id']}/stream"):
        headers = {**client.auth, "Last-Event-ID": f"{answer['turn_id']}:{seq}"}
        response = await client.http.get(path, headers=headers)
        assert response.status_code == status
        if status == 200:
            assert response.text in ("", "data: [DONE]\n\n")


@pytest.mark.parametrize(("passage", "status"), [("0" * 16, 404), ("xyz", 422), ("A" * 16, 422), ("0" * 65, 422)])
async def test_a_passage_that_is_not_there_is_said_to_be(client: Client, passage: str, status: int) -> None:
    response = await client.http.get(f"/api/passages/{passage}", headers=client.auth)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"


async def test_a_failed_and_a_stopped_turn_stand_in_the_messages_with_their_reason(client: Client) -> None:
    (id,) = await _store(client, "t", turns=2, items=1)
    async with everything(client.server.database) as session:
        await session.execute(
            text("""update turn set status = 'failed', error = '{"code": "model_failed", "message": "no"}'
                    where turn_no = 1""")
        )
        await session.execute(text("update turn set status = 'cancelled' where turn_no = 2"))
    messages = (await client.get(f"/api/conversations/{id}/messages"))["items"]
    assert [(m["role"], m["status"], m["error"]) for m in messages] == [
        ("user", "failed", None),
        ("assistant", "failed", {"code": "model_failed", "message": "no"}),
        ("user", "cancelled", None),
        ("assistant", "cancelled", None),
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        '{"title": "half \\ud83d"}',
        '{"title": "nul \\u0000"}',
        "[" * 50_000,
        '{"title": ' + '{"a": ' * 3_000,
        '{"n": 1e999}',
    ],
    ids=["half a character", "nul", "deep", "deep and broken", "too large a number"],
)
async def test_a_conversation_can_be_read_whatever_a_model_gave_a_tool(start: Start, arguments: str) -> None:
    async with (
        scripted_openai([Call("create_task", arguments), Say("done")]) as model,
        start(openai_base_url=model.url, model="scripted") as client,
    ):
        answer = await client.ask("Put it on my list")
        read = await client.get(f"/api/conversations/{answer['conversation_id']}/messages")
        assert [message["role"] for message in read["items"]] == ["user", "assistant"]
