"""How large, how deep and how slow a request may be."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from dirty_equals import IsPartialDict
from hypothesis import given
from hypothesis import strategies as st

from agent_server.bodies import DEPTH_LIMIT
from agent_server.errors import InvalidInput
from agent_server.http.edge import BodyMiddleware
from tests.api.routes import raw
from tests.server import Client, Start


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("X", "y")] * 90, 200),
        ([("X", "y")] * 101, 431),
        ([("X", "y" * 32_000)], 200),
        ([("X", "y" * 33_000)], 431),
        ([("X" * 40, "y" * 400)] * 80, 431),
        ([("X", "y" * 200_000)], 431),
    ],
    ids=["some", "many", "long", "too long", "too long together", "far too long"],
)
async def test_too_many_or_too_long_headers_are_refused(
    client: Client, headers: list[tuple[str, str]], status: int
) -> None:
    response = await client.http.get("/api/page", headers=headers)
    assert response.status_code == status
    if status != 200:
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json() == IsPartialDict(code="headers_too_large")
        assert response.headers["X-Content-Type-Options"] == "nosniff"


async def test_a_long_address_is_refused(client: Client) -> None:
    assert (await client.http.get("/api/page", params={"q": "x" * 8_000})).status_code == 200
    for path in ("/" + "x" * 8_200, "/api/page?q=" + "x" * 8_200, "/" + "%20" * 3_000):
        response = await client.http.get(path)
        assert response.status_code == 414
        assert response.json() == IsPartialDict(code="address_too_long")


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize("depth", [101, 1_000, 100_000])
async def test_json_nested_too_deep_is_refused_wherever_it_is_sent(client: Client, depth: int) -> None:
    guest = (await client.http.post("/api/session")).json()
    own = {"Authorization": f"Bearer {guest['token']}"}
    mcp = {**client.auth, "Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-11-25"}
    objects = '{"a":' * depth + "1" + "}" * depth
    for method, path, body, headers in [
        ("POST", "/api/chat", f'{{"message": {nested(depth)}}}', client.auth),
        ("POST", "/api/chat", f'{{"messages": [{{"role": "user", "parts": [{objects}]}}]}}', client.auth),
        ("POST", "/api/chat", nested(depth), {**client.auth, "Content-Type": "text/plain"}),
        ("POST", "/api/session", f'{{"profile": {{"a": {nested(depth)}}}}}', {}),
        ("PATCH", f"/api/session/{guest['id']}", f'{{"profile": {objects}}}', own),
        ("POST", "/api/tools/create_task", f'{{"title": {nested(depth)}}}', client.auth),
        ("POST", "/api/tools/create_task", f'{{"title": {"[" * depth}', client.auth),
        ("POST", "/mcp", f'{{"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {objects}}}', mcp),
        ("POST", "/no/such", nested(depth), {}),
    ]:
        headers = {"Content-Type": "application/json", **headers}
        response = await client.http.request(method, path, content=body, headers=headers)
        assert response.status_code == 422, (path, response.text)
        assert response.json() == IsPartialDict(
            code="invalid_input", detail="body: nested more than 100 deep; send it flatter"
        )


async def test_json_nested_as_deep_as_may_be_is_taken_and_brackets_in_a_text_are_a_text(client: Client) -> None:
    whole = {"profile": {"a": json.loads(nested(DEPTH_LIMIT - 2)), "b": nested(200), "c": '\\"' + "{" * 200}}
    response = await client.http.post("/api/session", json=whole)
    assert response.status_code == 201, response.text
    assert response.json()["profile"] == whole["profile"]


async def test_json_in_another_encoding_hides_nothing(client: Client) -> None:
    for encoding in ("utf-16", "utf-16-le", "utf-32-be"):
        body = f'{{"message": "\u2200", "x": {nested(50_000)}}}'.encode(encoding)
        response = await client.http.post("/api/chat", content=body, headers=client.auth)
        assert response.status_code == 422
        assert "UTF-8" in response.json()["detail"]


JSON = st.recursive(
    st.none() | st.booleans() | st.text(alphabet='[]{}"\\ü\n a', max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='[{"\\', max_size=3), inner),
    max_leaves=12,
)


def depth_of(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(depth_of, value), default=0) if isinstance(value, list) else 0


@given(inner=JSON, around=st.integers(DEPTH_LIMIT - 5, DEPTH_LIMIT + 2), escaped=st.booleans())
def test_a_body_is_refused_exactly_when_its_json_is_too_deep(inner: Any, around: int, escaped: bool) -> None:
    value = inner
    for _ in range(around):
        value = [value]
    body = json.dumps(value, ensure_ascii=escaped).encode()
    assert asyncio.run(passes(body)) is (depth_of(value) <= DEPTH_LIMIT)


@given(pieces=st.lists(st.sampled_from([b'"', b"\\", b"[", b"]", b"{", b"}", b'\\"', b"a", b"\xff"]), max_size=300))
def test_bytes_that_are_no_json_break_nothing(pieces: list[bytes]) -> None:
    asyncio.run(passes(b"".join(pieces)))


def test_what_costs_a_naive_search_for_texts_its_time_does_not_cost_ours() -> None:
    """Each of these takes minutes where a text without an end is looked for from each of its quotes again."""
    for piece in (b'"\\"', b'\\"', b'"', b'"\\\\'):
        asyncio.run(passes(b"[" * 101 + piece * (1_000_000 // len(piece))))


async def passes(body: bytes) -> bool:
    """Whether a body comes through to the app, in whole."""
    seen: list[bytes] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((await receive())["body"])

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        raise AssertionError(message)

    scope = {"type": "http", "path": "/api/chat", "headers": [(b"content-length", str(len(body)).encode())]}
    with suppress(InvalidInput):
        await BodyMiddleware(app, limit=1_048_576, timeout=30)(scope, receive, send)
    assert seen in ([], [body])
    return bool(seen)


async def test_a_packed_body_is_refused(client: Client) -> None:
    for method, path in (("POST", "/api/chat"), ("POST", "/api/tools/list_tasks"), ("POST", "/mcp")):
        for encoding in ("gzip", "deflate", "br", "zstd", "gzip, identity", "x"):
            headers = {**client.auth, "Content-Encoding": encoding}
            response = await client.http.request(method, path, content=b"\x1f\x8b", headers=headers)
            assert response.status_code == 415, (path, encoding)
            assert response.json() == IsPartialDict(code="unsupported_media_type")
    plain = {**client.auth, "Content-Encoding": "Identity"}
    assert (await client.http.post("/api/tools/list_tasks", json={}, headers=plain)).status_code == 200


HEAD = "POST /api/session HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"


SLOW = {
    HEAD + "\r\n{": b"408",
    "POST /api/session HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n": b"408",
    HEAD + "Content-Encoding: gzip\r\n\r\n": b"415",  # refused, and sent on and on
    HEAD + "Origin: null\r\n\r\n": b"403",
    "GET /health HTT": b"",
    "GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: ": b"",
    "": b"",
    "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /health HTTP/1.1\r\nX-Slow: ": b"200",
    "no http at all\r\n\r\n": b"400",
}


async def test_who_sends_byte_by_byte_is_cut_off_and_holds_up_nobody(start: Start) -> None:
    async with start(body_timeout=0.5) as client:
        port = client.http.base_url.port
        links = [await asyncio.open_connection("127.0.0.1", port) for _ in SLOW]
        for begin, (_, writer) in zip(SLOW, links, strict=True):
            writer.write(begin.encode())
        dripping = [asyncio.create_task(_drip(writer)) for begin, (_, writer) in zip(SLOW, links, strict=True) if begin]
        assert (await client.http.post("/api/session")).status_code == 201
        async with asyncio.timeout(60):  # for ever is what would be wrong
            answers = await asyncio.gather(*(_read_to_the_end(reader) for reader, _ in links))
        assert [answer[9:12] for answer in answers] == list(SLOW.values())
        assert b'"code":"request_timed_out"' in answers[0]
        for task in dripping:
            task.cancel()
        for _, writer in links:
            writer.close()


async def _drip(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"1")
        await asyncio.sleep(0.1)


async def _read_to_the_end(reader: asyncio.StreamReader) -> bytes:
    answer = b""
    try:
        while more := await reader.read(65_536):
            answer += more
    except ConnectionResetError:  # it was closed while a byte was on its way
        pass
    return answer


async def test_a_body_that_takes_its_time_and_comes_in_time_is_read(client: Client) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b'{"profile": ', b'{"name": ', b'"Ada"}}'):
            yield piece
            await asyncio.sleep(0.05)

    made = await client.http.post("/api/session", content=pieces(), headers={"Content-Type": "application/json"})
    assert made.json()["profile"] == {"name": "Ada"}


async def test_what_is_no_http_is_a_problem_document(client: Client) -> None:
    for text in ("\x16\x03\x01 TLS\r\n\r\n", "GET\r\n\r\n", HEAD + "Transfer-Encoding: gzip\r\n\r\n"):
        head, _, body = (await raw(client, text)).partition(b"\r\n\r\n")
        assert head.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 ")), head
        assert json.loads(body)["code"] == "bad_request"


async def test_nobody_is_let_in_by_a_web_socket(client: Client) -> None:
    lines = "GET /mcp HTTP/1.1\r\nHost: evil.example\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n"
    key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    assert (await raw(client, f"{lines}{key}\r\n")).startswith(b"HTTP/1.1 421 ")
