"""A conversation is reached by each of its ids on every route and by every tool, and by nobody else."""

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4, uuid5

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_server.conversations.ids import LONGEST_ID
from agent_server.conversations.models import Conversation
from agent_server.conversations.tools import delete_conversation
from agent_server.db import new_id
from agent_server.errors import Conflict
from agent_server.identity.resolver import resolve_caller
from agent_server.tool import ToolContext
from tests.conftest import everything
from tests.server import Client, Start

HEADER = "X-Conversation-Id"
CHAT = "/api/chat"


def spellings(id: UUID) -> list[str]:
    return [str(id), str(id).upper(), id.hex, f"{{{id}}}", f"urn:uuid:{id}"]


# Neither the dots that every client of HTTP takes out of a path, nor what no text may hold.
_LETTERS = st.characters(codec="utf-8", exclude_characters="\x00")
IDS = (
    st.text(_LETTERS, min_size=1, max_size=LONGEST_ID)
    | st.text(st.sampled_from("abzAZ09-_.~:/?#[]@!$&'()*+,;=% \"<>\\^`{|}"), min_size=1, max_size=20)
    | st.builds(lambda id, n: spellings(id)[n], st.uuids(), st.integers(0, 4))
    | st.builds(lambda id, n: spellings(id)[n], st.uuids(version=5), st.integers(0, 4))
    | st.builds(lambda n: spellings(new_id())[n], st.integers(0, 4))
).filter(lambda id: id.strip("./") != "" and "/./" not in f"/{id}/" and "/../" not in f"/{id}/")


def draw_ids(count: int) -> list[str]:
    drawn: list[str] = ["x" * LONGEST_ID, "chat/with/slashes", "ünï 対話 %2F", "messages", "0" * 32, str(new_id())]

    @given(IDS)
    @settings(max_examples=count, database=None)
    def collect(id: str) -> None:
        drawn.append(id)

    collect()
    return list(dict.fromkeys(drawn))


async def ways(client: Client) -> list[tuple[str, str, str]]:
    """Every place of the API that takes a conversation's id: method, path, and the parameter's name."""
    document = (await client.http.get("/openapi.json")).json()
    found = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            named = [p["name"] for p in operation.get("parameters", []) if "conversation" in p["name"].lower()]
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            named += [name for name in body.get("properties", {}) if "conversation" in name]
            found += [(method, path, name) for name in named]
    assert {path for _, path, _ in found} >= {
        "/api/conversations/{conversation}",
        "/api/conversations/{conversation}/messages",
        "/api/chat/{conversation}/stream",
        "/api/chat/{conversation}/stop",
        "/api/tools/delete_conversation",
        "/api/tools/list_tasks",
    }
    return found


def is_deleting(way: tuple[str, str, str]) -> bool:
    return way[2].lower() != HEADER.lower() and (way[0] == "delete" or "delete" in way[1])


async def call(client: Client, way: tuple[str, str, str], id: str, auth: dict[str, str]) -> httpx.Response:
    method, path, name = way
    headers = dict(auth)
    body: dict[str, Any] | None = None
    params = {name: id} if method == "get" and "{" not in path and name.lower() != HEADER.lower() else None
    if name.lower() == HEADER.lower():
        headers[HEADER] = id
        body = {}
    elif "{" not in path and params is None:
        body = {name: id, "title": "Mine"} if "rename" in path else {name: id}
    elif method == "patch":
        body = {"title": "Mine"}
    return await client.http.request(
        method, path.replace("{conversation}", quote(id, safe="")), json=body, params=params, headers=headers
    )


def is_header(id: str) -> bool:
    """Whether a header can hold it as it is."""
    return id.isascii() and id.isprintable() and id == id.strip()


async def begin(client: Client, id: str, auth: dict[str, str], text: str = "hello") -> str:
    message = {"id": str(uuid4()), "role": "user", "parts": [{"type": "text", "text": text}]}
    body = {"id": id, "messages": [message], "stream": False, "model": "any", "webSearch": True}
    answer = await client.http.post(CHAT, json=body, headers=auth)
    assert answer.status_code == 200, answer.text
    assert answer.json()["conversation_id"] == answer.headers[HEADER]
    return str(answer.headers[HEADER])


@pytest.fixture
async def client(start: Start) -> AsyncIterator[Client]:
    async with start() as client:
        yield client


async def test_every_route_and_tool_takes_each_id_of_a_conversation(client: Client) -> None:
    others = {"Authorization": f"Bearer {await client.new_key()}"}
    every = await ways(client)
    deleting = [way for way in every if is_deleting(way)]
    for at, id in enumerate(draw_ids(2)):
        ours = await begin(client, id, client.auth)
        assert (await client.get("/api/conversations", limit=1))["items"][0]["id"] == ours
        # Each way is taken by one of the ids, by another with the next conversation.
        names = [id, ours, spellings(UUID(ours))[at % 5]]
        for n, way in enumerate(every):
            name, header = names[(at + n) % 3], way[2].lower() == HEADER.lower()
            if is_deleting(way) or (header and (at > 1 or not is_header(name))):
                continue
            assert (await call(client, way, name, others)).status_code in (404, 422), (way, name)
            answer = await call(client, way, name, client.auth)
            # A tool without its arguments, or without what it is about, says so when the conversation is there.
            lacks = answer.status_code in (404, 409, 422) and "There is no conversation" not in answer.text
            assert answer.status_code < 300 or (header and lacks), (way, name, answer.text)
        for name in names:
            assert (await begin(client, name, client.auth)) == ours
        asked = {"id": names[at % 3], "message": "and then?", "stream": False}
        assert (await client.http.post(CHAT, json=asked, headers=client.auth)).headers[HEADER] == ours
        assert (await client.http.post(CHAT, json=asked, headers=others)).status_code == 404
        way = deleting[at % len(deleting)]
        assert (await call(client, way, names[at % 3], others)).status_code == 404
        assert (await call(client, way, names[at % 3], client.auth)).status_code < 300
        for name in names:
            for way in deleting:
                assert (await call(client, way, name, client.auth)).status_code == 404, (way, name)


