"""What a client of `/mcp` can read: JSON, server-sent events, or both.

The SDK refuses whoever cannot read both. Here it is told that everybody can, and its answer is put into the form that
was asked for: as JSON the final answer alone, without the notifications before it; as an event stream a single event.
"""

import json
import re
from collections.abc import Iterable
from enum import Enum, auto

from mcp_types import INTERNAL_ERROR, INVALID_REQUEST
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent_server.mcp.back_channel import STREAMS

JSON, EVENTS = "application/json", "text/event-stream"
_BOTH = f"{JSON}, {EVENTS}".encode()
_QUALITY = re.compile(r"0(\.[0-9]*)?|1(\.0*)?", re.ASCII)  # RFC 9110, section 12.4.2
_LENGTHS = (b"content-length", b"content-type", b"transfer-encoding")


class Form(Enum):
    """The form of an answer. `ANY` is up to the server."""

    JSON = auto()
    EVENTS = auto()
    ANY = auto()


def find_form(accept: Iterable[str]) -> Form | None:
    """The form that the values of `Accept` ask for; None where they take neither.

    Events are sent to those who name them, by `text/*` too: who takes anything need not know what to do with them.
    """
    ranges: dict[str, float] = {}
    for each in ",".join(accept).split(","):
        kind, *parameters = (part.strip().lower() for part in each.split(";"))
        if kind:
            ranges[kind] = max(ranges.get(kind, 0), _read_quality(parameters))
    if not ranges:
        return Form.JSON
    anything = ranges.get("*/*", 0)
    named = ranges.get(EVENTS, ranges.get("text/*"))
    as_json, events = ranges.get(JSON, ranges.get("application/*", anything)), named or 0
    if not as_json and not events:
        return None
    if not events or as_json > events:
        return Form.JSON
    return Form.ANY if as_json else Form.EVENTS


def _read_quality(parameters: Iterable[str]) -> float:
    for name, _, value in (parameter.partition("=") for parameter in parameters):
        if name.strip() == "q":
            value = value.strip()
            return float(value) if _QUALITY.fullmatch(value) else 0
    return 1


class AnyAccept:
    """Serves `app` to clients that read JSON alone, event streams alone, or both."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        form = find_form(Headers(scope=scope).getlist("accept"))
        if form is None:
            message = f"Accept: answers are {JSON} or {EVENTS}; name one of them"
            await JSONResponse(_error(INVALID_REQUEST, message), 406)(scope, receive, send)
            return
        rest = [(name, value) for name, value in scope["headers"] if name != b"accept"]
        scope = {**scope, "headers": [*rest, (b"accept", _BOTH)], STREAMS: form is not Form.JSON}
        if form is Form.ANY:
            await self._app(scope, receive, send)
            return
        answer = _Answer(send, form)
        await self._app(scope, receive, answer.send)


class _Answer:
    """An answer on its way to a client that reads one form."""

    def __init__(self, send: Send, form: Form) -> None:
        self._send, self._form = send, form
        self._start: Message | None = None
        self._body = bytearray()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and self._is_other(message):
            self._start = message
        elif message["type"] == "http.response.body" and self._start is not None:
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                await self._send_whole(self._start)
        else:
            await self._send(message)

    def _is_other(self, start: Message) -> bool:
        kind = Headers(raw=start["headers"]).get("content-type", "").partition(";")[0]
        return kind == (EVENTS if self._form is Form.JSON else JSON)

    async def _send_whole(self, start: Message) -> None:
        if self._form is Form.JSON:
            kind, body = JSON, _find_answer(self._body)
        else:
            # A line end inside of JSON text is white space, which would end the event here.
            kind, body = EVENTS, b"event: message\ndata: " + self._body.replace(b"\n", b" ") + b"\n\n"
        headers = [pair for pair in start["headers"] if pair[0] not in _LENGTHS]
        headers += [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
        await self._send({**start, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


def _find_answer(stream: bytearray) -> bytes:
    """The last message of an event stream that is no notification."""
    for event in reversed(stream.replace(b"\r\n", b"\n").split(b"\n\n")):
        data = b"\n".join(line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:"))
        if data and "method" not in json.loads(data):
            return data
    return json.dumps(_error(INTERNAL_ERROR, "The answer was cut off; send the request again")).encode()


def _error(code: int, message: str) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": message}}
