"""Which requests are looked at: by the name they ask for, the page they come from, the place of their credential."""

import json
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from dirty_equals import IsPartialDict, IsStr
from starlette.requests import Request
from starlette.responses import JSONResponse

from agent_server.errors import InvalidInput
from agent_server.http.listener import create_config
from agent_server.settings import load_settings, variable_of
from agent_server.testing.serving import serving
from tests.api.routes import BODIES, ELSEWHERE, filled, raw, routes
from tests.server import Client, Start
from tests.sse import read_frames

# --- Host


async def test_no_route_answers_to_a_name_that_is_not_the_servers(client: Client) -> None:
    page = [("GET", path) for path in ("/", "/static/app.js", "/docs", "/docs/start.js", "/openapi.json", "/no/such")]
    for method, path in [*page, *await routes(client)]:
        if path in ("/health", "/readyz"):
            continue
        headers = {**client.auth, "Host": "rebound.example"}
        response = await client.http.request(method, filled(path), json=BODIES.get(path), headers=headers)
        assert response.status_code == 421, (method, path, response.text)
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json() == IsPartialDict(
            code="misdirected", detail=IsStr(regex=".*AGENT_SERVER_ALLOWED_HOSTS.*")
        )
    assert (await client.get("/api/conversations"))["items"] == []


@pytest.mark.parametrize(
    ("settings", "served", "refused"),
    [
        (
            {},
            [
                "localhost",
                "localhost:9",
                "LocalHost",
                "localhost.",
                "localhost.:9",
                "127.0.0.1",
                "127.0.0.1:65535",
                "[::1]",
                "[::1]:8000",
            ],
            ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.2", "0.0.0.0", "[::2]"],
        ),
        (
            {"allowed_hosts": ("Agents.example", "other.example:8443")},
            [
                "agents.example",
                "agents.example:1",
                "AGENTS.example",
                "agents.example.",
                "other.example:8443",
                "localhost",
            ],
            ["other.example", "other.example:8444", "x.agents.example", "agents.example.evil", "agents.example.."],
        ),
        (
            {"allowed_hosts": ("*.agents.example",)},
            ["a.agents.example", "a.b.agents.example:7"],
            ["agents.example", "agents.example.evil", "evilagents.example", "agents-example"],
        ),
        ({"host": "192.0.2.7"}, ["192.0.2.7", "192.0.2.7:8000"], ["192.0.2.8"]),
        ({"host": "0.0.0.0"}, ["127.0.0.1"], ["0.0.0.0"]),
        ({"public_url": "https://agents.example:8443"}, ["agents.example", "agents.example:8443"], ["evil.example"]),
        ({"allowed_hosts": ("*",)}, ["anything.example", "10.1.2.3:80", "[2001:db8::1]"], []),
    ],
)
async def test_it_answers_to_the_names_that_it_knows(
    start: Start, settings: dict[str, Any], served: list[str], refused: list[str]
) -> None:
    async with start(**settings) as client:
        for host in served:
            for path, status in (("/api/page", 200), ("/mcp", 405)):
                response = await client.http.get(path, headers={**client.auth, "Host": host})
                assert response.status_code == status, (host, response.text)
        for host in refused:
            assert (await client.http.get("/api/page", headers={"Host": host})).status_code == 421, host


MALFORMED = [
    *("", "localhost:", "localhost:x", "localhost:123456", "user@localhost", "localhost/", "::1", "[::1", "local host"),
    *("localhost,evil.example", "http://localhost", "évil.example", "*", ".localhost", "localhost\x00"),
]


