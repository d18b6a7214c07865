"""Around every request: its id, its log line, the limit of its body, the headers that guard a browser."""

import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders

from agent_server.errors import Internal, TooLarge
from agent_server.http.errors import problem
from agent_server.log import masked

log = structlog.get_logger()

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_REQUEST_ID = re.compile(r"[\w.:-]{1,64}")
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_QUIET = frozenset({"/health", "/readyz"})


class RequestMiddleware:
    """Pure ASGI: Starlette's BaseHTTPMiddleware would break streams and context variables."""

    def __init__(self, app: App, *, body_limit: int) -> None:
        self._app, self._body_limit = app, body_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) and masked(given) == given else uuid4().hex
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        started, status, begun = time.perf_counter(), 500, False
        state = scope.setdefault("state", {})

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                if "guest_token" in state:
                    headers["X-Guest-Token"] = state["guest_token"]  # also of an error: the guest is made
                headers.setdefault("X-Content-Type-Options", "nosniff")
                headers.setdefault("Referrer-Policy", "no-referrer")
                headers.setdefault("Content-Security-Policy", PAGE_POLICY)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            await self._limited(scope, receive, send_with_headers)
        except Exception:  # the one catch-all of HTTP, here so that this answer too has the headers and the id
            bug = Internal("The request", secrets.token_hex(6))
            log.exception("http.failed", path=scope["path"], reference=bug.reference)
            if begun:
                raise  # the server cuts the connection: a client must not take the part for the whole
            await problem(bug)(scope, receive, send_with_headers)
        finally:
            if scope["path"] not in _QUIET:
                latency_ms = round((time.perf_counter() - started) * 1000, 2)
                log.info(
                    "http.request", method=scope["method"], path=scope["path"], status=status, latency_ms=latency_ms
                )

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 413 where the body is over the limit, declared or found so while it is read."""
        declared = Headers(scope=scope).get("content-length", "0")
        if declared.isdecimal() and int(declared) > self._body_limit:
            await self._refuse(scope, receive, send)
            return
        body = b""
        more = declared != "0" or "transfer-encoding" in Headers(scope=scope)
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._body_limit:
                await self._refuse(scope, receive, send)
                return
        await self._app(scope, _replay(body, receive), send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = TooLarge(f"The body is larger than {self._body_limit} bytes, the most that is taken")
        await problem(error)(scope, receive, send)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body that was read, then whatever comes (a disconnect)."""
    sent = False

    async def replayed() -> MutableMapping[str, Any]:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed
