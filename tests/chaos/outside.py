"""What is outside the server and outlives its replicas: the world that tools change, and the scripted model.

The model is stateless: what it says next follows from the messages it is given, so that a call that is made again is
answered the same. Like a real provider it refuses messages in which a tool call has no output.
"""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from agent_server.testing.serving import serving
from tests.chaos.jobs import Ask, answer, parse, plan

Trouble = Literal["limit", "error", "cut", "stall", "pause", "malformed", "unknown", "empty"]
TROUBLES: tuple[Trouble, ...] = ("limit", "error", "cut", "stall", "pause", "malformed", "unknown", "empty")
STALL_SECONDS = 6.0
"""Longer than the patience that the replicas are given with a model (`replicas.PATIENCE`)."""


@dataclass
class Outside:
    """`effects` counts what happened per label; `asked` is when each model call of each job was asked for.

    With a probability of `trouble` a model call goes wrong when it is first asked for; `troubles` counts how.
    """

    trouble: float = 0.0
    hurry: bool = False
    """Whether the model says all at once."""
    effects: Counter[str] = field(default_factory=Counter)
    asked: dict[tuple[int, int], list[float]] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    troubles: Counter[str] = field(default_factory=Counter)
    url: str = ""
    _keys: set[str] = field(default_factory=set)

    async def change(self, request: Request) -> Response:
        """Have an effect: once per Idempotency-Key, each time without one."""
        label, key = (await request.json())["label"], request.headers.get("idempotency-key")
        if key is None or key not in self._keys:
            self.effects[label] += 1
        if key is not None:
            self._keys.add(key)
        await asyncio.sleep(random.uniform(0.005, 0.08))
        return JSONResponse({})

    async def complete(self, request: Request) -> Response:
        """A model call, as OpenAI's Chat Completions stream it."""
        messages = (await request.json())["messages"]
        if dangling := _without_output(messages):
            self.refused.append(f"no output of {', '.join(dangling)} in {messages[-1]}")
            return JSONResponse({"error": {"message": "a tool call has no output"}}, 400)
        number, call, asks = _next(messages)
        asked = self.asked.setdefault((number, call), [])
        asked.append(time.time())
        trouble = self._trouble(number, call) if len(asked) == 1 else None
        if trouble == "limit":
            return JSONResponse({"error": {"message": "slow down"}}, 429, {"Retry-After": "0.3"})
        if trouble == "error":
            return JSONResponse({"error": {"message": "out of order"}}, 500)
        return StreamingResponse(_frames(number, asks, trouble, hurry=self.hurry), media_type="text/event-stream")

    def _trouble(self, number: int, call: int) -> Trouble | None:
        chance = random.Random(f"{number}.{call}")
        if chance.random() >= self.trouble:
            return None
        trouble = chance.choice(TROUBLES)
        self.troubles[trouble] += 1
        return trouble


def _without_output(messages: Sequence[dict[str, Any]]) -> list[str]:
    made = [call["id"] for message in messages for call in message.get("tool_calls") or ()]
    answered = {message["tool_call_id"] for message in messages if message["role"] == "tool"}
    return [id for id in made if id not in answered]


def _next(messages: Sequence[dict[str, Any]]) -> tuple[int, int, Sequence[Ask]]:
    """The job, which model call of it this is, and the tools to ask for; none when it is time to answer."""
    last = max(i for i, message in enumerate(messages) if message["role"] == "user")
    number, kind = parse(messages[last]["content"])
    made = {call["id"] for message in messages[last:] for call in message.get("tool_calls") or ()}
    steps = plan(number, kind)
    for call, asks in enumerate(steps, 1):
        if any(ask.id not in made for ask in asks):
            return number, call, asks
    return number, len(steps) + 1, ()


async def _frames(number: int, asks: Sequence[Ask], trouble: Trouble | None, *, hurry: bool) -> AsyncIterator[bytes]:
    pace = 0.0 if hurry else random.Random(number).uniform(0.005, 0.1)
    await asyncio.sleep(pace)
    if trouble == "stall":
        await asyncio.sleep(STALL_SECONDS)
    if trouble in ("malformed", "unknown"):
        name, arguments = ("look", '{"label": ') if trouble == "malformed" else ("no_such_tool", "{}")
        yield _chunk(_call(0, f"call_{number}_{len(asks)}_{trouble}", name, arguments))
        yield _chunk({}, "tool_calls")
    elif trouble == "empty":
        yield _chunk({}, "stop")
    elif asks:
        for i, ask in enumerate(asks):
            yield _chunk(_call(i, ask.id, ask.tool, json.dumps({"label": ask.label})))
            await _interrupt(trouble)
        yield _chunk({}, "tool_calls")
    else:
        for i, word in enumerate(answer(number).split(" ")):
            yield _chunk({"content": word if i == 0 else f" {word}"})
            await asyncio.sleep(pace)
            if i == 5:
                await _interrupt(trouble)
        yield _chunk({}, "stop")
    yield b"data: [DONE]\n\n"


async def _interrupt(trouble: Trouble | None) -> None:
    if trouble == "cut":
        raise ConnectionResetError("the stream is cut here")
    if trouble == "pause":
        await asyncio.sleep(STALL_SECONDS)


def _call(i: int, id: str, name: str, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"tool_calls": [{"index": i, "id": id, "type": "function", "function": function}]}


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
async def outside() -> AsyncIterator[Outside]:
    """The world and the model, on a port of this machine."""
    there = Outside()
    routes = [
        Route("/v1/chat/completions", there.complete, methods=["POST"]),
        Route("/change", there.change, methods=["POST"]),
    ]
    async with serving(Starlette(routes=routes)) as there.url:
        yield there
