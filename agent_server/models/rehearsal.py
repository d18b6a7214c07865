"""One run of the SDK before the first turn, which then finds made what is made once per process: 0.2 s of work.

A model that is not there asks for a tool and then answers, by the client that real ones are asked by. Nothing is stored
and nothing is sent.
"""

import asyncio
import importlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from agents import Agent, FunctionTool, RunConfig, Runner, set_trace_provider
from agents.tracing import setup
from agents.tracing.provider import DefaultTraceProvider

from agent_server.models.lean.model import Api, LeanModel
from agent_server.models.lean.request import ToolSets
from agent_server.models.lean.wire import Incoming

_CALL = {"index": 0, "id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
_ANSWERS = (
    ({"role": "assistant", "tool_calls": [_CALL]}, "tool_calls"),
    ({"role": "assistant", "content": "Seen."}, "stop"),
)


def leave_out_traces() -> None:
    """Have the SDK make no client that sends traces, unless somebody has told it where to."""
    if setup.GLOBAL_TRACE_PROVIDER is None:
        set_trace_provider(DefaultTraceProvider())


async def rehearse(is_late: Callable[[], bool]) -> None:
    """Make the run, until it `is_late`. In a thread, because it leaves the event loop no pause."""
    # Streams of Starlette's are anyio's, which imports half of itself when it is first used.
    if not is_late():
        await asyncio.to_thread(importlib.import_module, "anyio._backends._asyncio")
    if not is_late():
        await asyncio.to_thread(lambda: asyncio.run(_run(is_late)))


async def _run(is_late: Callable[[], bool]) -> None:
    async def look(*_: Any) -> str:
        return "{}"

    schema: dict[str, Any] = {"type": "object", "properties": {}}
    tool = FunctionTool("look", "", schema, look, strict_json_schema=False)
    model = LeanModel("rehearsal", Api(_Script(), "http://rehearsal.invalid/v1", "", ToolSets()))
    agent: Agent[None] = Agent("rehearsal", instructions="Look.", tools=[tool], model=model)
    run = Runner.run_streamed(agent, "Look.", run_config=RunConfig(tracing_disabled=True))
    async for _ in run.stream_events():
        if is_late():  # the turn that is there would share the processor with this, and does the same
            run.cancel()


class _Script:
    """The wire to a model that gives these answers."""

    def __init__(self) -> None:
        self._answers = iter(_ANSWERS)

    @asynccontextmanager
    async def send(self, *_: Any, **__: Any) -> AsyncGenerator[Incoming]:
        headers: Mapping[str, str] = {"content-type": "text/event-stream"}
        yield Incoming(200, headers, _stream(*next(self._answers)))

    async def close(self) -> None:
        """Nothing was opened."""


async def _stream(delta: Mapping[str, Any], reason: str) -> AsyncIterator[bytes]:
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    for choices, more in (
        ([{"index": 0, "delta": delta, "finish_reason": None}], {}),
        ([{"index": 0, "delta": {}, "finish_reason": reason}], {}),
        ([], {"usage": usage}),
    ):
        chunk = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "rehearsal", "choices": choices}
        yield f"data: {json.dumps({**chunk, **more})}\n\n".encode()
    yield b"data: [DONE]\n\n"