@pytest.mark.parametrize(
    "lines",
    [
        "GET /api/page HTTP/1.0\r\n",
        "GET /api/page HTTP/1.1\r\nConnection: close\r\n",
        "GET /api/page HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\nConnection: close\r\n",
        "GET /api/page HTTP/1.0\r\nHost: localhost\r\nHost: evil.example\r\n",
        *(f"GET /api/page HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n" for host in MALFORMED),
    ],
)
async def test_a_host_that_is_missing_doubled_or_malformed_is_a_bad_request(client: Client, lines: str) -> None:
    head, _, body = (await raw(client, lines + "\r\n")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 "), head
    assert json.loads(body) == IsPartialDict(status=400, code="bad_request")
    assert b"content-security-policy" in head.lower()


async def test_a_load_balancer_asks_after_its_health_by_any_name_or_none(client: Client) -> None:
    for path in ("/health", "/readyz"):
        assert (await client.http.get(path, headers={"Host": "10.0.0.7:8000"})).status_code == 200
        assert (await raw(client, f"GET {path} HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("allowed_hosts", [wrong]) for wrong in ("https://a.example", "a.example/", "a.*", "", "*a.example", "a b")),
        *(
            ("cors_origins", [wrong])
            for wrong in ("a.example", "https://a.example/", "null", "https://*.a.example", "")
        ),
        *(("public_url", wrong) for wrong in ("agents.example", "https://agents.example/path", "ftp://", "https://*")),
        *(("public_url", wrong) for wrong in ("ws://agents.example", "https://u:p@agents.example")),
        *(("trusted_proxies", [wrong]) for wrong in ("*", "proxy.example", "10.0.0.1/8", "")),
    ],
)
def test_a_setting_that_would_let_nobody_in_or_anybody_is_named(name: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=variable_of(name)):
        load_settings(**{name: value})


# --- Origin


async def test_a_page_of_another_origin_may_change_nothing_on_any_route(client: Client) -> None:
    for method, path in await routes(client):
        headers = {**client.auth, "Origin": ELSEWHERE}
        response = await client.http.request(method, filled(path), json=BODIES.get(path), headers=headers)
        if method == "GET":
            assert response.status_code != 403
        else:
            assert response.status_code == 403, (method, path, response.text)
            assert response.json() == IsPartialDict(
                code="forbidden", detail=IsStr(regex=".*AGENT_SERVER_CORS_ORIGINS.*")
            )
        public = path.startswith("/.well-known/")  # the same for everybody, for any page to read
        assert public or not [name for name in response.headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", ["/api/session", "/mcp"])
async def test_an_origin_that_only_looks_like_the_servers_is_another(client: Client, path: str) -> None:
    port = client.http.base_url.port
    for origin in (
        *("null", "", "http://127.0.0.1:1", "http://127.0.0.1", f"127.0.0.1:{port}", f"ftp://127.0.0.1:{port}"),
        *(f"http://localhost:{port}", f"http://127.0.0.1:{port}/", f"http://x@127.0.0.1:{port}", "file://"),
    ):
        response = await client.http.post(path, json={}, headers={**client.auth, "Origin": origin})
        assert response.status_code == 403, (origin, response.text)


async def test_two_origins_are_none(client: Client) -> None:
    own = str(client.http.base_url).rstrip("/")
    response = await client.http.post("/api/session", headers=[("Origin", own), ("Origin", own)])
    assert response.status_code == 403


async def test_the_servers_own_pages_may_do_what_they_do_by_either_scheme(start: Start) -> None:
    async with start(public_url="https://agents.example") as client:
        own = str(client.http.base_url).rstrip("/")
        for origin in (own, own.replace("http:", "https:"), "https://agents.example"):
            assert (await client.http.post("/api/session", headers={"Origin": origin})).status_code == 201, origin
        refused = await client.http.post("/api/session", headers={"Origin": "http://agents.example"})
        assert refused.status_code == 403


async def test_pages_of_a_listed_origin_may_call_and_are_told_so_also_of_failures(start: Start) -> None:
    shop = {"Origin": "https://shop.example"}
    preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    async with start(cors_origins=("https://Shop.example",), body_limit=1000) as client:
        made = await client.http.post("/api/session", headers=shop)
        large = await client.http.post("/api/session", content=b"x" * 1001, headers=shop)
        asked = await client.http.options("/api/chat", headers={**shop, **preflight})
        assert (made.status_code, large.status_code, asked.status_code) == (201, 413, 200)
        for answer in (made, large, asked):
            assert answer.headers["Access-Control-Allow-Origin"] == "https://shop.example"
            assert "Access-Control-Allow-Credentials" not in answer.headers
        for origin in (ELSEWHERE, "null"):
            refused = await client.http.options("/api/chat", headers={"Origin": origin, **preflight})
            assert refused.status_code == 403
            assert not [name for name in refused.headers if name.startswith("access-control")]
            assert (await client.http.post("/api/session", headers={"Origin": origin})).status_code == 403


async def test_any_origin_may_call_where_that_was_set_and_none_with_credentials_of_the_browser(start: Start) -> None:
    async with start(cors_origins=("*",)) as client:
        for origin in (ELSEWHERE, "null"):
            answer = await client.http.post("/api/session", headers={"Origin": origin, "Cookie": "a=b"})
            preflight = {"Origin": origin, "Access-Control-Request-Method": "POST"}
            asked = await client.http.options("/api/chat", headers=preflight)
            assert (answer.status_code, asked.status_code) == (201, 200)
            for response in (answer, asked):
                assert response.headers["Access-Control-Allow-Origin"] == "*"
                assert "Access-Control-Allow-Credentials" not in response.headers
        mcp = await client.http.get("/mcp", headers={**client.auth, "Origin": ELSEWHERE})
        assert mcp.status_code == 405


# --- Credentials


OPEN = {
    ("GET", "/api/page"),
    ("GET", "/health"),
    ("GET", "/readyz"),
    ("POST", "/api/session"),
    ("POST", "/api/auth/login"),
    ("POST", "/api/auth/refresh"),
    ("GET", "/.well-known/oauth-protected-resource"),
    ("GET", "/.well-known/oauth-protected-resource/mcp"),
    ("POST", "/api/hooks/{name}"),
}
MAKES_A_GUEST = {("POST", "/api/chat"), ("POST", "/api/lead")}
"""Routes that answer alike whoever asks."""
COOKIES = ("key", "token", "access_token", "session", "Authorization")
QUERIES = ("key", "token", "access_token", "api_key", "Authorization")
HEADERS = ("X-API-Key", "Proxy-Authorization", "X-Guest-Token", "X-Authorization", "X-Forwarded-Authorization")
BASIC = ("{}:", "x:{}", "{}:{}", ":{}")


async def test_a_credential_counts_in_the_authorization_header_only_on_every_route(client: Client) -> None:
    """In all the wrong places at once: whichever was looked at would let it in."""
    query = dict.fromkeys(QUERIES, client.key)
    headers = dict.fromkeys(HEADERS, f"Bearer {client.key}") | {
        "Cookie": "; ".join(f"{name}={client.key}" for name in COOKIES)
    }
    for method, path in await routes(client):
        if (method, path) in OPEN:
            continue
        response = await client.http.request(method, filled(path), params=query, json=BODIES.get(path), headers=headers)
        as_guest = (method, path) in MAKES_A_GUEST and "X-Guest-Token" in response.headers
        assert response.status_code == 401 or as_guest, (method, path, response.text)
        basic = {"Authorization": f"Basic {b64encode(f'{client.key}:'.encode()).decode()}"}
        refused = await client.http.request(method, filled(path), json=BODIES.get(path), headers=basic)
        assert refused.status_code == 401, (method, path, refused.text)


@pytest.mark.parametrize(("method", "path"), [("GET", "/api/conversations"), ("POST", "/mcp")])
async def test_no_single_wrong_place_of_a_credential_opens_a_route(client: Client, method: str, path: str) -> None:
    key = client.key
    sent: list[tuple[dict[str, str], dict[str, str]]] = [
        *(({name: key}, {}) for name in QUERIES),
        *(({}, {"Cookie": f"{name}={key}"}) for name in COOKIES),
        *(({}, {name: value}) for name in HEADERS for value in (key, f"Bearer {key}")),
        *(({}, {"Authorization": f"Basic {b64encode(b.format(key, key).encode()).decode()}"}) for b in BASIC),
        *(
            ({}, {"Authorization": f"{scheme}{key}"})
            for scheme in ("", "Token ", "Key ", "Basic ", "Digest ", "Bearer")
        ),
    ]
    for query, headers in sent:
        response = await client.http.request(method, path, params=query, headers=headers)
        assert response.status_code == 401, (query, headers)


async def test_two_credentials_are_none_on_every_route(client: Client) -> None:
    guest = (await client.http.post("/api/session")).json()["token"]
    for method, path in await routes(client):
        for second in (f"Bearer {client.key}", f"Bearer {guest}", "Basic eDp5"):
            headers = [("Authorization", f"Bearer {client.key}"), ("Authorization", second)]
            response = await client.http.request(method, filled(path), json=BODIES.get(path), headers=headers)
            assert response.status_code == 401, (method, path, response.text)
            assert response.headers["WWW-Authenticate"].startswith("Bearer")


# --- Headers of every answer

EVERYWHERE = {
    "content-security-policy": IsStr(regex="default-src 'none'.*frame-ancestors 'none'"),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "x-request-id": IsStr(min_length=1),
}


async def test_every_answer_carries_the_headers_that_guard_a_browser(start: Start) -> None:
    async with start(cors_origins=("https://shop.example",)) as client:
        answers = [await client.http.request(method, filled(path)) for method, path in await routes(client)]
        for path in ("/", "/docs", "/docs/start.js", "/docs/swagger-ui.css", "/static/app.js", "/openapi.json", "/no"):
            answers.append(await client.http.get(path))
        answers.append(await client.http.get("/", headers={"Host": "evil.example"}))
        answers.append(await client.http.post("/api/session", headers={"Origin": "null"}))
        answers.append(await client.http.post("/api/chat", headers={"Content-Encoding": "gzip"}))
        answers.append(await client.http.get("/" + "x" * 9_000))
        answers.append(await client.http.get("/", headers={"X": "y" * 200_000}))
        for origin in ("https://shop.example", ELSEWHERE):
            preflight = {"Origin": origin, "Access-Control-Request-Method": "POST"}
            answers.append(await client.http.options("/api/chat", headers=preflight))
            answers.append(await client.http.get("/api/page", headers={"Origin": origin}))
        body = {"message": "How deep may I dive on nitrox 32?"}
        async with client.http.stream("POST", "/api/chat", json=body, headers=client.auth) as stream:
            assert [frame async for frame in read_frames(stream)][-1].data == "[DONE]"
        statuses = {answer.status_code for answer in answers}
        assert statuses >= {200, 201, 401, 403, 404, 414, 415, 421, 422, 431}
        for answer in (*answers, stream):
            assert dict(answer.headers) == IsPartialDict(EVERYWHERE), answer.url
            assert "strict-transport-security" not in answer.headers
            assert len(answer.headers.get_list("content-security-policy")) == 1
        assert stream.headers["Cache-Control"] == "no-store, no-transform"


@pytest.mark.parametrize(
    ("public_url", "told"), [("https://agents.example", "max-age=31536000"), ("http://agents.example", None)]
)
async def test_browsers_are_told_to_come_by_tls_where_the_server_is_reached_by_it(
    start: Start, public_url: str, told: str | None
) -> None:
    async with start(public_url=public_url) as client:
        for path, headers in (("/", {}), ("/no/such", {}), ("/", {"Host": "evil.example"}), ("/", {"X": "y" * 99_000})):
            assert (await client.http.get(path, headers=headers)).headers.get("strict-transport-security") == told


# --- Proxies


@asynccontextmanager
async def mirror(*trusted: str) -> AsyncIterator[httpx.AsyncClient]:
    """An app that says whom it takes its client for, behind what our server puts before it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            request = Request(scope)
            seen = {"client": scope["client"][0], "url": str(request.url)}
            await JSONResponse(seen)(scope, receive, send)

    settings = load_settings(trusted_proxies=trusted)
    async with (
        serving(app, create_config(app, settings)) as base,
        httpx.AsyncClient(base_url=base) as http,
    ):
        yield http


FORWARDED = {
    "X-Forwarded-For": "192.0.2.1, 198.51.100.7",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Port": "1",
    "X-Real-IP": "192.0.2.1",
    "Forwarded": "for=192.0.2.1;host=evil.example;proto=https",
}


@pytest.mark.parametrize("trusted", [(), ("10.0.0.0/8",), ("192.0.2.1", "127.0.0.2", "::1")])
async def test_nobody_is_believed_who_is_no_trusted_proxy(
    trusted: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")  # uvicorn's own way to say it, which is not ours
    async with mirror(*trusted) as http:
        seen = (await http.get("/", headers=FORWARDED)).json()
    assert seen == {"client": "127.0.0.1", "url": f"{http.base_url}/"}


@pytest.mark.parametrize("trusted", ["127.0.0.1", "127.0.0.0/8"])
async def test_a_trusted_proxy_says_who_came_to_it_and_not_what_that_one_claims(trusted: str) -> None:
    async with mirror(trusted) as http:
        seen = (await http.get("/", headers=FORWARDED)).json()
    assert seen["client"] == "198.51.100.7"  # the last that is no proxy; what stands before it, anybody may have sent
    assert seen["url"] == f"{http.base_url}/".replace("http:", "https:")


async def test_a_chain_of_trusted_proxies_is_followed_to_its_end() -> None:
    async with mirror("127.0.0.1", "198.51.100.0/24") as http:
        seen = (await http.get("/", headers=FORWARDED)).json()
    assert seen["client"] == "192.0.2.1"
