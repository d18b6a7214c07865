"""What protocols share.

Where each is spoken, server-sent events, and our own events as they are stored:

    id: <turn>:<seq>            the last frame of an event, or its only one
    id: <turn>:<seq>.<part>     a frame before the last of an event that makes several
    : ping                      nothing happens, and the connection is alive
    retry: 100                  this process ends before the turn does: connect again, with `Last-Event-ID`
"""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from fastapi import APIRouter

from agent_server.errors import InvalidInput
from agent_server.http.errors import ErrorFormat
from agent_server.http.problems import PROBLEMS
from agent_server.turns.events import Numbered, body_of
from agent_server.turns.hub import Moved

STREAM_TYPE = "text/event-stream"
STREAM_HEADERS = {"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}
PING = b": ping\n\n"
AGAIN = b"retry: 100\n\n"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A protocol of chat clients that is spoken at `prefix` and below.

    Every error there is written in the format `errors`, also those of the edge and of the routing. `router` has the
    routes, whose paths begin with the prefix; it is None where `api` has them.
    """

    prefix: str
    errors: ErrorFormat = PROBLEMS
    router: APIRouter | None = None


@dataclass(frozen=True, order=True)
class Cursor:
    """A place in a turn's stream. It is after frame `part` of event `seq`, where part 0 is the whole event."""

    seq: int
    part: int = 0

    def covers(self, place: "Cursor") -> bool:
        """Whether a client at this cursor has the frame at `place`."""
        if place.seq != self.seq:
            return place.seq < self.seq
        # Part 0 is the last frame of an event, and comes after its parts.
        return self.part == 0 or (place.part != 0 and place.part <= self.part)


def parse_cursor(text: str | None, turn_id: UUID) -> Cursor | None:
    """The `Last-Event-ID` of a client. Raises InvalidInput for another turn's, or one that is not ours."""
    if not text:
        return None
    turn, _, place = text.partition(":")
    seq, _, part = place.partition(".")
    if turn != str(turn_id) or not seq.isdecimal() or (part and not part.isdecimal()) or len(seq) > 9 or len(part) > 9:
        raise InvalidInput(f"Last-Event-ID: not an id of this stream; they look like {turn_id}:12")
    return Cursor(int(seq), int(part or 0))


def encode_frame(turn_id: UUID, place: Cursor, data: Any, event: str | None = None) -> bytes:
    """One server-sent event with JSON in it."""
    label = f"{place.seq}.{place.part}" if place.part else f"{place.seq}"
    kind = f"event: {event}\n" if event else ""
    body = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return f"id: {turn_id}:{label}\n{kind}data: {body}\n\n".encode()


async def event_stream(turn_id: UUID, events: AsyncIterator[Numbered | None]) -> AsyncIterator[bytes]:
    """Our own events with one frame each."""
    try:
        async for numbered in events:
            if numbered is None:
                yield PING
                continue
            yield encode_frame(turn_id, Cursor(numbered.seq), body_of(numbered.event), numbered.event.kind)
    except Moved:
        yield AGAIN
