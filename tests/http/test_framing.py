"""Where a request ends is said in one way, and streams are kept by nobody."""

import json

import pytest
from dirty_equals import IsPartialDict

from tests.api.routes import raw
from tests.server import Client

HEAD = "POST /api/session HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n"
SMUGGLED = "GET /api/page HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    "request_",
    [
        HEAD + CHUNKED + "Content-Length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        HEAD + "Content-Length: 2\r\n" + CHUNKED + "\r\n2\r\n{}\r\n0\r\n\r\n",
        HEAD + "content-length: 0\r\ntransfer-encoding:  Chunked \r\n\r\n0\r\n\r\n",
        HEAD + "Content-Length: 5\r\n" + CHUNKED + "\r\n0\r\n\r\n",
        HEAD.replace("POST", "GET") + CHUNKED + "Content-Length: 0\r\n\r\n0\r\n\r\n",
        HEAD.replace("/api/session", "/mcp") + CHUNKED + "Content-Length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        HEAD.replace("/api/session", "/health") + CHUNKED + "Content-Length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        HEAD.replace("1.1", "1.0") + "Connection: keep-alive\r\n" + CHUNKED + "\r\n2\r\n{}\r\n0\r\n\r\n",
        HEAD + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        HEAD + "Content-Length: 2, 3\r\n\r\n{}",
        HEAD + "Content-Length: +2\r\n\r\n{}",
        HEAD + "Content-Length : 2\r\n\r\n{}",
    ],
)
async def test_a_request_that_ends_in_two_places_is_refused_and_nothing_that_follows_is_answered(
    client: Client, request_: str
) -> None:
    answer = await raw(client, request_ + SMUGGLED)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 "), head
    assert b"\r\nconnection: close" in head.lower()
    assert answer.count(b"HTTP/1.1 ") == 1
    assert json.loads(body) == IsPartialDict(status=400, code="bad_request")


async def test_a_body_in_chunks_and_one_of_a_length_are_read_and_what_follows_is_answered(client: Client) -> None:
    for body in (CHUNKED + "\r\n2\r\n{}\r\n0\r\n\r\n", "Content-Length: 2\r\n\r\n{}"):
        answer = await raw(client, HEAD + body + SMUGGLED)
        assert answer.count(b"HTTP/1.1 201 ") == 1
        assert answer.count(b"HTTP/1.1 200 ") == 1


async def test_no_stream_is_kept_by_a_browser_or_a_proxy(client: Client) -> None:
    """Every way to one: sent, followed, replayed, by our own events, by MCP."""
    body = {"message": "How deep may I dive on nitrox 32?"}
    async with client.http.stream("POST", "/api/chat", json=body, headers=client.auth) as sent:
        await sent.aread()
    conversation, turn = sent.headers["X-Conversation-Id"], sent.headers["X-Turn-Id"]
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    accept = {**client.auth, "Accept": "application/json, text/event-stream"}
    replayed = await client.http.get(
        f"/api/chat/{conversation}/stream", headers={**client.auth, "Last-Event-ID": f"{turn}:1"}
    )
    answers = [
        sent,
        replayed,
        await client.http.get(f"/api/turns/{turn}/events", headers=client.auth),
        await client.http.post("/mcp", json=call, headers=accept),
    ]
    for answer in answers:
        assert answer.headers["Content-Type"].startswith("text/event-stream"), answer.url
        assert answer.headers["Cache-Control"] == "no-store, no-transform", answer.url
