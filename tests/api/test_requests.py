"""What holds for every request: who is calling, what an answer carries, what an error may say."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from dirty_equals import IsPartialDict, IsStr
from sqlalchemy import text
from structlog.testing import capture_logs

from agent_server.db import new_id, now
from agent_server.identity.credentials import issue_key
from agent_server.log import configure_logging
from agent_server.testing import Say, scripted_openai
from tests.conftest import everything
from tests.server import Client, Start
from tests.sse import read_frames

GUARDED = [
    ("GET", "/api/conversations"),
    ("GET", "/api/conversations/x"),
    ("PATCH", "/api/conversations/x"),
    ("DELETE", "/api/conversations/x"),
    ("GET", "/api/conversations/x/messages"),
    ("GET", "/api/chat/x/stream"),
    ("POST", "/api/chat/x/stop"),
    ("GET", f"/api/turns/{UUID(int=7)}"),
    ("POST", f"/api/turns/{UUID(int=7)}/cancel"),
    ("GET", f"/api/turns/{UUID(int=7)}/events"),
    ("GET", f"/api/session/{UUID(int=7)}"),
    ("PATCH", f"/api/session/{UUID(int=7)}"),
    ("GET", f"/api/confirmations/{UUID(int=7)}"),
    ("POST", f"/api/confirmations/{UUID(int=7)}"),
    ("GET", "/api/tools"),
    ("POST", "/api/tools/list_tasks"),
    ("POST", "/api/tools/capture_lead"),
    ("POST", "/api/tools/no_such_tool"),
    ("POST", "/api/auth/logout"),
    ("GET", "/api/auth/me"),
    ("POST", "/api/auth/password"),
    ("POST", "/api/auth/claim"),
    ("GET", "/api/keys"),
    ("POST", "/api/keys"),
    ("DELETE", f"/api/keys/{UUID(int=7)}"),
    ("GET", "/api/users"),
    ("POST", "/api/users"),
    ("PATCH", f"/api/users/{UUID(int=7)}"),
    ("GET", "/api/audit"),
    ("GET", "/api/me/audit"),
    ("GET", "/api/me/export"),
    ("DELETE", "/api/me"),
]


async def test_without_a_credential_a_guarded_route_says_what_to_send(client: Client) -> None:
    for method, path in GUARDED:
        json = {"title": "t", "profile": {}} if method == "PATCH" else None
        body = {key: json[key] for key in json if (key == "title") == ("conversations" in path)} if json else None
        response = await client.http.request(method, path, json=body)
        assert response.status_code == 401, (method, path, response.text)
        assert response.headers["WWW-Authenticate"].startswith("Bearer")
        assert response.json() == IsPartialDict(
            code="unauthorized", status=401, detail=IsStr(regex=".*Authorization.*")
        )
        assert "X-Guest-Token" not in response.headers


async def test_a_credential_that_does_not_hold_is_refused_also_where_none_is_needed(client: Client) -> None:
    async with everything(client.server.database) as session:
        expired = await issue_key(session, new_id(), name="t", scopes=["*"], expires_at=now() - timedelta(seconds=1))
        revoked = await issue_key(session, new_id(), name="t", scopes=["*"])
        revoked.row.revoked_at = now()
    guest = (await client.http.post("/api/session")).json()
    async with everything(client.server.database) as session:
        await session.execute(text("update guest set expires_at = now()"))
    known, _, secret = client.key.partition(".")
    wrong = [
        f"Bearer {expired.text}",
        f"Bearer {revoked.text}",
        f"Bearer {guest['token']}",
        f"Bearer {known}.{secret[:-1]}",
        f"Bearer {known}",
        f"Bearer asg{client.key[3:]}",
        f"Bearer ask_{new_id().hex}.{secret}",
        "Bearer",
        f"Basic {client.key}",
        client.key,
        "Bearer é",
    ]
    for header in wrong:
        for method, path in (("GET", "/api/conversations"), ("POST", "/api/chat"), ("POST", "/api/lead")):
            body = {"message": "hello"} if method == "POST" else None
            headers = {"Authorization": header.encode("latin-1")}
            response = await client.http.request(method, path, json=body, headers=headers)  # type: ignore[arg-type]
            assert response.status_code == 401, (header, path, response.text)
            assert response.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
            assert secret not in response.text
            assert "X-Guest-Token" not in response.headers
    async with everything(client.server.database) as session:
        assert (await session.execute(text("select count(*) from conversation"))).scalar_one() == 0
        assert (await session.execute(text("select count(*) from guest"))).scalar_one() == 1


async def test_a_guest_token_is_given_only_where_a_guest_was_made(client: Client) -> None:
    body = {"message": "How deep may I dive on nitrox 32?", "stream": False}
    first = await client.http.post("/api/chat", json=body)
    guest = {"Authorization": f"Bearer {first.headers['X-Guest-Token']}"}
    for headers in (guest, client.auth):
        assert "X-Guest-Token" not in (await client.http.post("/api/chat", json=body, headers=headers)).headers
    for path in ("/", "/health", "/api/page", "/api/conversations"):
        assert "X-Guest-Token" not in (await client.http.get(path)).headers
    refused = await client.http.post("/api/chat", json={"message": ""})
    assert refused.status_code == 422
    unread = await client.http.post("/api/chat", json={"message": 7})
    assert unread.status_code == 422
    stored = [response.headers.get("X-Guest-Token") for response in (first, refused, unread)]
    async with everything(client.server.database) as session:
        guests = (await session.execute(text("select count(*) from guest"))).scalar_one()
    assert guests == len([token for token in stored if token])


async def test_a_guest_may_chat_and_send_a_form_and_nothing_else(client: Client) -> None:
    guest = {"Authorization": f"Bearer {(await client.http.post('/api/session')).json()['token']}"}
    refused = {"/api/tools": "GET", **{f"/api/tools/{name}": "POST" for name in client.server.workspace.tools}}
    del refused["/api/tools/capture_lead"]
    for path, method in refused.items():
        response = await client.http.request(method, path, json={} if method == "POST" else None, headers=guest)
        assert response.status_code == 403, (path, response.text)
        assert response.json()["code"] == "forbidden"
    assert (await client.http.post("/api/tools/no_such_tool", json={}, headers=guest)).status_code == 403
    assert (await client.http.get("/api/conversations", headers=guest)).status_code == 200


EVERYWHERE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Request-Id": IsStr(regex="[0-9a-f]{32}"),
    "Content-Security-Policy": IsStr(regex="default-src 'none'.*frame-ancestors 'none'"),
}


async def test_every_answer_carries_the_headers_that_guard_a_browser_and_a_request_id(client: Client) -> None:
    await _break(client, "audit")
    for method, path, status in [
        ("GET", "/", 200),
        ("GET", "/static/app.js", 200),
        ("GET", "/static/none.js", 404),
        ("GET", "/docs", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/health", 200),
        ("GET", "/api/conversations", 401),
        ("GET", "/no/such/thing", 404),
        ("DELETE", "/api/chat", 405),
        ("POST", "/mcp", 401),
        ("POST", "/api/chat", 415),
    ]:
        response = await client.http.request(method, path)
        assert response.status_code == status, (path, response.text)
        assert dict(response.headers) == IsPartialDict({k.lower(): v for k, v in EVERYWHERE.items()}), path
    bug = await client.http.post("/api/tools/list_tasks", json={}, headers=client.auth)
    assert bug.status_code == 500
    assert dict(bug.headers) == IsPartialDict({k.lower(): v for k, v in EVERYWHERE.items()})
    large = await client.http.post("/api/chat", content=b"x" * 1_048_577)
    assert large.status_code == 413
    assert dict(large.headers) == IsPartialDict({k.lower(): v for k, v in EVERYWHERE.items()})


async def _break(client: Client, table: str) -> None:
    """Make every statement on a table a bug."""
    async with everything(client.server.database) as session:
        await session.execute(text(f"alter table {table} rename to secret_table_name"))


async def test_a_request_id_is_echoed_where_it_is_hex_or_a_uuid_and_replaced_where_it_could_say_anything(
    client: Client,
) -> None:
    hexadecimal = "0af7651916cd43dd"  # pragma: allowlist secret
    for given in (hexadecimal, hexadecimal * 2, hexadecimal * 4, "019a1c7e-8c6b-7d3f-a1b2-0c3d4e5f6a7b"):
        response = await client.http.get("/no/such", headers={"X-Request-Id": given})
        assert response.headers["X-Request-Id"] == given
        assert response.json()["request_id"] == given
    texts = ("", "a b", "abc-123", "ann.smith", "x" * 32, 'a"b', "{}", "a;b", "a\tb")
    numbers = (hexadecimal[1:], hexadecimal * 4 + "0", hexadecimal.upper(), "4111111111111111", "4" * 8 + "-4444" * 4)
    for given in (*texts, *numbers):
        response = await client.http.get("/no/such", headers={"X-Request-Id": given})
        assert response.headers["X-Request-Id"] == IsStr(regex="[0-9a-f]{32}")
        assert response.json()["request_id"] == response.headers["X-Request-Id"]


async def test_a_requests_log_line_says_what_was_asked_and_how_it_ended(client: Client) -> None:
    configure_logging("INFO", "console")
    with capture_logs() as logs:
        await client.http.get("/api/conversations", params={"q": "private words"}, headers={"X-Request-Id": "a1" * 8})
    configure_logging("WARNING", "console")
    assert [line for line in logs if line["event"] == "http.request"] == [
        IsPartialDict(method="GET", path="/api/conversations", status=401)
    ]
    assert "private words" not in str(logs)


async def test_what_is_not_there_is_a_problem_document(client: Client) -> None:
    for method, path, status, code in [
        ("GET", "/no/such", 404, "not_found"),
        ("GET", "/static/../settings.py", 404, "not_found"),
        ("GET", "/static/%2e%2e/render.py", 404, "not_found"),
        ("PUT", "/api/conversations", 405, "method_not_allowed"),
        ("POST", "/static/app.js", 405, "method_not_allowed"),
        ("POST", "/health", 405, "method_not_allowed"),
    ]:
        response = await client.http.request(method, path, headers=client.auth)
        assert response.headers["content-type"] == "application/problem+json", (path, response.text)
        assert response.json() == {
            "type": "about:blank",
            "title": IsStr(),
            "status": status,
            "detail": IsStr(),
            "code": code,
            "request_id": response.headers["X-Request-Id"],
        }
        if status == 405:
            assert response.headers["Allow"]


async def test_a_bug_is_answered_with_a_reference_that_is_in_the_log_and_nothing_of_its_inside(client: Client) -> None:
    await _break(client, "conversation")
    with capture_logs() as logs:
        response = await client.http.get("/api/conversations", headers=client.auth)
    assert response.status_code == 500
    problem = response.json()
    assert problem == IsPartialDict(code="internal", detail=IsStr(regex=".*our fault. Reference [0-9a-f]{12}"))
    (line,) = [line for line in logs if line["event"] == "http.failed"]
    assert problem["detail"].endswith(line["reference"])
    assert line["exc_info"]
    for inside in ("select", "conversation_", "asyncpg", "sqlalchemy", "/work", ".py", "postgres", client.key):
        assert inside not in response.text.lower()


async def test_a_stream_that_breaks_is_cut_and_not_taken_for_the_whole(start: Start) -> None:
    go_on = asyncio.Event()
    async with (
        scripted_openai([Say("one two three", hold=(2, go_on))]) as model,
        start(openai_base_url=model.url, model="m") as client,
    ):
        with pytest.raises(Exception, match=r"peer closed|incomplete"):  # noqa: PT012
            async with client.http.stream("POST", "/api/chat", json={"message": "x"}, headers=client.auth) as response:
                async for frame in read_frames(response):
                    assert frame.data != "[DONE]"
                    if frame.data["type"] == "text-delta":
                        await _break(client, "turn")
        async with everything(client.server.database) as session:
            await session.execute(text("alter table secret_table_name rename to turn"))
        go_on.set()


async def _chunks(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // 1000):
        yield b"x" * 1000


async def test_a_body_over_the_limit_is_refused_declared_or_not(start: Start) -> None:
    async with start(body_limit=10_000) as client:
        headers = {**client.auth, "Content-Type": "application/json"}
        for path in ("/api/chat", "/api/tools/create_task", "/api/session", "/mcp"):
            for content in (b"x" * 11_000, _chunks(11_000)):
                response = await client.http.post(path, content=content, headers=headers)
                assert response.status_code == 413, (path, response.text)
                assert response.json() == IsPartialDict(code="too_large", detail=IsStr(regex=".*10000 bytes.*"))
        body = json.dumps({"message": "How deep may I dive on nitrox 32?", "stream": False}).encode()
        for content in (body.ljust(10_000), _chunked(body)):
            response = await client.http.post("/api/chat", content=content, headers=headers)
            assert response.status_code == 200, response.text


async def _chunked(body: bytes) -> AsyncIterator[bytes]:
    for i in range(0, len(body), 7):
        yield body[i : i + 7]


async def test_a_body_that_is_nested_beyond_reason_is_refused(client: Client) -> None:
    headers = {**client.auth, "Content-Type": "application/json"}
    guest = (await client.http.post("/api/session")).json()
    own = {"Authorization": f"Bearer {guest['token']}", "Content-Type": "application/json"}
    for depth in (500, 900, 100_000):
        nested = "[" * depth + "]" * depth
        for method, path, body, auth in [
            ("POST", "/api/chat", f'{{"message": {nested}}}', headers),
            ("POST", "/api/session", f'{{"profile": {{"a": {nested}}}}}', headers),
            ("PATCH", f"/api/session/{guest['id']}", f'{{"profile": {{"a": {nested}}}}}', own),
            ("POST", "/api/tools/create_task", f'{{"title": {nested}}}', headers),
        ]:
            response = await client.http.request(method, path, content=body, headers=auth)
            assert response.status_code < 500, (depth, path, response.text)


async def test_other_origins_may_call_only_where_it_was_set(start: Start) -> None:
    preflight = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    async with start() as client:
        response = await client.http.options("/api/chat", headers=preflight)
        assert response.status_code == 405
        plain = await client.http.get("/health", headers={"Origin": "https://shop.example"})
        for answer in (response, plain):
            assert not [name for name in answer.headers if name.startswith("access-control")]
    async with start(cors_origins=("https://shop.example",)) as client:
        response = await client.http.options("/api/chat", headers=preflight)
        assert response.status_code == 200
        assert response.headers["Access-Control-Allow-Origin"] == "https://shop.example"
        refused = await client.http.options("/api/chat", headers={**preflight, "Origin": "https://evil.example"})
        assert "Access-Control-Allow-Origin" not in refused.headers
        answer = await client.http.post("/api/chat", json={"message": ""}, headers={"Origin": "https://shop.example"})
        assert "X-Guest-Token" in answer.headers["Access-Control-Expose-Headers"]
        assert answer.headers["Access-Control-Allow-Origin"] == "https://shop.example"


async def test_a_wrong_body_is_told_field_by_field_without_repeating_it(client: Client) -> None:
    bodies: list[tuple[Any, str]] = [
        ({}, "send either"),
        ({"message": "x", "messages": []}, "send either"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "parts": []}]}, "messages.0.role"),
        ({"message": "x", "secret": "canary"}, "secret"),
        ({"message": "canary", "on_busy": "canary"}, "on_busy"),
        ({"message": "x", "id": "canary" * 20}, "id"),
        ({"message": "a\0canary"}, "message"),
        ({"message": "x", "agent": "nobody"}, "agent"),
    ]
    for body, names in bodies:
        response = await client.http.post("/api/chat", json=body, headers=client.auth)
        assert response.status_code == 422, body
        assert names in response.json()["detail"]
        assert "canary" not in response.text
