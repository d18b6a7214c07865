"""The text of a model call in the log of its turn, while it comes."""

import time
from collections.abc import Callable

from agent_server.conversations.notes import HISTORY_SHORTENED
from agent_server.turns.events import Event, Reset, TextDelta, TextDone, ThoughtDelta
from agent_server.turns.writer import TurnWriter

FLUSH_SECONDS = 0.08
"""Text is put into the log at most this often; what came in between travels together."""
PIECE = 8_192
"""Longest text of one event, characters: each follower that reads slowly holds one in a buffer of its own."""


class AnswerLog:
    """Puts the thoughts and the text of one model call into the log.

    The first words are written as soon as no more are at hand, or at once where other turns keep this process from coming
    to rest; what follows every `FLUSH_SECONDS`. `before` makes the events that go before the rest of the text so far.
    `notes` are codes of what happened to the call, and `first_at` is when its first words came (`time.time`).
    """

    def __init__(self, writer: TurnWriter, call: int, before: Callable[[str], list[Event]]) -> None:
        self._writer, self._call, self._before = writer, call, before
        self.notes: list[str] = []
        self.first_at: float | None = None
        self._begin()

    def _begin(self) -> None:
        self._text = ""
        self._thought = ""
        self._buffer = ""
        self._flushed = 0.0

    async def add(self, delta: str) -> None:
        self.first_at = self.first_at or time.time()
        self._text += delta
        self._buffer += delta
        await self._flush()

    async def think(self, delta: str) -> None:
        self._thought += delta
        await self._flush()

    async def void(self) -> None:
        if self._flushed:
            await self._writer.append(Reset(self._call))
        self._begin()

    def shorten(self) -> None:
        self.notes.append(HISTORY_SHORTENED)

    def take_rest(self) -> list[Event]:
        """What is still to be written when the call has ended."""
        events = self._take_events()
        return [*events, TextDone(self._call)] if self._text else events

    async def _flush(self) -> None:
        if time.monotonic() - self._flushed < FLUSH_SECONDS:
            return
        events = self._take_events()
        if self._flushed or self._writer.is_alone():
            self._writer.show(*events)
        else:
            await self._writer.append(*events)
        self._flushed = time.monotonic()

    def _take_events(self) -> list[Event]:
        events = [
            *self._before(self._text),
            *(ThoughtDelta(self._call, piece) for piece in _pieces(self._thought)),
            *(TextDelta(self._call, piece) for piece in _pieces(self._buffer)),
        ]
        self._thought, self._buffer = "", ""
        return events


def _pieces(text: str) -> list[str]:
    return [text[start : start + PIECE] for start in range(0, len(text), PIECE)]
