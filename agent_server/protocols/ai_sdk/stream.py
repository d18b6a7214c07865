"""Turn events -> AI SDK UI message stream v1.

The encoder's output depends on the events alone, so a resumed stream is the rest of the undropped one, byte for byte.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, assert_never
from uuid import UUID

from agent_server.protocols.base import AGAIN, PING, STREAM_HEADERS, Cursor, encode_frame
from agent_server.results import tell_failure, tell_result
from agent_server.tool import Tool
from agent_server.turns.events import (
    AgentChosen,
    Cancelled,
    Cited,
    ConfirmationAsked,
    Done,
    Failed,
    Note,
    Numbered,
    Other,
    PassagesFound,
    Reset,
    Snapshot,
    Steered,
    TextDelta,
    TextDone,
    ThoughtDelta,
    ToolCalled,
    ToolProgress,
    ToolReturned,
    body_of,
)
from agent_server.turns.hub import Moved
from agent_server.web.render import BlockRenderer, render_blocks

Chunk = dict[str, Any]
DONE = b"data: [DONE]\n\n"
HEADERS = {**STREAM_HEADERS, "x-vercel-ai-ui-message-stream": "v1"}


@dataclass
class UIMessageEncoder:
    """The chunks of one turn's stream. Feed it every event from the first on, also those a client has already.

    `tools` are those of the workspace, by name: they say how their results read. With `html` answers and results are
    also given as HTML.
    """

    turn_id: UUID
    conversation_id: UUID
    tools: Mapping[str, Tool[..., Any]] = field(default_factory=dict)
    html: bool = False
    _passages: dict[int, dict[str, Any]] = field(default_factory=dict)
    _cited: list[int] = field(default_factory=list)
    _texts: dict[int, "_OpenText"] = field(default_factory=dict)
    _thinking: int | None = None
    _step: bool = False
    _tools_returned: bool = False
    _returned: set[str] = field(default_factory=set)
    _started: bool = False
    _passing: bool = False
    _version: str | None = None

    def feed(self, numbered: Numbered, *, passing: bool = False) -> list[Chunk]:
        """The chunks of an event. It is `passing` where the client has all of them; then none is rendered."""
        self._passing = passing
        chunks = [] if self._started else [self._start()]
        self._started = True
        return [*chunks, *self._chunks(numbered)]

    def _start(self) -> Chunk:
        return {
            "type": "start",
            "messageId": str(self.turn_id),
            "messageMetadata": {"turnId": str(self.turn_id), "conversationId": str(self.conversation_id)},
        }

    def _chunks(self, numbered: Numbered) -> list[Chunk]:
        match numbered.event:
            case AgentChosen(name=name) as chosen:
                self._version = chosen.prompt_version
                title = name.replace("_", " ").replace("-", " ").capitalize()
                return [{"type": "data-agent", "data": {"name": name, "title": title, **body_of(chosen)}}]
            case PassagesFound(passages=passages):
                self._passages.update({p["n"]: p for p in passages})
                return []
            case Cited(n=n) if n in self._cited:
                # Sent before, for text that was taken back: the client still has the source.
                return []
            case Cited(n=n):
                self._cited.append(n)
                return [_source(self._passages[n])] if n in self._passages else []
            case TextDelta(call=call, text=text):
                return self._text(call, text)
            case TextDone(call=call):
                return self._close_text(call)
            case ThoughtDelta(call=call, text=text):
                return self._think(call, text)
            case Note() as note:
                return [{"type": "data-note", "data": body_of(note)}]
            case Reset(call=call):
                self._texts.pop(call, None)
                self._thinking = None
                return [{"type": "data-reset", "data": {"id": _text_id(call)}}]
            case ToolCalled(call_id=call_id, name=name, input=input):
                return [
                    *self._close_thought(),
                    *self._open_step(self._tools_returned),
                    {"type": "tool-input-available", "toolCallId": call_id, "toolName": name, "input": input, **_OURS},
                ]
            case ToolProgress() as progress:
                # the id has a client put each in the place of the one before
                part = {"type": "data-progress", "id": progress.call_id, "data": body_of(progress)}
                return [] if progress.call_id in self._returned else [part]
            case ToolReturned() as returned:
                self._tools_returned = True
                self._returned.add(returned.call_id)
                return [_outcome(returned), *self._tell(returned)]
            case ConfirmationAsked(id=id) as asked:
                return [{"type": "data-confirmation", "id": id, "data": body_of(asked)}]
            case Steered(text=text):
                return [{"type": "data-steered", "data": {"text": text}}]
            case Snapshot(messages=messages):
                return self._snapshot([m for m in messages if m["role"] == "assistant"])
            case Other():
                return []
            case Done(agent=agent_name, usage=usage, finish=reason):
                metadata = {"agent": agent_name, "promptVersion": self._version, "usage": usage}
                return [*self._end(), _finish(reason.replace("_", "-"), metadata)]
            case Failed(code=code, message=message):
                return [*self._end(), {"type": "error", "errorText": message}, _finish("error", {"error": code})]
            case Cancelled():
                return [*self._end(), {"type": "abort"}]
            case event:
                assert_never(event)

    def _tell(self, returned: ToolReturned) -> list[Chunk]:
        """How the outcome of a call reads. Like `data-html` it is transient: a client keeps the outcome itself."""
        if not self.html or self._passing:
            return []
        name, tool = returned.name, self.tools.get(returned.name)
        if returned.error is None:
            text = tell_result(name, tool, returned.output)
        else:
            text = tell_failure(name, tool, returned.error)
        html = "".join(render_blocks(text))
        return [{"type": "data-tool", "data": {"id": returned.call_id, "html": html}, "transient": True}]

    def _snapshot(self, answers: Sequence[dict[str, Any]]) -> list[Chunk]:
        chunks: list[Chunk] = []
        for number, answer in enumerate(answers, 1):
            self._passages.update({source["n"]: source for source in answer["sources"]})
            self._cited += [source["n"] for source in answer["sources"]]
            self._version = answer.get("prompt_version")
            chunks += [*map(_source, answer["sources"]), *self._text(number, answer["text"]), *self._close_text(number)]
        return chunks

    def _open_step(self, new: bool) -> list[Chunk]:
        if self._step and not new:
            return []
        before: list[Chunk] = [{"type": "finish-step"}] if self._step else []
        self._step, self._tools_returned = True, False
        return [*before, {"type": "start-step"}]

    def _think(self, call: int, text: str) -> list[Chunk]:
        chunks: list[Chunk] = []
        if self._thinking != call:
            chunks = [*self._open_step(self._tools_returned), {"type": "reasoning-start", "id": _thought_id(call)}]
            self._thinking = call
        return [*chunks, {"type": "reasoning-delta", "id": _thought_id(call), "delta": text}]

    def _close_thought(self) -> list[Chunk]:
        call, self._thinking = self._thinking, None
        return [] if call is None else [{"type": "reasoning-end", "id": _thought_id(call)}]

    def _text(self, call: int, text: str) -> list[Chunk]:
        chunks: list[Chunk] = self._close_thought()
        if call not in self._texts:
            chunks += [*self._open_step(self._tools_returned), {"type": "text-start", "id": _text_id(call)}]
            self._texts[call] = _OpenText(BlockRenderer() if self.html else None)
        chunks.append({"type": "text-delta", "id": _text_id(call), "delta": text})
        return [*chunks, *self._texts[call].render(call, text, self._cited, passing=self._passing)]

    def _close_text(self, call: int) -> list[Chunk]:
        text = self._texts.pop(call, None)
        rest = [] if text is None or self._passing else text.render(call, "", self._cited, whole=True)
        return [*rest, {"type": "text-end", "id": _text_id(call)}]

    def _end(self) -> list[Chunk]:
        chunks = self._close_thought()
        chunks += [chunk for call in list(self._texts) for chunk in self._close_text(call)]
        if self._step:
            chunks.append({"type": "finish-step"})
        return chunks


@dataclass
class _OpenText:
    renderer: BlockRenderer | None
    text: str = ""

    def render(
        self, call: int, delta: str, cited: Sequence[int], *, whole: bool = False, passing: bool = False
    ) -> list[Chunk]:
        if self.renderer is None:
            return []
        self.text += delta
        if passing:
            self.renderer.pass_over(self.text, cited)
            return []
        return [
            # Transient: a client keeps the text, which comes as `text-delta`, and not a rendering of it.
            {"type": "data-html", "data": {"id": _text_id(call), "i": i, "html": html}, "transient": True}
            for i, html in self.renderer.feed(self.text, cited, whole=whole)
        ]


# The client has no declaration of our tools, and must not run them: they were run here.
_OURS = {"dynamic": True, "providerExecuted": True}


def _finish(reason: str, metadata: Mapping[str, Any]) -> Chunk:
    return {"type": "finish", "finishReason": reason, "messageMetadata": metadata}


def _outcome(returned: ToolReturned) -> Chunk:
    if returned.error is None:
        return {
            "type": "tool-output-available",
            "toolCallId": returned.call_id,
            "output": returned.output,
            **_OURS,
        }
    return {"type": "tool-output-error", "toolCallId": returned.call_id, "errorText": returned.error, **_OURS}


def _thought_id(call: int) -> str:
    return f"thought-{call}"


def _text_id(call: int) -> str:
    return f"text-{call}"


def _source(passage: dict[str, Any]) -> Chunk:
    keys = ("n", "document", "heading", "passage", "text")
    return {
        "type": "source-document",
        "sourceId": str(passage["n"]),
        "mediaType": "text/markdown",
        "title": passage["title"],
        "filename": passage["document"],
        "providerMetadata": {"agentServer": {key: passage[key] for key in keys}},
    }


async def ui_message_stream(
    events: AsyncIterator[Numbered | None], encoder: UIMessageEncoder, after: Cursor | None
) -> AsyncIterator[bytes]:
    """The frames of the stream that come after `after`. Pings come while nothing happens.

    A stream that ends without `[DONE]` goes on elsewhere.
    """
    try:
        async for numbered in events:
            if numbered is None:
                yield PING
                continue
            # Also of what the client has: what comes next depends on what was open then.
            has_all = after is not None and after.covers(Cursor(numbered.seq))
            if encoder.html:
                chunks = await asyncio.to_thread(encoder.feed, numbered, passing=has_all)
            else:
                chunks = encoder.feed(numbered)
                # What is stored comes without a wait, and a long turn is no reason to let others wait.
                await asyncio.sleep(0)
            if has_all:
                continue
            frames = []
            for i, chunk in enumerate(chunks, 1):
                # Only the last frame has the event's own number: a client that has seen it has seen them all.
                place = Cursor(numbered.seq, 0 if i == len(chunks) else i)
                if after is None or not after.covers(place):
                    frames.append(encode_frame(encoder.turn_id, place, chunk))
            if frames:
                yield b"".join(frames)
        yield DONE
    except Moved:
        yield AGAIN
