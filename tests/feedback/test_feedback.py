"""Feedback on answers: given, read and taken back by whose turn it is, and read by staff."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from dirty_equals import IsDatetime, IsPartialDict, IsStr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_server.caller import Caller
from agent_server.conversations.models import Conversation
from agent_server.db import OWN_DATA, Database, new_id
from agent_server.errors import Conflict, NotFound
from agent_server.feedback.models import LONGEST_COMMENT, READ_SCOPE
from agent_server.feedback.repository import FeedbackRepository
from agent_server.identity.own_data import erase_rows
from agent_server.testing import Stall, scripted_openai
from agent_server.turns.models import Turn
from tests.conftest import fetch
from tests.server import Client, Start

METHODS = ("PUT", "GET", "DELETE")
GOOD, BAD = {"rating": "good"}, {"rating": "bad", "comment": "It is 18 hours."}


async def _send(
    client: Client, method: str, turn: str, key: str | None = None, json: Any = None, status: int = 200
) -> Any:
    body = (GOOD if json is None else json) if method in ("PUT", "POST") else None
    auth = {"Authorization": f"Bearer {key or client.key}"}
    response = await client.http.request(method, f"/api/turns/{turn}/feedback", headers=auth, json=body)
    assert response.status_code == status, response.text
    return response.json() if response.content else None


@pytest.fixture
async def turn(client: Client) -> str:
    """A turn that has been answered."""
    return str((await client.ask("How long do I wait before flying?"))["turn_id"])


async def _guest(client: Client) -> str:
    return str((await client.http.post("/api/session", json={})).json()["token"])


# ---- refusals ----


@pytest.mark.parametrize("method", METHODS)
async def test_the_turn_of_another_is_not_there(client: Client, turn: str, method: str) -> None:
    await _send(client, "PUT", turn, json=BAD)
    for key in (await client.new_key(), await _guest(client)):
        problem = await _send(client, method, turn, key, status=404)
        assert problem["code"] == "not_found"
        assert "18 hours" not in problem["detail"]
    assert await _send(client, "GET", turn) == IsPartialDict(BAD)


@pytest.mark.parametrize("method", METHODS)
async def test_a_guest_does_not_reach_what_another_guest_gave(client: Client, method: str) -> None:
    first, second = await _guest(client), await _guest(client)
    said = {"message": "Hello", "stream": False}
    answer = await client.http.post("/api/chat", json=said, headers={"Authorization": f"Bearer {first}"})
    turn = answer.json()["turn_id"]
    assert (await _send(client, "PUT", turn, first, BAD))["rating"] == "bad"
    await _send(client, method, turn, second, status=404)
    assert await _send(client, "GET", turn, first) == IsPartialDict(BAD)


@pytest.mark.parametrize("method", METHODS)
async def test_a_turn_that_is_not_there_is_not_found_and_nobody_is_asked_who_they_are(
    client: Client, turn: str, method: str
) -> None:
    await _send(client, method, str(uuid4()), status=404)
    await _send(client, method, "none", status=422)
    await _send(client, method, turn, "ask_x.y", status=401)


async def test_what_a_key_may_do_follows_from_its_scopes(client: Client, turn: str) -> None:
    reader, writer = await client.new_key("conversations:read"), await client.new_key("conversations:write")
    for method, key, scope in (
        ("PUT", reader, "conversations:write"),
        ("DELETE", reader, "conversations:write"),
        ("GET", writer, "conversations:read"),
    ):
        assert scope in (await _send(client, method, turn, key, status=403))["detail"]


async def test_staff_alone_reads_what_others_gave(client: Client, turn: str) -> None:
    given = await _send(client, "PUT", turn, json=BAD)
    without = await client.new_key("conversations:*", "users:*", "audit:read")
    for key in (without, await _guest(client)):
        refused = await client.http.get("/api/feedback", headers={"Authorization": f"Bearer {key}"})
        assert refused.status_code == 403
        assert "18 hours" not in refused.text
    staff = {"Authorization": f"Bearer {await client.new_key(READ_SCOPE)}"}
    page = (await client.http.get("/api/feedback", headers=staff)).json()
    assert page == {"items": [{**given, "owner_id": IsStr()}], "next_cursor": None}
    # To read what others gave is not to reach their turns.
    assert (await client.http.get(f"/api/turns/{turn}/feedback", headers=staff)).status_code == 403


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "rating"),
        ({"rating": "fine"}, "rating"),
        ({"rating": None}, "rating"),
        ({"rating": "bad", "comment": "x" * (LONGEST_COMMENT + 1)}, "comment"),
        ({"rating": "bad", "comment": "a\0b"}, "comment"),
        ({"rating": "bad", "comment": 3}, "comment"),
        ({"rating": "bad", "turn_id": str(uuid4())}, "turn_id"),
        ({"rating": "bad", "owner_id": str(uuid4())}, "owner_id"),
    ],
)
async def test_what_is_no_feedback_is_refused_by_its_field(
    client: Client, turn: str, body: dict[str, Any], field: str
) -> None:
    problem = await _send(client, "PUT", turn, json=body, status=422)
    assert [error["field"] for error in problem["errors"]] == [field]
    await _send(client, "GET", turn, status=404)


async def test_a_turn_that_is_being_answered_is_rated_when_it_has_ended(start: Start) -> None:
    async with (
        scripted_openai([Stall()]) as model,
        start(model="openai/m", openai_base_url=model.url, openai_api_key="k") as client,
        client.http.stream("POST", "/api/chat", json={"message": "Hello"}, headers=client.auth) as stream,
    ):
        turn = stream.headers["X-Turn-Id"]
        problem = await _send(client, "PUT", turn, status=409)
        assert (problem["code"], "still being answered" in problem["detail"]) == ("conflict", True)
        await client.http.post(f"/api/turns/{turn}/cancel", headers=client.auth)
        await stream.aread()
        await _send(client, "PUT", turn, json=BAD)


# ---- what is given ----


async def test_feedback_is_given_replaced_and_taken_back(client: Client, turn: str) -> None:
    first = await _send(client, "PUT", turn, json={"rating": "bad", "comment": "  Too long.\n"})
    assert first == {
        "id": IsStr(),
        "turn_id": turn,
        "rating": "bad",
        "comment": "Too long.",
        "created_at": IsDatetime(iso_string=True),
        "updated_at": IsDatetime(iso_string=True),
    }
    assert await _send(client, "GET", turn) == first
    again = await _send(client, "PUT", turn, json=GOOD)
    assert again == IsPartialDict(id=first["id"], created_at=first["created_at"], rating="good", comment=None)
    assert again["updated_at"] > first["updated_at"]
    assert (await _send(client, "PUT", turn, json={"rating": "good", "comment": " \n"}))["comment"] is None
    assert await _send(client, "DELETE", turn, status=204) is None
    for method in ("GET", "DELETE"):
        await _send(client, method, turn, status=404)
    assert (await _send(client, "PUT", turn, json=BAD))["rating"] == "bad"


async def test_given_twenty_times_at_once_it_is_stored_once(client: Client, turn: str) -> None:
    ratings = ["good", "bad"] * 10
    given = await asyncio.gather(*(_send(client, "PUT", turn, json={"rating": rating}) for rating in ratings))
    assert len({one["id"] for one in given}) == 1
    rows = await fetch(client.server.database.url, "select rating from feedback")
    assert rows in ([("good",)], [("bad",)])


async def test_an_answer_is_listed_with_what_its_reader_gave(client: Client) -> None:
    answer = await client.ask("How long do I wait before flying?")
    later = await client.ask("And after two dives?", id=answer["conversation_id"])
    await _send(client, "PUT", answer["turn_id"], json=BAD)
    items = (await client.get(f"/api/conversations/{answer['conversation_id']}/messages"))["items"]
    assert [(item["id"].partition(".")[0], item.get("feedback", "-")) for item in items] == [
        (answer["turn_id"], "-"),
        (answer["turn_id"], BAD),
        (later["turn_id"], "-"),
        (later["turn_id"], None),
    ]


async def test_staff_reads_page_by_page_and_by_rating(client: Client) -> None:
    keys = [client.key, await client.new_key()]
    given = []
    for n, rating in enumerate(("good", "bad", "good", "bad", "bad")):
        auth = {"Authorization": f"Bearer {keys[n % 2]}"}
        said = await client.http.post("/api/chat", json={"message": "Hello", "stream": False}, headers=auth)
        json = {"rating": rating, "comment": f"comment {n}"}
        given.append(await _send(client, "PUT", said.json()["turn_id"], keys[n % 2], json))
    newest = [one["id"] for one in reversed(given)]
    listed: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = await client.get("/api/feedback", limit=2, **cursor)
        listed += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert listed == newest
    bad = (await client.get("/api/feedback", rating="bad"))["items"]
    assert [item["comment"] for item in bad] == ["comment 4", "comment 3", "comment 1"]
    assert len({item["owner_id"] for item in bad}) == 2
    for query in ({"rating": "fine"}, {"cursor": "x"}, {"limit": 0}):
        refused = await client.http.get("/api/feedback", params=query, headers=client.auth)
        assert refused.status_code == 422, query


async def test_what_is_posted_replaces_what_was_given_as_what_is_put_does(client: Client, turn: str) -> None:
    for method in ("POST", "PUT", "POST"):
        for rating in ("good", "bad"):
            await _send(client, method, turn, None, {"rating": rating})
            assert (await _send(client, "GET", turn))["rating"] == rating


# ---- erasure ----


@pytest.mark.parametrize("gone", ["conversation", "account"])
async def test_feedback_goes_with_its_conversation_and_with_its_caller(client: Client, gone: str) -> None:
    guest = {"Authorization": f"Bearer {await _guest(client)}"}
    said = await client.http.post("/api/chat", json={"message": "Hello", "stream": False}, headers=guest)
    answer = said.json()
    kept = str((await client.ask("Hello"))["turn_id"])
    for auth, turn in ((guest, answer["turn_id"]), (client.auth, kept)):
        await client.http.put(f"/api/turns/{turn}/feedback", json=BAD, headers=auth)
    path = {"conversation": f"/api/conversations/{answer['conversation_id']}", "account": "/api/me"}[gone]
    deleted = await client.http.request("DELETE", path, headers=guest, json=None if gone == "conversation" else {})
    assert deleted.status_code in (200, 204), deleted.text
    rows = await fetch(client.server.database.url, "select turn_id::text from feedback")
    assert rows == [(kept,)]


async def test_what_a_guest_gave_is_the_users_who_it_became(client: Client) -> None:
    guest = await _guest(client)
    said = {"message": "Hello", "stream": False}
    answer = await client.http.post("/api/chat", json=said, headers={"Authorization": f"Bearer {guest}"})
    turn = answer.json()["turn_id"]
    await _send(client, "PUT", turn, guest, BAD)
    who = {"email": "ann@example.org", "password": "0123456789 opens-everything"}
    made = await client.http.post("/api/users", json={"name": "ann", **who}, headers=client.auth)
    assert made.status_code == 201, made.text
    signed = await client.http.post("/api/auth/login", json={**who, "guest_token": guest})
    assert signed.status_code == 200, signed.text
    assert await _send(client, "GET", turn, signed.json()["access_token"]) == IsPartialDict(BAD)


# ---- in the database ----


async def _answered(database: Database, owner: Caller) -> Turn:
    async with database.transaction(owner.id) as session:
        conversation = Conversation(owner_id=owner.id, id=new_id(), title="t")
        session.add(conversation)
        await session.flush()
        turn = Turn(
            owner_id=owner.id, conversation_id=conversation.id, turn_no=1, body_sha=b"", status="done", input={}
        )
        session.add(turn)
    return turn


async def test_without_the_scope_a_transaction_reaches_its_owners_feedback_alone(
    database: Database, me: Caller, other: Caller
) -> None:
    turns = {who.id: (await _answered(database, who)).id for who in (me, other)}
    for who in (me, other):
        async with database.transaction(who.id) as session:
            await FeedbackRepository(session, who).give(turns[who.id], "bad", "It is wrong")
    async with database.transaction(me.id) as session:
        mine = FeedbackRepository(session, me)
        assert set(await mine.list_of(turns.values())) == {turns[me.id]}
        with pytest.raises(NotFound):
            await mine.give(turns[other.id], "good", None)
        with pytest.raises(NotFound):
            await mine.get_of(turns[other.id])
    async with database.transaction(me.id, scopes=[READ_SCOPE]) as session:
        page = await FeedbackRepository(session, me).page_of_all_callers(10)
        assert {row.owner_id for row in page.items} == {me.id, other.id}
        with pytest.raises(NotFound, match="feedback list"):
            await FeedbackRepository(session, me).get_of_any_caller(new_id())
    async with database.transaction(other.id, scopes=[OWN_DATA]) as session:
        await erase_rows(session, other.id)
    async with database.transaction(scopes=[READ_SCOPE]) as session:
        left = await FeedbackRepository(session, me).page_of_all_callers(10)
    assert [row.owner_id for row in left.items] == [me.id]


async def test_a_turn_that_runs_takes_no_feedback(database: Database, me: Caller) -> None:
    turn = await _answered(database, me)
    for status in ("queued", "running"):
        async with database.transaction(me.id) as session:
            (await session.get_one(Turn, (me.id, turn.id))).status = status
        with pytest.raises(Conflict, match="still being answered"):
            async with database.transaction(me.id) as session:
                await FeedbackRepository(session, me).give(turn.id, "good", None)


COMMENTS = st.one_of(
    st.none(),
    st.text(max_size=60),
    st.text(alphabet=st.characters(categories=["Cc", "Cf", "Zl", "Zs", "So", "Lo"]), max_size=40),
    st.sampled_from(["x" * LONGEST_COMMENT, "🤿" * LONGEST_COMMENT, "'; drop table feedback; --", "a\u2028b\x85c"]),
)


async def test_a_comment_is_read_as_it_was_given_or_refused(client: Client, turn: str) -> None:
    loop = asyncio.get_running_loop()

    @settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(COMMENTS)
    def check(comment: str | None) -> None:
        async def give() -> None:
            json = {"rating": "bad", "comment": comment}
            response = await client.http.put(f"/api/turns/{turn}/feedback", json=json, headers=client.auth)
            if comment is not None and "\0" in comment:
                assert response.status_code == 422, response.text
                return
            assert response.status_code == 200, response.text
            assert (await _send(client, "GET", turn))["comment"] == ((comment or "").strip() or None)

        asyncio.run_coroutine_threadsafe(give(), loop).result()

    await asyncio.to_thread(check)
