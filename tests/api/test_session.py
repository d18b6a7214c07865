"""/api/session, /api/lead: a visitor without an account, its profile, and the form it may send."""

import asyncio
from datetime import timedelta
from typing import Any

from dirty_equals import IsDatetime, IsPartialDict, IsStr
from sqlalchemy import text

from agent_server.db import new_id, now
from tests.conftest import everything
from tests.server import Client

LEAD = {"email": "diver@example.com", "interest": "Red Sea"}


async def _guest(client: Client, **profile: Any) -> tuple[dict[str, Any], dict[str, str]]:
    response = await client.http.post("/api/session", json={"profile": profile})
    assert response.status_code == 201, response.text
    session: dict[str, Any] = response.json()
    return session, {"Authorization": f"Bearer {session['token']}"}


async def test_a_session_is_made_with_a_token_that_is_shown_once(client: Client) -> None:
    bare = await client.http.post("/api/session")
    assert bare.status_code == 201
    session, auth = await _guest(client, level="Open Water")
    assert session == {
        "id": IsStr(),
        "token": IsStr(regex="asg_[0-9a-f]{32}[.].{43}"),
        "conversation_id": None,
        "profile": {"level": "Open Water"},
        "expires_at": IsDatetime(iso_string=True, approx=now() + timedelta(hours=24), delta=600),
    }
    read = await client.http.get(f"/api/session/{session['id']}", headers=auth)
    assert read.json() == {**session, "token": None}
    assert session["token"].partition(".")[2] not in read.text


async def test_a_session_names_the_latest_conversation(client: Client) -> None:
    session, auth = await _guest(client)
    body = {"message": "How deep may I dive on nitrox 32?", "stream": False}
    for _ in range(2):
        answer = await client.http.post("/api/chat", json=body, headers=auth)
        read = await client.http.get(f"/api/session/{session['id']}", headers=auth)
        assert read.json()["conversation_id"] == answer.headers["X-Conversation-Id"]


async def test_a_profile_takes_what_is_given_keeps_the_rest_and_drops_null(client: Client) -> None:
    session, auth = await _guest(client, level="Open Water", dives=3)
    path = f"/api/session/{session['id']}"
    changed = await client.http.patch(
        path, json={"profile": {"dives": 4, "level": None, "likes": ["wrecks"]}}, headers=auth
    )
    assert changed.json()["profile"] == {"dives": 4, "likes": ["wrecks"]}
    await asyncio.gather(*(client.http.patch(path, json={"profile": {f"k{n}": n}}, headers=auth) for n in range(6)))
    profile = (await client.http.get(path, headers=auth)).json()["profile"]
    assert profile == {"dives": 4, "likes": ["wrecks"], **{f"k{n}": n for n in range(6)}}


async def test_a_profile_that_cannot_be_kept_is_refused_and_changes_nothing(client: Client) -> None:
    session, auth = await _guest(client, level="Open Water")
    path, headers = f"/api/session/{session['id']}", {**auth, "Content-Type": "application/json"}
    for body in (
        '{"profile": {"a": "' + "x" * 9000 + '"}}',
        '{"profile": {"a": NaN}}',
        '{"profile": {"a": [1e999]}}',
        '{"profile": {"a": "\\u0000"}}',
        '{"profile": {"\\ud800": 1}}',
        '{"profile": []}',
        '{"profile": {}, "id": "x"}',
        "{}",
    ):
        response = await client.http.patch(path, content=body, headers=headers)
        assert response.status_code == 422, (body[:40], response.text)
        assert (await client.http.post("/api/session", content=body, headers=headers)).status_code in (201, 422)
    assert (await client.http.get(path, headers=auth)).json()["profile"] == {"level": "Open Water"}


