"""What a request costs before anybody knows whose it is: short refusals, and each of them is counted."""

import json
from typing import Any

import pytest
from dirty_equals import IsPartialDict
from fastapi.routing import APIRoute
from hypothesis import given
from hypothesis import strategies as st
from starlette.routing import Mount, Route

from agent_server.asgi import create_app
from agent_server.errors import AgentServerError, FieldError, InvalidInput, quote_value
from tests.server import Client, Start

LONG = "1 " * 250_000
"""Digits and spaces, which are a card number as far as one can see."""
MANY = {f"field{n}": n for n in range(15_000)}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/auth/login", {LONG: 1}),
        ("/api/auth/login", MANY),
        ("/api/session", {"profile": {}, LONG: 1}),
        ("/api/chat", {"message": "x", "agent": LONG}),
        ("/api/chat", {"message": "x", "on_busy": LONG}),
        ("/api/chat", {"messages": [{"role": "user", "parts": [1] * 15_000}]}),
        ("/api/tools/create_task", {"title": "x", LONG: 1}),
        ("/api/tools/create_task", MANY),
        ("/api/tools/read_document", {"path": LONG}),
        ("/api/keys", {"name": "x", "scopes": [LONG]}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_refusal_is_short_however_much_was_wrong(client: Client, path: str, body: Any) -> None:
    response = await client.http.post(path, json=body, headers=client.auth)
    assert 400 <= response.status_code < 500, response.text
    assert len(response.text) < 12_000
    assert len(response.json().get("errors", [])) <= 20


async def test_a_refusal_of_many_fields_says_how_many_more_there_are(client: Client) -> None:
    response = await client.http.post("/api/auth/login", json={f"f{n}": n for n in range(30)})
    assert response.json()["detail"].endswith("; and 12 more")  # email and password are missing, too


async def test_an_mcp_refusal_is_short_however_long_the_address_or_the_method(client: Client) -> None:
    headers = {**client.auth, "Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-11-25"}
    for method, params in [
        ("resources/read", {"uri": f"content://{LONG}"}),
        ("resources/read", {"uri": LONG}),
        (LONG, {}),
        ("tools/call", {"name": LONG, "arguments": {}}),
        ("tools/call", {"name": "create_task", "arguments": {LONG: 1}}),
    ]:
        call = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        response = await client.http.post("/mcp", json=call, headers=headers)
        assert len(response.text) < 5_000, (method[:20], response.status_code)


async def test_a_body_of_more_values_than_anybody_needs_is_refused_before_it_is_read(client: Client) -> None:
    many = {"message": "x", "messages": [0] * 20_001}
    bodies: list[Any] = [many, {f"f{n}": 0 for n in range(20_001)}, {"a": [[]] * 20_001}]
    for body in bodies:
        response = await client.http.post("/api/chat", json=body)
        assert response.status_code == 422
        assert response.json() == IsPartialDict(detail="body: holds more than 20000 values; send less at once")


async def test_a_text_may_have_as_many_commas_as_it_likes(client: Client) -> None:
    response = await client.http.post("/api/chat", json={"message": '[{,"' * 30_000}, headers=client.auth)
    assert response.status_code == 422
    assert "characters" in response.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path", "content", "kind"),
    [
        ("POST", "/api/chat", b"{", "application/json"),
        ("POST", "/api/chat", b"[" * 200, "application/json"),
        ("POST", "/api/chat", json.dumps([0] * 20_001).encode(), "application/json"),
        ("POST", "/api/chat", b"x" * 1_100_000, "application/json"),
        ("POST", "/api/users", b"{}", "application/json"),
        ("POST", "/api/auth/login", b"{}", "application/json"),
        ("GET", "/no/such/path", b"", ""),
        ("DELETE", "/api/chat", b"", ""),
        ("POST", "/mcp", b"{}", "application/json"),
    ],
)
async def test_a_refused_request_counts_against_its_address(
    start: Start, method: str, path: str, content: bytes, kind: str
) -> None:
    async with start(rate_per_address=3) as client:
        answers = [
            (await client.http.request(method, path, content=content, headers={"Content-Type": kind})).status_code
            for _ in range(5)
        ]
    assert 429 not in answers[:3]
    assert answers[3:] == [429, 429]


async def test_a_request_with_a_credential_counts_once(start: Start) -> None:
    async with start(rate_per_address=4) as client:
        answers = [
            (await client.http.post("/api/tools/create_task", json={}, headers=client.auth)).status_code
            for _ in range(5)
        ]
    assert answers == [422] * 4 + [429]


@given(st.text(min_size=0, max_size=3_000))
def test_what_a_message_repeats_of_a_value_has_a_hundred_characters(text: str) -> None:
    assert len(quote_value(text)) <= 100
    error = InvalidInput(text, [FieldError(text, text)] * 30)
    assert len(error.message) <= 2_000
    assert len(error.fields) == 20
    assert all(len(field.field) <= 100 and len(field.message) <= 300 for field in error.fields)
    assert len(AgentServerError(text * 3).message) <= 2_000


async def test_no_route_is_left_to_be_built_by_the_first_request(client: Client) -> None:
    routes = create_app(client.server).routes
    assert {type(route) for route in routes} == {APIRoute, Route, Mount}  # FastAPI's included routers build theirs late
