"""Reading server-sent events."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx


@dataclass(frozen=True)
class Frame:
    """One frame: its bytes as they came, its id, its event name and its data."""

    raw: str
    id: str | None
    event: str | None
    data: Any


async def read_frames(response: httpx.Response) -> AsyncIterator[Frame]:
    """The frames of a stream, comments left out."""
    buffer = ""
    async for text in response.aiter_text():
        buffer += text
        while "\n\n" in buffer:
            raw, buffer = buffer.split("\n\n", 1)
            if (frame := parse_frame(raw)) is not None:
                yield frame


def parse_frame(raw: str) -> Frame | None:
    """A frame from its text, or None for a comment."""
    fields = dict(line.split(": ", 1) for line in raw.split("\n") if not line.startswith(":") and ": " in line)
    if "data" not in fields:
        return None
    data = fields["data"]
    return Frame(raw, fields.get("id"), fields.get("event"), data if data == "[DONE]" else json.loads(data))


def text_of(frames: list[Frame]) -> str:
    """The answer's text in a UI message stream."""
    return "".join(f.data["delta"] for f in frames if f.data != "[DONE]" and f.data["type"] == "text-delta")


def types_of(frames: list[Frame]) -> list[str]:
    """The chunk types, in order."""
    return [f.data if f.data == "[DONE]" else f.data["type"] for f in frames]
