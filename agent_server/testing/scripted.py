"""A model that follows a script."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from agent_server.testing.wire import Reply, refuse, serve_openai


@dataclass(frozen=True)
class Say:
    """Stream a text word by word, or in one piece with `whole`.

    A `pause`, in seconds, comes before each word; `hold` is awaited before the word with that index is sent. `thought` is
    sent before the text as what the model thinks, and `finish` is the reason that the answer ends with.
    """

    text: str
    hold: tuple[int, asyncio.Event] | None = None
    pause: float = 0.0
    whole: bool = False
    thought: str = ""
    finish: str = "stop"


@dataclass(frozen=True)
class Call:
    """Ask for a tool.

    `arguments` may be a text that is no JSON, as models write it at times. Without an `id` the call gets one.
    """

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
    message: str = "the script refuses"


@dataclass(frozen=True)
class Cut:
    """Stream a text and break the connection off."""

    text: str


@dataclass(frozen=True)
class Stall:
    """Accept the request and say nothing."""


Step = Say | Call | Calls | Refuse | Cut | Stall
Script = Sequence[Step] | Callable[[dict[str, Any]], Step]
"""The steps in order, or a function that makes the step of the request it is given."""


class ScriptedOpenAI:
    """Answers each request with the next step of `script`.

    `requests` holds what it was asked: the prompt, the passages and the tools that a model would have been given.
    """

    name = "scripted"
    complaint: str | None = None

    def __init__(self, script: Script = ()) -> None:
        self.requests: list[dict[str, Any]] = []
        self.url = ""
        self.script = script

    @property
    def script(self) -> Script:
        return self._script

    @script.setter
    def script(self, script: Script) -> None:
        self._script, self._next = script, 0

    async def reply(self, request: dict[str, Any]) -> Reply:
        step = self.next(request)
        if isinstance(step, Refuse):
            return refuse(step.status, step.message, step.headers)
        return Reply(200, _frames(step, len(self.requests)))

    def next(self, request: dict[str, Any]) -> Step:
        """The step that answers `request`."""
        self.requests.append(request)
        if callable(self._script):
            return self._script(request)
        number, self._next = self._next, self._next + 1
        # Not an error: in the test it would look like a failure of the provider.
        return self._script[number] if number < len(self._script) else Say("(the script is at its end)")


async def _frames(step: Step, number: int) -> AsyncGenerator[bytes]:
    match step:
        case Say(text, hold, pause, whole, thought, finish):
            if thought:
                yield _chunk({"reasoning_content": thought})
            words = [text] if whole else text.split(" ")
            for i, word in enumerate(words):
                await asyncio.sleep(pause)
                if hold is not None and hold[0] == i:
                    await hold[1].wait()
                yield _chunk({"content": word if i == 0 else f" {word}"})
            yield _chunk({}, finish)
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
    """Serve a scripted model on a free port of this machine; its `url` is what OPENAI_BASE_URL takes."""
    model = ScriptedOpenAI(script)
    async with serve_openai(model) as model.url:
        yield model
