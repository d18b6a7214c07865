"""A local server that speaks OpenAI's Chat Completions from a script, so that the real provider code is what runs."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.serving import serving


@dataclass(frozen=True)
class Say:
    """Stream a text in pieces, with a `pause` in seconds before each; `hold` is awaited before the piece of that index is
    sent."""

    text: str
    hold: tuple[int, asyncio.Event] | None = None
    pause: float = 0.0


@dataclass(frozen=True)
class Call:
    """Ask for a tool; `arguments` may be text that is no JSON."""

    name: str
    arguments: dict[str, Any] | str
    id: str = ""


@dataclass(frozen=True)
class Calls:
    """Ask for several tools at once."""

    calls: tuple[Call, ...]


@dataclass(frozen=True)
class Refuse:
    """Answer with an error status."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cut:
    """Stream a text and break the connection off."""

    text: str


@dataclass(frozen=True)
class Stall:
    """Accept the request and say nothing."""


Step = Say | Call | Calls | Refuse | Cut | Stall
Script = Sequence[Step] | Callable[[dict[str, Any]], Step]


class ScriptedOpenAI:
    """Answers each request with the next step of `script`, or with what `script` makes of the request."""

    def __init__(self, script: Script) -> None:
        self._script, self._next = script, 0
        self.requests: list[dict[str, Any]] = []
        self.url = ""

    @property
    def script(self) -> Script:
        return self._script

    @script.setter
    def script(self, script: Script) -> None:
        self._script, self._next = script, 0

    def next(self, request: dict[str, Any]) -> Step:
        self.requests.append(request)
        if callable(self._script):
            return self._script(request)
        number, self._next = self._next, self._next + 1
        return self._script[number] if number < len(self._script) else Say("(the script is at its end)")

    async def completions(self, request: Request) -> Response:
        body = await request.json()
        step = self.next(body)
        if isinstance(step, Refuse):
            return JSONResponse({"error": {"message": "no, sk-secret0123456789abcdef"}}, step.status, step.headers)
        return StreamingResponse(_frames(step, len(self.requests)), media_type="text/event-stream")

    async def models(self, _: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": "scripted", "object": "model"}]})


async def _frames(step: Step, number: int) -> AsyncIterator[bytes]:
    match step:
        case Say(text, hold, pause):
            words = text.split(" ")
            for i, word in enumerate(words):
                await asyncio.sleep(pause)
                if hold is not None and hold[0] == i:
                    await hold[1].wait()
                yield _chunk({"content": word if i == 0 else f" {word}"})
            yield _chunk({}, "stop")
        case Call():
            yield _calls((step,), number)
            yield _chunk({}, "tool_calls")
        case Calls(calls):
            yield _calls(calls, number)
            yield _chunk({}, "tool_calls")
        case Cut(text):
            yield _chunk({"content": text})
            raise ConnectionResetError("the script cuts the stream here")
        case Stall():
            await asyncio.Event().wait()
        case Refuse():
            raise AssertionError("answered before")
    yield b"data: [DONE]\n\n"


def _calls(calls: tuple[Call, ...], number: int) -> bytes:
    return _chunk(
        {
            "tool_calls": [
                {
                    "index": i,
                    "id": call.id or f"call_{number}_{i}",
                    "type": "function",
                    "function": {
                        "name": call.name,
                        "arguments": call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments),
                    },
                }
                for i, call in enumerate(calls)
            ]
        }
    )


def _chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    body: dict[str, Any] = {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": "scripted",
        "choices": [{"index": 0, "delta": {"role": "assistant", **delta}, "finish_reason": finish}],
    }
    if finish:
        body["usage"] = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    return f"data: {json.dumps(body)}\n\n".encode()


@asynccontextmanager
async def scripted_openai(script: Script) -> AsyncIterator[ScriptedOpenAI]:
    """The scripted server, on a port of this machine; `url` is what OPENAI_BASE_URL takes."""
    model = ScriptedOpenAI(script)
    routes = [
        Route("/v1/chat/completions", model.completions, methods=["POST"]),
        Route("/v1/models", model.models),
    ]
    async with serving(Starlette(routes=routes)) as base:
        model.url = f"{base}/v1"
        yield model
