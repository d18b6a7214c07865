"""What a tool returns beside data and text: images, sounds, links and files.

A result that is one of these, or a list of them and of texts, is a list of parts. As JSON each has a `type`:

    {"type": "image", "data": "<Base64>", "mime_type": "image/png"}
    {"type": "audio", "data": "<Base64>", "mime_type": "audio/wav"}
    {"type": "link", "uri": "https://...", "name": "terms.pdf", ...}
    {"type": "embedded", "uri": "file:///terms.txt", "text": "...", ...}

A turn keeps what a part is, and not its bytes: models read texts, and what is stored stays small.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import PlainSerializer, WithJsonSchema

from agent_server.wording import escape_markdown, one_line, shorten

# pydantic's own would write the alphabet of URLs, which clients of MCP do not read.
Base64 = Annotated[
    bytes,
    PlainSerializer(lambda data: base64.b64encode(data).decode(), return_type=str, when_used="json-unless-none"),
    WithJsonSchema({"type": "string", "contentEncoding": "base64"}),
]

_MIME_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]*/[a-z0-9][a-z0-9!#$&^_.+-]*(;.*)?", re.IGNORECASE)
_URI = re.compile(r"[a-z][a-z0-9+.-]*:\S+", re.IGNORECASE)
_LONGEST_TEXT = 1_000


@dataclass(frozen=True)
class Image:
    """A picture. `data` are the bytes of its file and `mime_type` is `image/...`. Raises ValueError for another type."""

    data: Base64
    mime_type: str
    type: Literal["image"] = "image"

    def __post_init__(self) -> None:
        _check_data(self.data, self.mime_type, "image")


@dataclass(frozen=True)
class Audio:
    """A sound. `data` are the bytes of its file and `mime_type` is `audio/...`. Raises ValueError for another type."""

    data: Base64
    mime_type: str
    type: Literal["audio"] = "audio"

    def __post_init__(self) -> None:
        _check_data(self.data, self.mime_type, "audio")


@dataclass(frozen=True)
class Link:
    """Where something is that the client may fetch by itself. `size` is in bytes."""

    uri: str
    name: str
    title: str | None = None
    description: str | None = None
    mime_type: str | None = None
    size: int | None = None
    type: Literal["link"] = "link"

    def __post_init__(self) -> None:
        _check_uri(self.uri)
        if not self.name:
            raise ValueError("name: say what is there, as in 'terms.pdf'")
        if self.mime_type is not None:
            _check_mime_type(self.mime_type)


@dataclass(frozen=True)
class Embedded:
    """A file with its content: `text`, or `data` for bytes. `uri` is its name among others."""

    uri: str
    text: str | None = None
    data: Base64 | None = None
    mime_type: str | None = None
    type: Literal["embedded"] = "embedded"

    def __post_init__(self) -> None:
        _check_uri(self.uri)
        if (self.text is None) == (self.data is None):
            raise ValueError("give either text or data, the one that the file has")
        if self.mime_type is not None:
            _check_mime_type(self.mime_type)


MEDIA = (Image, Audio, Link, Embedded)


def _check_data(data: bytes, mime_type: str, kind: str) -> None:
    _check_mime_type(mime_type)
    if not mime_type.lower().startswith(f"{kind}/"):
        raise ValueError(f"mime_type: {mime_type!r} is no {kind}; give one that begins with {kind}/")
    if not isinstance(data, bytes) or not data:
        raise ValueError("data: give the bytes of the file, as they are and not as Base64")


def _check_mime_type(mime_type: str) -> None:
    if not _MIME_TYPE.fullmatch(mime_type):
        raise ValueError(f"mime_type: {mime_type!r} is none; write one as image/png is written")


def _check_uri(uri: str) -> None:
    if not _URI.fullmatch(uri):
        raise ValueError(f"uri: {uri!r} is none; write one as https://example.com/terms.pdf is written")


def returns_parts(declared: Any) -> bool:
    """Whether a declared result is a part, or a list of parts and texts."""
    if get_origin(declared) is Annotated:
        return returns_parts(get_args(declared)[0])
    kinds = _kinds_of(declared)
    lists = [kind for kind in kinds if get_origin(kind) in (list, tuple, Sequence)]
    within = {one for each in lists for entry in get_args(each) for one in _kinds_of(entry)}
    parts = {kind for kind in kinds if kind not in lists} | within
    return bool(parts & {*MEDIA}) and parts <= {*MEDIA, str, NoneType, Ellipsis}


def _kinds_of(declared: Any) -> Sequence[Any]:
    return get_args(declared) if get_origin(declared) in (Union, UnionType) else [declared]


def list_parts(output: Any) -> Sequence[Any]:
    """The parts of a result of `returns_parts`, as JSON-ready data."""
    parts = output if isinstance(output, list) else [output]
    return [part for part in parts if part is not None]


def leave_out_bytes(output: Any) -> Any:
    """The parts of a result with `bytes`, how many there are, in place of the bytes."""
    if isinstance(output, list):
        return [leave_out_bytes(part) for part in output]
    if not isinstance(output, dict) or not isinstance(output.get("data"), str):
        return output
    return {key: value for key, value in output.items() if key != "data"} | {"bytes": count_bytes(output)}


def count_bytes(part: Mapping[str, Any]) -> int:
    """How many bytes a part has whose bytes may have been left out."""
    if isinstance(part.get("bytes"), int):
        return int(part["bytes"])
    data = str(part.get("data") or "")
    return len(data) * 3 // 4 - data.count("=")


def tell_parts(output: Any) -> str:
    """A result of `returns_parts` in Markdown: texts as they are, of the rest what it is."""
    return "\n\n".join(filter(None, map(_tell_part, list_parts(output)))) or "There is nothing to show."


def _tell_part(part: Any) -> str:
    if isinstance(part, str):
        lines = [escape_markdown(shorten(one_line(line), _LONGEST_TEXT)) for line in part.splitlines() if line.strip()]
        return "\n\n".join(lines)
    kind = part["type"]
    about = [part.get("mime_type")] if part.get("mime_type") else []
    if kind == "link":
        about += [_word_size(part["size"])] if part.get("size") is not None else []
        told = f"{part.get('title') or part['name']}: {part['uri']}"
    elif part.get("text") is not None:
        told = f"{part['uri']}: {shorten(one_line(part['text']), _LONGEST_TEXT)}"
    else:
        about.append(_word_size(count_bytes(part)))
        told = {"image": "An image", "audio": "A sound"}.get(kind) or part["uri"]
    return escape_markdown(f"{told} ({', '.join(about)})" if about else told)


def _word_size(size: int) -> str:
    """`1 byte`, `12 kB` or `3.4 MB`."""
    if size < 1_000:
        return f"{size} byte{'' if size == 1 else 's'}"
    return f"{size / 1_000:.0f} kB" if size < 1_000_000 else f"{size / 1_000_000:.1f} MB"