async def test_a_session_of_another_is_not_there(client: Client) -> None:
    session, _ = await _guest(client, level="Open Water")
    _, stranger = await _guest(client)
    for headers in (stranger, client.auth):
        for id in (session["id"], str(new_id())):
            path = f"/api/session/{id}"
            assert (await client.http.get(path, headers=headers)).status_code == 404
            changed = await client.http.patch(path, json={"profile": {"level": "x"}}, headers=headers)
            assert changed.status_code == 404


async def test_an_expired_session_is_refused(client: Client) -> None:
    session, auth = await _guest(client)
    async with everything(client.server.database) as db:
        await db.execute(text("update guest set expires_at = now() - interval '1 second'"))
    for method, path in (("GET", f"/api/session/{session['id']}"), ("GET", "/api/conversations")):
        response = await client.http.request(method, path, headers=auth)
        assert response.status_code == 401
        assert "expired" in response.json()["detail"]


async def test_a_guest_leaves_a_lead_in_its_own_conversation_only(client: Client) -> None:
    body = {"message": "How deep may I dive on nitrox 32?", "stream": False}
    theirs = (await client.http.post("/api/chat", json=body, headers=client.auth)).headers["X-Conversation-Id"]
    first = await client.http.post("/api/chat", json=body)
    auth = {"Authorization": f"Bearer {first.headers['X-Guest-Token']}"}
    mine = first.headers["X-Conversation-Id"]
    for path in ("/api/lead", "/api/tools/capture_lead"):
        sent = await client.http.post(path, json=LEAD, headers={**auth, "X-Conversation-Id": mine})
        assert sent.status_code == 200, sent.text
        assert sent.json() == IsPartialDict(**LEAD, status="new")
        for id in (theirs, str(new_id()), "x"):
            foreign = await client.http.post(path, json=LEAD, headers={**auth, "X-Conversation-Id": id})
            assert foreign.status_code == 404
    async with everything(client.server.database) as db:
        rows = (await db.execute(text("select distinct conversation_id::text from lead"))).scalars().all()
        assert rows == [mine]


async def test_a_lead_without_a_credential_makes_a_guest_who_keeps_the_token_also_of_a_mistake(client: Client) -> None:
    wrong = await client.http.post("/api/lead", json={"email": "nobody"})
    assert wrong.status_code == 422
    assert wrong.json() == IsPartialDict(code="invalid_input", errors=[IsPartialDict(field="email")])
    auth = {"Authorization": f"Bearer {wrong.headers['X-Guest-Token']}"}
    right = await client.http.post("/api/lead", json=LEAD, headers=auth)
    assert right.status_code == 200
    assert "X-Guest-Token" not in right.headers


async def test_a_tool_is_listed_and_called_by_those_who_hold_its_scope(client: Client) -> None:
    key = {"Authorization": f"Bearer {await client.new_key('tasks:read')}"}
    listed = (await client.http.get("/api/tools", headers=key)).json()
    assert {tool["scope"] for tool in listed} == {"tasks:read"}
    every = (await client.http.get("/api/tools", headers=client.auth)).json()
    assert [tool["name"] for tool in every] == list(client.server.workspace.tools)
    for name, tool in client.server.workspace.tools.items():
        if tool.scope != "tasks:read":
            refused = await client.http.post(f"/api/tools/{name}", json={}, headers=key)
            assert refused.status_code == 403, name
            assert tool.scope in refused.json()["detail"]
    unknown = await client.http.post("/api/tools/no_such", json={}, headers=key)
    assert unknown.status_code == 404
    assert "create_task" not in unknown.json()["detail"]


async def test_the_body_of_a_tool_is_one_json_object(client: Client) -> None:
    headers = {**client.auth, "Content-Type": "application/json"}
    for content in (b"[]", b"7", b'"x"', b"{", b"\xff", b'{"title": "\xff"}', b'{"title": "\\ud800"}', b"null", b"NaN"):
        response = await client.http.post("/api/tools/create_task", content=content, headers=headers)
        assert response.status_code == 422, (content, response.text)
    empty = await client.http.post("/api/tools/list_tasks", content=b"", headers=client.auth)
    assert empty.json()["items"] == []
