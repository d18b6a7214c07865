"""Who may speak MCP over HTTP.

The credential is in `Authorization: Bearer` and nowhere else, and no guest's.

What is refused is answered before the protocol begins, with the status and the challenge of RFC 6750, which tells an
OAuth client where to get a token and which scope to ask for. The body is a JSON-RPC error, the only kind that MCP
clients show to their user.
"""

import secrets
from codecs import BOM_UTF8
from collections.abc import Awaitable, Callable, Collection
from contextvars import ContextVar
from typing import Any, Protocol

import structlog
from mcp_types import INTERNAL_ERROR
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic_core import from_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent_server.caller import Caller
from agent_server.db import Database
from agent_server.errors import AgentServerError, Forbidden, TooLarge, Unauthorized
from agent_server.http.middleware import mark_counted
from agent_server.http.statuses import status_of
from agent_server.identity.rights import require_member
from agent_server.mcp.back_channel import STREAMS, BackChannel, channel, is_left, keep_answer, mark_session, read_marks
from agent_server.mcp.direct import Direct
from agent_server.mcp.errors import error_data
from agent_server.mcp.metadata import Resource
from agent_server.mcp.open_calls import SESSION, Ending, OpenCalls, find_left, name_request, until_left
from agent_server.questions import Need


class Resolve(Protocol):
    """Finds the caller that a token stands for.

    It is one of ours, or one of an outside issuer for a resource of `audience`. Raises Unauthorized, and TooMany for a
    caller or an `address` that asks too often.
    """

    def __call__(self, token: str, /, *, address: str | None, audience: Collection[str]) -> Awaitable[Caller]: ...


Authorise = Callable[[Caller, Any], Awaitable[None]]
"""Raises Forbidden when this caller may not send this message (any JSON)."""

Stream = Callable[[Caller, str], ASGIApp]
"""What tells the session of a caller's client of changes."""

_REQUEST_CANCELLED = -32800
"""As the Language Server Protocol has it, and the MCP SDK."""
STOPPED: dict[str, Any] = {
    "code": INTERNAL_ERROR,
    "message": "unavailable: This server is stopping and has not finished the call in time; see what became of it, and "
    "call again",
    "data": {"code": "unavailable"},
}
"""The answer to a call that is cut off when its process stops."""
_OK = 200

_caller: ContextVar[Caller] = ContextVar("mcp_caller")


def current_caller() -> Caller:
    """The caller of the HTTP request that is being answered."""
    return _caller.get()


