"""Around every request: its id, its log line, the headers that guard a browser, and the one catch-all of HTTP.

From the outside in: `RequestMiddleware`, `EdgeMiddleware`, CORS where it was set, `BugMiddleware`, `BodyMiddleware`.
All of them are pure ASGI: Starlette's BaseHTTPMiddleware would break streams and context variables.
"""

import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any
from uuid import uuid4

import structlog
from starlette.datastructures import Headers

from agent_server.errors import Internal
from agent_server.http.errors import problem
from agent_server.log import mask

log = structlog.get_logger()

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
RawHeaders = Sequence[tuple[bytes, bytes]]

_REQUEST_ID = re.compile(r"[\w.:-]{1,64}")
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
GUARDS: RawHeaders = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", PAGE_POLICY.encode()),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    # Also where other origins are allowed: browsers ask this only of what a page embeds without CORS.
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
    (b"cache-control", b"no-store"),
)
_QUIET = frozenset({"/health", "/readyz"})


def guards(public_url: str | None) -> RawHeaders:
    """The headers of every answer that does not set them itself."""
    if public_url is None or not public_url.startswith("https://"):
        return GUARDS
    return (*GUARDS, (b"strict-transport-security", b"max-age=31536000"))


class RequestMiddleware:
    """Gives every request an id and a log line, and its answer the headers that guard a browser."""

    def __init__(self, app: App, *, public_url: str | None) -> None:
        self._app, self._guards = app, guards(public_url)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) and mask(given) == given else uuid4().hex
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        started, status = time.perf_counter(), 500
        state = scope.setdefault("state", {})

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = [(b"x-request-id", request_id.encode("latin-1"))]
                if "guest_token" in state:  # also of an error: the guest is made
                    own.append((b"x-guest-token", state["guest_token"].encode()))
                message["headers"] = _guarded([*message.get("headers", ()), *own], self._guards)
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        finally:
            if scope["path"] not in _QUIET:
                latency_ms = round((time.perf_counter() - started) * 1000, 2)
                log.info(
                    "http.request", method=scope["method"], path=scope["path"], status=status, latency_ms=latency_ms
                )


def _guarded(headers: RawHeaders, guards: RawHeaders) -> RawHeaders:
    present = {name for name, _ in headers}
    return [*headers, *(pair for pair in guards if pair[0] not in present)]


class BugMiddleware:
    """The one catch-all of HTTP, inside of whatever an answer's headers come from: this answer needs them, too."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def send_and_note(message: MutableMapping[str, Any]) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        except Exception:  # the one catch-all of HTTP: a bug is answered with a reference, and logged whole
            bug = Internal("The request", secrets.token_hex(6))
            log.exception("http.failed", path=scope["path"], reference=bug.reference)
            if begun:
                raise  # the server cuts the connection: a client must not take the part for the whole
            await problem(bug)(scope, receive, send)
