"""What is around every request.

Its id, its log line, the headers that guard a browser, and the answers to what is raised.

From the outside in: `RequestMiddleware`, `RefusalMiddleware`, `EdgeMiddleware`, CORS where it was set, `BugMiddleware`,
`RefusalMiddleware` again, `CountingMiddleware`, `BodyMiddleware`. All are pure ASGI: Starlette's BaseHTTPMiddleware
would break streams and context variables.
"""

import re
import secrets
import time
from collections.abc import Collection, Sequence
from uuid import uuid4

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent_server.errors import AgentServerError, Internal
from agent_server.http.errors import ErrorFormats
from agent_server.log import mask

log = structlog.get_logger()

RawHeaders = Sequence[tuple[bytes, bytes]]

_BEGUN, COUNTED = "answer_begun", "counted"
_REQUEST_ID = re.compile("[0-9a-f]{16,64}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
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


def mark_counted(scope: Scope) -> None:
    """Say that a limit has counted this request."""
    scope.setdefault("state", {})[COUNTED] = True


def guards(public_url: str | None) -> RawHeaders:
    """The headers of every answer that does not set them itself."""
    # From then on browsers refuse plain HTTP, which is all there is on one's own machine.
    if public_url is None or not public_url.startswith("https://"):
        return GUARDS
    return (*GUARDS, (b"strict-transport-security", b"max-age=31536000"))


class RequestMiddleware:
    """Gives every request an id and a log line and its answer the headers that guard a browser."""

    def __init__(self, app: ASGIApp, *, public_url: str | None, quiet: Collection[str] = ()) -> None:
        # A load balancer asks for the quiet paths all the time, and they have no log line.
        self._app, self._guards, self._quiet = app, guards(public_url), frozenset(quiet)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        # The audit keeps it for ever, so it must say nothing of anybody: no text, and no number of a card.
        request_id = given if _REQUEST_ID.fullmatch(given) and mask(given) == given else uuid4().hex
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        started, status = time.perf_counter(), 500
        state = scope.setdefault("state", {})

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status, state[_BEGUN] = message["status"], True
                own = [(b"x-request-id", request_id.encode("latin-1"))]
                if "guest_token" in state:  # also of an error: the guest is made
                    own.append((b"x-guest-token", state["guest_token"].encode()))
                message["headers"] = _add_guards([*message.get("headers", ()), *own], self._guards)
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        finally:
            if scope["path"] not in self._quiet:
                latency_ms = round((time.perf_counter() - started) * 1000, 2)
                log.info(
                    "http.request", method=scope["method"], path=scope["path"], status=status, latency_ms=latency_ms
                )


def _add_guards(headers: RawHeaders, guards: RawHeaders) -> RawHeaders:
    # MCP's SDK says `no-cache` of its streams, which a browser may then keep.
    headers = [(n, v.replace(b"no-cache", b"no-store") if n == b"cache-control" else v) for n, v in headers]
    return [*headers, *(pair for pair in guards if pair[0] not in dict(headers))]


class RefusalMiddleware:
    """Answers what is raised inside of it as the caller's or the server's expected failure."""

    def __init__(self, app: ASGIApp, *, formats: ErrorFormats) -> None:
        self._app, self._formats = app, formats

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except AgentServerError as error:
            if scope["type"] != "http" or scope["state"].get(_BEGUN):
                raise
            await self._formats.response(error, scope["path"])(scope, receive, send)


class BugMiddleware:
    """Answers anything else with a reference. It is logged whole."""

    def __init__(self, app: ASGIApp, *, formats: ErrorFormats) -> None:
        self._app, self._formats = app, formats

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except Exception:  # the one catch-all of HTTP
            if scope["type"] != "http":
                raise
            bug = Internal("The request", secrets.token_hex(6))
            log.exception("http.failed", path=scope["path"], reference=bug.reference)
            if scope["state"].get(_BEGUN):
                raise  # the server cuts the connection: a client must not take the part for the whole
            await self._formats.response(bug, scope["path"])(scope, receive, send)