class Authenticated:
    """Lets a request through to `app` when its caller may make it. `current_caller()` then says who that is."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        resolve: Resolve,
        authorise: Authorise,
        body_limit: int,
        resource: Resource,
        calls: OpenCalls,
        database: Database,
        stream: Stream | None = None,
        direct: Direct | None = None,
    ) -> None:
        self.app = app
        self.resolve = resolve
        self.authorise = authorise
        self.body_limit = body_limit
        self.resource = resource
        self.calls = calls
        self.stream = stream
        self.database = database
        self.direct = direct

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope = {**scope, "headers": _strip_headers(scope["headers"])}
        request = Request(scope, receive)
        token, caller = _token_of(request), None
        try:
            caller = await self._get_member(token, request)
            session = request.headers.get(SESSION)
            if request.method == "GET" and session and self.stream is not None and not _is_modern(request):
                await self.stream(caller, session)(scope, receive, send)
                return
            if request.method != "POST":
                await Response(status_code=405, headers={"Allow": "POST"})(scope, receive, send)
                return
            body = await self._read_body(request)
            # Before the SDK has the request: it begins a 200, after which no 403 can say which scope is missing.
            message = _parse(body)
            await self.authorise(caller, message)
            await keep_answer(self.database, self.calls, caller, message)
        except AgentServerError as error:
            await self._render_refusal(request, error, caller, token_sent=token is not None)(scope, receive, send)
            return
        # It left in the middle of its own request, and nobody is there to be answered.
        except ClientDisconnect:
            return
        was = _caller.set(caller)
        try:
            with structlog.contextvars.bound_contextvars(caller=str(caller.id)):
                await self._answer(message, request.headers.get(SESSION), caller)(scope, _replay(body, receive), send)
        finally:
            _caller.reset(was)

    def _answer(self, message: Any, session: str | None, caller: Caller) -> ASGIApp:
        """`app` for a message that its client may say it no longer wants, or which says so of another one."""
        if (left := name_request(caller, session, find_left(message))) is not None:
            self.calls.leave(left)
        method = message.get("method") if isinstance(message, dict) else None
        if method == "initialize":
            return _begin_session(self.app, message)
        if method not in ("tools/call", "tasks/result"):
            return self.app
        id = message.get("id")
        name = name_request(caller, session, id)
        cancelled: dict[str, Any] = {"code": _REQUEST_CANCELLED, "message": "Request cancelled"}

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            ending = Ending(send)
            can = read_marks(session) if scope.get(STREAMS) else frozenset[Need]()
            back = BackChannel(self.database, self.calls, caller, can, ending.send)
            was = channel.set(back)
            try:
                with self.calls.open(name) as left:
                    is_left.set(lambda: left.is_set() and not self.calls.is_stopping)
                    if not self.calls.is_stopping:
                        receive = until_left(receive, left)
                        if self.direct is not None and (plain := await self.direct.read(scope, message)) is not None:
                            await self.direct.answer(plain, caller, receive, back.send)
                        else:
                            await self.app(scope, receive, back.send)
                    if left.is_set():
                        error = STOPPED if self.calls.is_stopping else cancelled
                        await ending.end({"jsonrpc": "2.0", "id": id, "error": error})
            finally:
                channel.reset(was)

        return answer

    async def _get_member(self, token: str | None, request: Request) -> Caller:
        if token is None:
            raise Unauthorized("MCP needs an API key: send `Authorization: Bearer <API key>`")
        mark_counted(request.scope)
        address = request.client and request.client.host
        caller = await self.resolve(token, address=address, audience=self.resource.audience)
        require_member(caller, "MCP needs an API key (`agent-server key create` makes one)")
        return caller

    def _render_refusal(
        self, request: Request, error: AgentServerError, caller: Caller | None, *, token_sent: bool
    ) -> Response:
        headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
        if isinstance(error, Unauthorized | Forbidden):
            headers["WWW-Authenticate"] = self.resource.challenge(request, error, caller=caller, token_sent=token_sent)
        body = error_data(error).model_dump(exclude_none=True)
        return JSONResponse({"jsonrpc": "2.0", "id": None, "error": body}, status_of(type(error)), headers)

    async def _read_body(self, request: Request) -> bytes:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self.body_limit:
                raise TooLarge(f"The body is larger than {self.body_limit} bytes; send less at once")
        return bytes(body).removeprefix(BOM_UTF8)


def _begin_session(app: ASGIApp, message: Any) -> ASGIApp:
    """`app` with an id for the session that begins, by which the client's requests are told from those of others."""

    async def begin(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_id(part: Message) -> None:
            if part["type"] == "http.response.start" and part["status"] == _OK:
                header = (SESSION.encode(), mark_session(secrets.token_hex(16), message).encode())
                part = {**part, "headers": [*part["headers"], header]}
            await send(part)

        await app(scope, receive, send_id)

    return begin


def _is_modern(request: Request) -> bool:
    """Whether the request is of a protocol that has no streams of sessions."""
    return request.headers.get("mcp-protocol-version") in MODERN_PROTOCOL_VERSIONS


def _token_of(request: Request) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def _strip_headers(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers without white space around `Mcp-*`."""
    # httptools leaves it, and the SDK compares the values to the body as they are.
    return [(name, value.strip() if name.startswith(b"mcp-") else value) for name, value in headers]


def _parse(body: bytes) -> Any:
    try:
        return from_json(body)
    # Let through: the protocol has an answer of its own to what is no JSON.
    except ValueError:
        return None


def _replay(body: bytes, receive: Receive) -> Receive:
    """`receive` with the body that was read already. After it come disconnects, which cancel the call."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay
