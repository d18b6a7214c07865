"""A timeline on a terminal of 80 columns, and in a pipe."""

import json
import textwrap
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from agent_server.caller import Caller
from agent_server.commands.terminal import fail, show
from agent_server.server import Server
from agent_server.timeline import ModelCallOfTimeline, Timeline, ToolCallOfTimeline, read_timeline

WIDTH = 78
_MOST_PASSAGES = 10


async def show_trace(server: Server, caller: Caller, turn_id: UUID, *, as_json: bool) -> None:
    """Print what happened in a turn: beside the answer, or with `as_json` as one more line of JSON."""
    timeline = await read_timeline(server.database, caller, turn_id, rebuild=as_json)
    if as_json:
        show({"kind": "trace", "timeline": timeline.model_dump(mode="json")})
        return
    for line in describe_timeline(timeline):
        fail(line)


def describe_timeline(timeline: Timeline) -> Iterator[str]:
    """The lines of a trace, in the order in which things happened."""
    yield f"turn {timeline.turn.id}  {timeline.turn.status}"
    if (routing := timeline.routing) is not None:
        yield f"routing  {routing.agent} {routing.confidence:.2f} by {routing.decided_by}"
        yield from (f"    {ranked.confidence:.2f}  {ranked.name}" for ranked in routing.ranked)
    if timeline.passages:
        yield f"passages  {len(timeline.passages)}"
    for passage in timeline.passages[:_MOST_PASSAGES]:
        score = "  -  " if passage.score is None else f"{passage.score:5.2f}"
        yield _cut(f"    [{passage.citation}] {score}  {passage.document}: {passage.heading}")
    tools = {call.call_id: call for call in timeline.tool_calls}
    for call in timeline.model_calls:
        yield from _describe_model_call(call, tools)
    for line in timeline.log:
        yield _cut(f"log  {line.level} {line.event} {_json(line.fields)}")


def _describe_model_call(call: ModelCallOfTimeline, tools: dict[str, ToolCallOfTimeline]) -> Iterator[str]:
    figures = [
        "" if call.input_tokens is None else f"{call.input_tokens:,} tokens in, {call.output_tokens:,} out",
        "" if call.seconds is None else f"{call.seconds:.2f} s",
        "" if call.first_text_seconds is None else f"first words {call.first_text_seconds:.2f} s",
    ]
    yield _cut(f"model call {call.no}  {call.agent}  {call.model}  prompt {call.prompt_sha}")
    if any(figures):
        yield "    " + ", ".join(filter(None, figures))
    for body in call.output:
        match body:
            case {"type": "function_call", "call_id": id, "name": name, "arguments": arguments}:
                yield from _fold(f"-> {name} {arguments}")
                if id in tools:
                    yield from _describe_outcome(tools[id])
            case {"type": "reasoning"}:
                yield _cut("    (thoughts)")
            case {"content": str(said)}:
                yield _cut(f"    said {len(said):,} characters")


def _describe_outcome(tool: ToolCallOfTimeline) -> Iterator[str]:
    took = "" if tool.seconds is None else f" ({tool.seconds:.2f} s)"
    outcome = f"failed: {tool.error}" if tool.error is not None else _json(tool.output)
    yield from _fold(f"<-{took} {outcome}")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _cut(line: str) -> str:
    line = " ".join(line.splitlines())
    return line if len(line) <= WIDTH else line[: WIDTH - 3] + "..."


def _fold(text: str) -> list[str]:
    """A long text in a few lines."""
    lines = textwrap.wrap(text, WIDTH - 4, subsequent_indent="   ", max_lines=3, placeholder=" ...")
    return [f"    {line}" for line in lines]
