"""Chunks of a stream, put right before the SDK's run loop reads them.

Servers that speak Chat Completions differ in how they tell calls of one answer apart: some send each whole and all with
index 0, some without an index, some repeat the name or the id in each piece. The SDK goes by the index alone. Two
deltas may hold half an emoji each.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from agent_server.models.thoughts import Thoughts


@dataclass(eq=False)
class _Call:
    """A call that pieces have come of."""

    index: Any
    id: str = ""
    name: str = ""
    arguments: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether its arguments are one JSON object by now."""
        if not self.arguments.rstrip().endswith("}"):
            return False
        try:
            return isinstance(json.loads(self.arguments), dict)
        except (ValueError, RecursionError):
            return False


@dataclass
class Calls:
    """The calls of one answer. Each has the place in `calls` for its index."""

    calls: list[_Call] = field(default_factory=list)

    def place(self, index: Any, id: str, name: str, arguments: Any) -> tuple[int, str]:
        """Take in a piece of a call. Returns the call's place and the piece of its arguments, as text."""
        text = arguments if isinstance(arguments, str) else "" if arguments is None else json.dumps(arguments)
        call = self._find(index, id, name, text)
        if name and not call.arguments and not call.name.endswith(name):
            call.name += name  # in pieces; what comes with or after arguments is the name once more
        if id and text == call.arguments and call.is_whole:
            text = ""  # the whole call once more
        call.id = call.id or id
        call.arguments += text
        return self.calls.index(call), text

    def _find(self, index: Any, id: str, name: str, text: str) -> _Call:
        known = next((call for call in reversed(self.calls) if id and call.id == id), None)
        same_place = next((call for call in reversed(self.calls) if index is not None and call.index == index), None)
        call = known or same_place
        if call is None and (index is None or not name):
            call = self.calls[-1] if self.calls else None
        if call is None or self._begins(call, id, name, text):
            return self._begin(index, id)
        return call

    def _begins(self, call: _Call, id: str, name: str, text: str) -> bool:
        """Whether a piece that could be of `call` is of another one. Only one with a name begins a call."""
        if not name:
            return False
        if id and id != call.id:
            return bool(call.id or call.arguments)
        # Nothing can follow the end of an object.
        return call.is_whole and (name != call.name or bool(text.strip() and not (id and text == call.arguments)))

    def _begin(self, index: Any, id: str) -> _Call:
        call = _Call(index, id)
        self.calls.append(call)
        return call


class Halves:
    """Joins halves of characters that came in two texts."""

    def __init__(self) -> None:
        self._kept = ""

    def join(self, text: str) -> str:
        """The text with the half that was kept, without a half at its end. That is kept."""
        text = self._kept + text
        self._kept = text[-1] if text and "\ud800" <= text[-1] <= "\udbff" else ""
        whole = text[: len(text) - len(self._kept)]
        return whole if whole.isascii() else _join_pairs(whole)


def _join_pairs(text: str) -> str:
    # Two halves beside each other are one character in UTF-16, and two that nobody can encode in Python.
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


@dataclass
class Repair:
    """Puts the deltas of one answer right. `tags` part what is thought in the text from what is said."""

    tags: Thoughts = field(default_factory=Thoughts)
    calls: Calls = field(default_factory=Calls)
    _words: Halves = field(default_factory=Halves)
    _thoughts: Halves = field(default_factory=Halves)

    def join_thought(self, thought: Any) -> Any:
        """A piece of what is thought beside the text."""
        return self._thoughts.join(thought) if isinstance(thought, str) and thought else thought

    def part_content(self, content: Any, *, last: bool) -> tuple[Any, str]:
        """What is said and what is thought in a piece of the text. With `last` no text is taken to follow."""
        thought, said = self.tags.part(self._words.join(content) if isinstance(content, str) else "", last=last)
        return said if isinstance(content, str) or said else content, thought


async def repair(stream: AsyncIterator[Any], tags: Thoughts) -> AsyncGenerator[Any]:
    """The chunks of a stream of Chat Completions, each put right in place. What is thought in the text comes as
    `reasoning_content`."""
    repairs = Repair(tags)
    async for chunk in stream:
        for choice in getattr(chunk, "choices", None) or ():
            delta: Any = getattr(choice, "delta", None)
            for piece in getattr(delta, "tool_calls", None) or ():
                _place(piece, repairs.calls)
            for name in ("reasoning_content", "reasoning"):
                if (thought := getattr(delta, name, None)) is not None:
                    setattr(delta, name, repairs.join_thought(thought))
            if delta is not None:
                last = bool(getattr(choice, "finish_reason", None) or getattr(delta, "tool_calls", None))
                content = getattr(delta, "content", None)
                said, thought = repairs.part_content(content, last=last)
                if said is not content:
                    delta.content = said
                if thought:
                    delta.reasoning_content = (getattr(delta, "reasoning_content", None) or "") + thought
        yield chunk


def _place(piece: Any, calls: Calls) -> None:
    """Give a piece the index of its call, the call's whole name, and arguments that are text."""
    function = getattr(piece, "function", None)
    id, name = getattr(piece, "id", None) or "", getattr(function, "name", None) or ""
    piece.index, text = calls.place(getattr(piece, "index", None), id, name, getattr(function, "arguments", None))
    call = calls.calls[piece.index]
    piece.id = call.id or None
    if function is not None:
        function.name, function.arguments = call.name or None, text
