"""What a request must be before anybody looks at what it asks for.

What is wrong is raised, and answered by `RefusalMiddleware`.
"""

import asyncio
import re
from collections.abc import Collection, Mapping, Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent_server.bodies import check_json
from agent_server.errors import Forbidden, TooLarge, Unauthorized
from agent_server.http.statuses import (
    AddressTooLong,
    BadRequest,
    HeadersTooLarge,
    Misdirected,
    RequestTimedOut,
    UnsupportedMediaType,
)
from agent_server.settings import Settings

HEADERS_LIMIT = 100
HEAD_LIMIT = 32 * 1024
"""Most bytes of all headers together."""
HEADERS_MESSAGE = f"At most {HEADERS_LIMIT} headers of {HEAD_LIMIT} bytes together are taken"
ADDRESS_LIMIT = 8 * 1024
"""Most bytes of path and query."""

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9][a-z0-9._-]*)(:[0-9]{1,5})?")
_HARMLESS = frozenset({"GET", "HEAD", "OPTIONS"})


class EdgeMiddleware:
    """Refuses what is wrong with a request's head. `any_host` are paths that are asked for by any `Host` or none."""

    def __init__(self, app: ASGIApp, *, settings: Settings, any_host: Collection[str] = ()) -> None:
        known = settings.known_hosts
        self._app, self._exempt = app, frozenset(any_host)
        self._any_host, self._hosts = "*" in known, frozenset(known)
        self._domains = tuple(host[1:] for host in known if host.startswith("*."))
        self._origins, self._own = frozenset(settings.cors_origins), settings.public_url

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self._check(scope)
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        _check_size(scope)
        names = (b"host", b"origin", b"authorization", b"content-length", b"transfer-encoding")
        named: dict[bytes, list[str]] = {name: [] for name in names}
        for name, value in scope["headers"]:
            if name in named:
                named[name].append(value.decode("latin-1").strip().lower())
        # What is in front may go by the other one, and take what follows for a request that it has checked.
        if named[b"transfer-encoding"] and (named[b"content-length"] or scope["http_version"] == "1.0"):
            raise BadRequest("Transfer-Encoding: leave it out beside Content-Length, and in HTTP/1.0")
        if scope["path"] not in self._exempt:
            self._check_host(named[b"host"])
        if named[b"origin"] and scope["method"] not in _HARMLESS:
            self._check_origin(named[b"origin"], named[b"host"])
        # A proxy and this server could each go by another one.
        if len(named[b"authorization"]) > 1:
            raise Unauthorized("There are two credentials; send one, as `Authorization: Bearer <API key>`")

    def _check_host(self, given: Sequence[str]) -> None:
        # A name that is not ours is a page elsewhere that was led to this machine by DNS rebinding.
        match = _HOST.fullmatch(given[0]) if len(given) == 1 else None
        if match is None:
            raise BadRequest("Host: send one, as in agents.example or agents.example:8000")
        name = match[1].removesuffix(".")  # of the root of DNS, which a full name may end with
        if not self._knows(name + (match[2] or ""), name):
            raise Misdirected("Host: not a name of this server; AGENT_SERVER_ALLOWED_HOSTS lists its names")

    def _knows(self, host: str, name: str) -> bool:
        exact = self._any_host or host in self._hosts or name in self._hosts
        return exact or host.endswith(self._domains) or name.endswith(self._domains)

    def _check_origin(self, given: Sequence[str], hosts: Sequence[str]) -> None:
        origin = given[0] if len(given) == 1 else ""
        scheme, _, host = origin.partition("://")
        # Either scheme: behind a proxy that does TLS, this server does not see that the page came by https.
        own = scheme in ("http", "https") and (host in hosts or origin == self._own)
        if not (own or origin in self._origins or "*" in self._origins):
            raise Forbidden("Origin: its pages may not call this; AGENT_SERVER_CORS_ORIGINS lists those that may")


def _check_size(scope: Scope) -> None:
    address = len(scope.get("raw_path") or scope["path"].encode()) + len(scope.get("query_string", b""))
    if address > ADDRESS_LIMIT:
        raise AddressTooLong(f"The address has {address} bytes, at most {ADDRESS_LIMIT} are taken")
    headers = scope["headers"]
    if len(headers) > HEADERS_LIMIT or sum(len(name) + len(value) for name, value in headers) > HEAD_LIMIT:
        raise HeadersTooLarge(HEADERS_MESSAGE)


class CorsMiddleware(CORSMiddleware):
    """Lets pages of the origins that were set call the API. To others it says nothing at all of what is allowed."""

    def __init__(self, app: ASGIApp, *, origins: Sequence[str]) -> None:
        # No `allow_credentials`: a page sends its credential itself, and a browser must never add one.
        exposed = ("WWW-Authenticate", "X-Conversation-Id", "X-Turn-Id", "X-Guest-Token", "X-Request-Id", "Retry-After")
        super().__init__(app, allow_origins=origins, allow_methods=["*"], allow_headers=["*"], expose_headers=exposed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "OPTIONS":
            headers = Headers(scope=scope)
            origin = headers.get("origin")
            if origin and "access-control-request-method" in headers and not self.is_allowed_origin(origin):
                raise Forbidden("Origin: its pages may not call this; AGENT_SERVER_CORS_ORIGINS lists those that may")
        await super().__call__(scope, receive, send)


class BodyMiddleware:
    """Reads the whole body, but at `files`, before the app is asked, and refuses one too large, packed, deep or slow."""

    def __init__(self, app: ASGIApp, *, limit: int, timeout: float, files: Collection[str] = ()) -> None:
        self._app, self._limit, self._timeout, self._files = app, limit, timeout, frozenset(files)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._files:
            await self._app(scope, receive, send)
            return
        body = await self._read(Headers(scope=scope), receive)
        if body is None:
            return
        check_json(body)
        await self._app(scope, _replay(body, receive), send)

    async def _read(self, headers: Mapping[str, str], receive: Receive) -> bytes | None:
        """The body. It is None where the client has left."""
        # A body that is small while packed can be huge in memory.
        if headers.get("content-encoding", "identity").strip().lower() != "identity":
            raise UnsupportedMediaType("Content-Encoding: compressed bodies are not read; send it uncompressed")
        declared = headers.get("content-length", "0")
        if declared.isdecimal() and int(declared) > self._limit:
            raise self._too_large()
        if declared == "0" and "transfer-encoding" not in headers:
            return b""
        try:
            # For all of it together: a limit for each read would let a sender of single bytes go on for ever.
            async with asyncio.timeout(self._timeout):
                return await self._receive_body(receive)
        except TimeoutError:
            raise RequestTimedOut(f"The body did not arrive within {self._timeout:g} seconds") from None

    async def _receive_body(self, receive: Receive) -> bytes | None:
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if len(body) > self._limit:
                raise self._too_large()
            if not message.get("more_body", False):
                return bytes(body)

    def _too_large(self) -> TooLarge:
        return TooLarge(f"The body is larger than {self._limit} bytes; send less at once")


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body that was read. After it comes whatever comes, which is a disconnect."""
    sent = False

    async def receive_again() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again