async def test_another_callers_id_begins_a_conversation_of_ones_own_and_reaches_none(client: Client) -> None:
    other = {"Authorization": f"Bearer {await client.new_key()}"}
    for id in ("chat-1", str(new_id()), str(uuid4())):
        mine = await begin(client, id, client.auth, "my secret")
        theirs = await begin(client, id, other, "hello")
        for name in (id, mine, theirs):
            read = await client.http.get(f"/api/conversations/{name}/messages", headers=other)
            assert "my secret" not in read.text
        if mine != theirs:
            assert (await client.http.get(f"/api/conversations/{mine}", headers=other)).status_code == 404


async def test_a_guest_who_becomes_a_user_keeps_the_ids(client: Client) -> None:
    guest = (await client.http.post("/api/session")).json()
    ids = ["chat-1", str(uuid4()), str(new_id()), "a/b"]
    auth = {"Authorization": f"Bearer {guest['token']}"}
    ours = {id: await begin(client, id, auth) for id in ids}
    claimed = await client.http.post("/api/auth/claim", json={"guest_token": guest["token"]}, headers=client.auth)
    assert claimed.status_code < 300, claimed.text
    for id in ids:
        for name in (id, *spellings(UUID(ours[id]))):
            found = await client.http.get(f"/api/conversations/{quote(name, safe='')}", headers=client.auth)
            assert found.json()["id"] == ours[id]
            assert await begin(client, name, client.auth) == ours[id]
    # Under an id that the user has as well, the user's own is meant; the guest's is reached by ours.
    mine = await begin(client, "chat-2", client.auth)
    second = (await client.http.post("/api/session")).json()
    theirs = await begin(client, "chat-2", {"Authorization": f"Bearer {second['token']}"})
    claimed = await client.http.post("/api/auth/claim", json={"guest_token": second["token"]}, headers=client.auth)
    assert claimed.status_code < 300, claimed.text
    for name, id in (("chat-2", mine), (mine, mine), (theirs, theirs)):
        assert (await client.get(f"/api/conversations/{name}"))["id"] == id


async def test_conversations_of_versions_that_stored_no_client_id_are_reached_as_before(client: Client) -> None:
    owner = (await resolve_caller(client.server.database, client.key)).id
    ids = ["chat-1", str(uuid4()), str(uuid4()).upper()]
    async with everything(client.server.database) as session:
        session.add_all([Conversation(owner_id=owner, id=uuid5(owner, id), title="t") for id in ids])
    for id in ids:
        assert await begin(client, id, client.auth) == str(uuid5(owner, id))


@pytest.mark.parametrize("id", ["", "x" * (LONGEST_ID + 1), "a\x00b", "\ud800"])
async def test_an_id_that_cannot_be_one_is_refused_by_its_name(client: Client, id: str) -> None:
    for form in ({"message": "hello"}, {"messages": [{"role": "user", "parts": [{"type": "text", "text": "hello"}]}]}):
        answer = await client.http.post(
            CHAT, content=json.dumps({"id": id, **form}), headers={**client.auth, "Content-Type": "application/json"}
        )
        assert (answer.status_code, "id" in answer.json()["detail"]) == (422, True)
    if id:
        lost = await client.http.get(f"/api/conversations/{quote(id, errors='replace', safe='')}", headers=client.auth)
        assert lost.status_code == 404


async def test_unknown_fields_are_the_ai_sdks_and_nobody_elses(client: Client) -> None:
    answer = await client.http.post(CHAT, json={"message": "hello", "webSearch": True}, headers=client.auth)
    assert (answer.status_code, "webSearch" in answer.json()["detail"]) == (422, True)
    file = {"role": "user", "parts": [{"type": "file", "mediaType": "image/png", "url": "data:,"}]}
    answer = await client.http.post(CHAT, json={"messages": [file], "webSearch": True}, headers=client.auth)
    assert (answer.status_code, answer.json()["detail"]) == (422, "messages: files cannot be read; send text")


async def test_a_turn_deletes_its_own_conversation_by_none_of_its_ids(client: Client) -> None:
    caller = await resolve_caller(client.server.database, client.key)
    ours = UUID(await begin(client, "chat-1", client.auth))
    async with client.server.database.transaction(caller.id) as session:
        context = ToolContext(caller=caller, session=session, surface="agent", conversation_id=ours, turn_id=new_id())
        for name in ("chat-1", *spellings(ours)):
            with pytest.raises(Conflict, match="is being answered"):
                await delete_conversation(context, name)
