"""The front matter of a page: YAML between `---` lines, or TOML between `+++` lines."""

import re
import tomllib

from agent_server.front_matter import Head, read_head
from agent_server.knowledge.readers.base import Unreadable

# A page may begin with a thematic break. Only a key in the next line shows that front matter was meant.
_KEY = re.compile(r"[A-Za-z_][\w-]*\s*:")
_TOML_KEY = re.compile(r"[A-Za-z_][\w-]*\s*=|\[")
_CLOSING = re.compile(r"^(?:---|\.\.\.)[ \t]*$", re.MULTILINE)
_TOML_CLOSING = re.compile(r"^\+\+\+[ \t]*$", re.MULTILINE)
_TOML_LINE = re.compile(r"^\s*([A-Za-z_][\w-]*)\s*=")
_TOML_PLACE = re.compile(r"\s?\(at (?:line (\d+), column \d+|end of document)\)$")
_JOINED = re.compile(r"^([A-Za-z_][\w-]*):(?=[^\s:/])", re.MULTILINE)


def split_front(text: str) -> tuple[Head, int, list[tuple[int, str]]]:
    """The front matter, where the body starts, and remarks. Raises Unreadable for what is none and was meant as it."""
    first, _, rest = text.partition("\n")
    start = len(text) - len(rest)
    if first.rstrip() == "+++":
        return *_split_toml(text, start), []
    if first.rstrip() != "---":
        return Head({}, {}), 0, []
    end = _CLOSING.search(text, start)
    if end is None:
        if _KEY.match(rest):
            raise Unreadable("its front matter does not end: write a line `---` below it", 1)
        return Head({}, {}), 0, []  # a thematic break
    written = text[start : end.start()]
    head, remarks = read_head(written, 2), []
    if head.mistakes:
        repaired = read_head(_JOINED.sub(r"\1: ", written), 2)
        if repaired.mistakes:
            line, message = head.mistakes[0]
            raise Unreadable(message, line)
        joined = _JOINED.search(written)
        line = 2 + written.count("\n", 0, joined.start() if joined else 0)
        head, remarks = repaired, [(line, "there is no space behind the colon; it was read as if there were one")]
    return head, min(end.end() + 1, len(text)), remarks


def _split_toml(text: str, start: int) -> tuple[Head, int]:
    end = _TOML_CLOSING.search(text, start)
    if end is None:
        if _TOML_KEY.match(text, start):
            raise Unreadable("its front matter does not end: write a line `+++` below it", 1)
        return Head({}, {}), 0
    written = text[start : end.start()]
    try:
        values = tomllib.loads(written)
    except tomllib.TOMLDecodeError as error:
        found = _TOML_PLACE.search(str(error))
        at = int(found[1]) if found and found[1] else written.count("\n")
        message = _TOML_PLACE.sub("", str(error))
        raise Unreadable(f'front matter is not TOML: {message}; write `key = "value"`', at + 1) from None
    except RecursionError:
        raise Unreadable("front matter is not TOML: it is nested too deeply", 2) from None
    lines: dict[str, int] = {}
    for number, row in enumerate(written.split("\n"), 2):
        if found := _TOML_LINE.match(row):
            lines.setdefault(found[1], number)
    return Head(values, lines), min(end.end() + 1, len(text))
