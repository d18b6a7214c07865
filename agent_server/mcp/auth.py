"""Who may speak MCP over HTTP: an API key in `Authorization: Bearer`, nowhere else, and no guest.

What is refused is answered before the protocol begins, with the status and the challenge of RFC 6750, which tells an
OAuth client which scope to ask for; the body is a JSON-RPC error, the only kind that MCP clients show to their user.
"""

import re
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import structlog
from pydantic_core import from_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent_server.errors import AgentServerError, Forbidden, TooLarge, Unauthorized
from agent_server.identity import Caller
from agent_server.mcp.errors import error_data

Resolve = Callable[[str], Awaitable[Caller]]
"""The caller that a token stands for. Raises Unauthorized."""

Authorise = Callable[[Caller, Any], Awaitable[None]]
"""Raises Forbidden when this caller may not send this message (any JSON)."""

_caller: ContextVar[Caller] = ContextVar("mcp_caller")


def current_caller() -> Caller:
    """The caller of the HTTP request that is being answered."""
    return _caller.get()


class Authenticated:
    """Lets a request through to `app` when its caller may make it; `current_caller()` then says who that is."""

    def __init__(self, app: ASGIApp, *, resolve: Resolve, authorise: Authorise, body_limit: int) -> None:
        self.app = app
        self.resolve = resolve
        self.authorise = authorise
        self.body_limit = body_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope = {**scope, "headers": _stripped(scope["headers"])}
        request = Request(scope, receive)
        try:
            caller = await self._member(request)
            if request.method != "POST":  # legacy GET would hold a stream open on which a stateless server says nothing
                await Response(status_code=405, headers={"Allow": "POST"})(scope, receive, send)
                return
            body = await self._body(request)
            await self.authorise(caller, _parsed(body))
        except AgentServerError as error:
            await _refusal(error)(scope, receive, send)
            return
        except ClientDisconnect:  # in the middle of its own request: nobody is left to answer
            return
        token = _caller.set(caller)
        try:
            with structlog.contextvars.bound_contextvars(caller=str(caller.id)):
                await self.app(scope, _replay(body, receive), send)
        finally:
            _caller.reset(token)

    async def _member(self, request: Request) -> Caller:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthorized("MCP needs an API key: send `Authorization: Bearer <API key>`")
        caller = await self.resolve(token.strip())
        if caller.kind == "guest":
            raise Forbidden("A guest may chat; MCP needs an API key (`agent-server key create` makes one)")
        return caller

    async def _body(self, request: Request) -> bytes:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self.body_limit:
                raise TooLarge(f"The body is over the limit of {self.body_limit} bytes")
        return bytes(body)


def _stripped(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """httptools leaves the white space around a header's value, and the SDK compares `Mcp-*` to the body as they are."""
    return [(name, value.strip() if name.startswith(b"mcp-") else value) for name, value in headers]


def _parsed(body: bytes) -> Any:
    try:
        return from_json(body)
    except ValueError:  # the protocol has its own answer to that
        return None


def _replay(body: bytes, receive: Receive) -> Receive:
    """`receive` with the body that was read already; after it come disconnects, which cancel the call."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


def _refusal(error: AgentServerError) -> Response:
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    if isinstance(error, Unauthorized | Forbidden):
        headers["WWW-Authenticate"] = _challenge(error)
    body = error_data(error).model_dump(exclude_none=True)
    return JSONResponse({"jsonrpc": "2.0", "id": None, "error": body}, error.status, headers)


def _challenge(error: Unauthorized | Forbidden) -> str:
    described = re.sub(r"[^ !#-\[\]-~]", "'", error.message)  # RFC 6750: ASCII without quote and backslash
    if isinstance(error, Unauthorized):
        return f'Bearer error="invalid_token", error_description="{described}"'
    scope = f', scope="{error.scope}"' if error.scope else ""
    return f'Bearer error="insufficient_scope"{scope}, error_description="{described}"'
