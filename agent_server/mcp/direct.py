"""Plain calls of tools over HTTP, answered without the SDK's machinery, which costs as much as the call itself.

Plain is a call that its client makes once, hears nothing of while it runs, and whose form leaves nothing to refuse. Any
other message goes the way of the SDK: it alone knows what to answer to what is wrong. Both ways give the same answers,
and both end in `call_and_render`.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.server.transport_security import TransportSecurityMiddleware, TransportSecuritySettings
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import (
    ERROR_CODE_HTTP_STATUS,
    X_MCP_HEADER_KEY,
    InboundModernRoute,
    classify_inbound_request,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from opentelemetry.trace import ProxyTracerProvider, get_tracer_provider
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from agent_server.caller import Caller
from agent_server.calls.call import Runtime
from agent_server.log import without_secrets
from agent_server.mcp.asking import Asking, Client
from agent_server.mcp.back_channel import channel, read_needs
from agent_server.mcp.errors import rendered_errors
from agent_server.mcp.listening import hears_without_asking
from agent_server.mcp.server import call_and_render
from agent_server.tool import Tool
from agent_server.tool_context import Level

_VERSION = b"mcp-protocol-version"
_BEFORE_2026 = frozenset({"2025-06-18", "2025-11-25"})
"""In older ones a result has another form."""
_ROUTING = frozenset({_VERSION, b"mcp-method", b"mcp-name", b"content-type"})
_PARAMS = frozenset({"name", "arguments", "_meta"})
_ENVELOPE = frozenset({types.PROTOCOL_VERSION_META_KEY, types.CLIENT_CAPABILITIES_META_KEY, types.CLIENT_INFO_META_KEY})
_UNATTENDED_SECONDS = 0.05
"""How long a call runs before anybody looks whether its client has left: most have ended by then."""
_PING_SECONDS = 15.0
_EVENTS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


@dataclass(frozen=True)
class PlainCall:
    """A call that is answered here."""

    id: str | int
    tool: Tool[..., Any]
    params: types.CallToolRequestParams
    capabilities: Mapping[str, Any] | None
    """What its client can be asked. None for one of before 2026, which has said so before."""

    @property
    def is_modern(self) -> bool:
        return self.capabilities is not None


class Direct:
    """Answers the plain calls of `tools`, which `server` answers in the same way."""

    def __init__(
        self,
        runtime: Runtime,
        tools: Mapping[str, Tool[..., Any]],
        server: Server,
        security: TransportSecuritySettings,
    ) -> None:
        self._runtime, self._server = runtime, server
        self._security = TransportSecurityMiddleware(security)
        # A client sends some arguments of these in headers as well, and the SDK compares them.
        self._tools = {
            name: tool
            for name, tool in tools.items()
            if not tool.long and X_MCP_HEADER_KEY not in json.dumps(tool.input_schema)
        }

    async def read(self, scope: Scope, message: Any) -> PlainCall | None:
        """The call in a message. None for one that is not plain."""
        match message:
            case {"jsonrpc": "2.0", "id": str() | int() as id, "method": "tools/call", "params": {"name": str(name)}}:
                params = message["params"]
            case _:
                return None
        tool, arguments = self._tools.get(name), params.get("arguments", {})
        if tool is None or isinstance(id, bool) or not isinstance(arguments, dict) or not params.keys() <= _PARAMS:
            return None
        # Who traces requests has the SDK's spans.
        if not isinstance(get_tracer_provider(), ProxyTracerProvider):
            return None
        headers = _read_headers(scope)
        if headers is None or (capabilities := _find_capabilities(headers, message)) is False:
            return None
        # Of another host or origin, which the SDK refuses.
        if await self._security.validate_request(Request(scope), is_post=True) is not None:
            return None
        call = types.CallToolRequestParams(name=name, arguments=arguments)
        return PlainCall(id, tool, call, capabilities)

    async def answer(self, call: PlainCall, caller: Caller, receive: Receive, send: Send) -> None:
        """Make a call, and send its answer unless its client leaves before."""
        reply = _Reply(call, send)
        back = None if call.is_modern else channel.get()
        if back is not None and back.can:
            await reply.begin()  # what its user is asked comes on the stream
        can = read_needs(call.capabilities) if call.capabilities is not None else (back and back.can) or frozenset()
        asking = Asking(self._runtime, call.tool, call.params, caller, Client(can, back), reply)
        async with _attended(reply, receive):
            await reply.end(await self._make(asking, call))

    async def _make(self, asking: Asking, call: PlainCall) -> dict[str, Any]:
        try:
            with rendered_errors("tools/call"):
                result = await call_and_render(asking, is_modern=call.is_modern)
        except MCPError as error:
            return {"error": error.error.model_dump(mode="json", by_alias=True, exclude_none=True)}
        wire = result.model_dump(mode="json", by_alias=True, exclude_none=True)
        if not call.is_modern:
            wire.pop("resultType", None)
            return {"result": wire}
        wire.setdefault("resultType", "complete")
        meta = {types.SERVER_INFO_META_KEY: self._server.server_info_stamp, **wire.get("_meta", {})}
        return {"result": {**wire, "_meta": meta}}


class _Reply:
    """The answer to a call: one JSON body, or a stream where something comes before it. It is also who hears of the
    call."""

    def __init__(self, call: PlainCall, send: Send) -> None:
        self._call, self._send, self._streams = call, send, False

    async def begin(self) -> None:
        if not self._streams:
            self._streams = True
            await self._send({"type": "http.response.start", "status": 200, "headers": _EVENTS})

    async def ping(self) -> None:
        """Send something, as a proxy expects from a connection that is in use."""
        await self.begin()
        await self._send(_body(b": ping\r\n\r\n", more=True))

    async def report_progress(self, done: float, total: float | None, message: str | None) -> None:
        return  # a plain call has no token to tell of it by

    async def log(self, level: Level, message: str) -> None:
        # A client of 2026 asks for them with its call, which is not plain then.
        if self._call.is_modern or not hears_without_asking(level):
            return
        await self.begin()
        params = {"level": level, "logger": "tool", "data": without_secrets(message)}
        await self._send(_event({"jsonrpc": "2.0", "method": "notifications/message", "params": params}, more=True))

    @asynccontextmanager
    async def beating(self) -> AsyncIterator[None]:
        yield

    async def end(self, outcome: dict[str, Any]) -> None:
        answer = {"jsonrpc": "2.0", "id": self._call.id, **outcome}
        if self._streams:
            await self._send(_event(answer, more=False))
            return
        code = outcome["error"]["code"] if "error" in outcome else None
        status = ERROR_CODE_HTTP_STATUS.get(code, 200) if self._call.is_modern and code is not None else 200
        body = _encode(answer)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send(_body(body, more=False))


@asynccontextmanager
async def _attended(reply: _Reply, receive: Receive) -> AsyncIterator[None]:
    """Leave this block when the client leaves. Where it takes long, the client hears that it goes on."""
    call = asyncio.current_task()
    assert call is not None, "a request is answered in a task"
    watcher: asyncio.Task[None] | None = None
    is_left = False

    async def watch() -> None:
        nonlocal is_left
        while not is_left:
            try:
                async with asyncio.timeout(_PING_SECONDS):
                    while (await receive())["type"] != "http.disconnect":
                        pass
                is_left = True
            except TimeoutError:
                await reply.ping()
        call.cancel()

    def begin() -> None:
        nonlocal watcher
        watcher = asyncio.create_task(watch())

    later = asyncio.get_running_loop().call_later(_UNATTENDED_SECONDS, begin)
    try:
        yield
    except asyncio.CancelledError:
        if not is_left or call.uncancel():
            raise
    finally:
        later.cancel()
        if watcher is not None:
            watcher.cancel()
            with suppress(asyncio.CancelledError):
                await watcher


def _read_headers(scope: Scope) -> dict[bytes, bytes] | None:
    """The headers of a request. None where one is there that the SDK has to look at."""
    found: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name.startswith(b"mcp-param-") or (name in _ROUTING and name in found):
            return None
        found[name] = value
    return found if found.get(b"content-type", b"").partition(b";")[0].strip() == b"application/json" else None


def _find_capabilities(
    headers: Mapping[bytes, bytes], message: dict[str, Any]
) -> Mapping[str, Any] | Literal[False] | None:
    """What the client of a call says that it can. None for one of before 2026, and False where the SDK has to look."""
    version, meta = headers.get(_VERSION, b"").decode("latin-1"), message["params"].get("_meta", {})
    if version in _BEFORE_2026:
        return None if meta == {} else False
    if version not in MODERN_PROTOCOL_VERSIONS or not isinstance(meta, dict) or not meta.keys() <= _ENVELOPE:
        return False
    named = {name.decode("latin-1"): headers[name].decode("latin-1") for name in _ROUTING if name in headers}
    if not isinstance(classify_inbound_request(message, headers=named), InboundModernRoute):
        return False
    capabilities, info = meta[types.CLIENT_CAPABILITIES_META_KEY], meta.get(types.CLIENT_INFO_META_KEY, {})
    is_plain = isinstance(capabilities, dict) and all(isinstance(each, dict) for each in capabilities.values())
    is_named = info == {} or (isinstance(info, dict) and all(isinstance(each, str) for each in info.values()))
    return capabilities if is_plain and is_named else False


def _encode(answer: dict[str, Any]) -> bytes:
    return json.dumps(answer, separators=(",", ":")).encode()


def _event(answer: dict[str, Any], *, more: bool) -> Message:
    return _body(b"event: message\r\ndata: " + _encode(answer) + b"\r\n\r\n", more=more)


def _body(body: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}
