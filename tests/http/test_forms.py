"""Requests in the forms that uptime checks, shells and proxies send them."""

import json
from typing import Any

import httpx
import pytest

from tests.api.routes import BODIES, filled, routes
from tests.server import Client, Start

ANSWERED = [
    "/",
    "/health",
    "/readyz",
    "/api/page",
    "/openapi.json",
    "/docs",
    "/static/app.js",
    "/api/conversations",
    "/api/tools",
]
VARYING = {"date", "x-request-id", "content-length", "x-guest-token", "last-modified", "etag"}


def head_of(response: httpx.Response) -> tuple[int, dict[str, str]]:
    return response.status_code, {name: value for name, value in response.headers.items() if name not in VARYING}


async def test_head_is_answered_as_get_without_the_body_wherever_get_is_known(start: Start) -> None:
    async with start() as client:
        known = [filled(path) for method, path in await routes(client) if method == "GET"]
        for path in [*ANSWERED, *known, "/nowhere", "/mcp"]:
            for headers in (client.auth, {}):
                got = await client.http.get(path, headers=headers)
                head = await client.http.head(path, headers=headers)
                assert head_of(head) == head_of(got), path
                assert head.content == b""
                assert path not in ANSWERED[:7] or head.status_code == 200


async def test_head_of_an_event_stream_ends_with_its_head(start: Start) -> None:
    async with start() as client:
        turn = (await client.ask("What do I need for a night dive?"))["turn_id"]
        head = await client.http.head(f"/api/turns/{turn}/events", headers=client.auth)
        assert head.status_code == 200
        assert head.headers["content-type"].startswith("text/event-stream")
        assert head.content == b""


async def test_head_changes_nothing_where_only_post_is_known(start: Start) -> None:
    async with start() as client:
        response = await client.http.head("/api/chat", headers=client.auth)
        assert (response.status_code, response.headers["allow"]) == (405, "POST")


JSON_TYPES = ["application/json", "application/json; charset=utf-8", "application/json;charset=UTF-8", "APPLICATION/JSON",
              "application/vnd.api+json", "application/problem+json"]  # fmt: skip
OTHER_TYPES = [
    "application/x-www-form-urlencoded",
    "text/plain",
    "multipart/form-data; boundary=x",
    "text/json",
    "json",
    None,
]


async def _post(client: Client, path: str, body: bytes, kind: str | None) -> httpx.Response:
    method = "PATCH" if "{id}" in path or "conversations/" in path else "POST"
    headers = {**client.auth, **({"Content-Type": kind} if kind is not None else {})}
    return await client.http.request(method, filled(path), content=body, headers=headers)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
async def test_json_is_read_by_any_of_its_types(start: Start, mark: bytes) -> None:
    bodies: dict[str, Any] = {"/api/tools/list_tasks": {}, "/api/auth/login": {"email": "a@b.example", "password": "-"}}
    async with start() as client:
        for kind in JSON_TYPES:
            for path, body in bodies.items():
                response = await _post(client, path, mark + json.dumps(body).encode(), kind)
                assert response.status_code == (200 if "tools" in path else 401), (kind, response.text)
        # Only what reads the body itself takes JSON of another type, as shells send it.
        assert (await _post(client, "/api/tools/list_tasks", mark + b"{}", OTHER_TYPES[0])).status_code == 200


async def test_another_type_is_named_with_what_would_be_right(start: Start) -> None:
    async with start() as client:
        for path in [*BODIES, "/api/auth/login", "/api/tools/list_tasks"]:
            for kind in OTHER_TYPES:
                response = await _post(client, path, b"message=hi&agent=main", kind)
                sent = "is missing" if kind is None else f"is {kind!r}"
                assert response.status_code == 415, (path, kind, response.text)
                assert (
                    response.json()["detail"] == f"Content-Type: {sent}; send JSON, as `Content-Type: application/json`"
                )
                assert response.json()["code"] == "unsupported_media_type"
