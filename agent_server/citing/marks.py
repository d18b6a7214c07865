"""The marks by which models cite passages.

They are told to write `[1]` or `[1, 3]`, and write `[^1]`, `[Source 1]`, `(Source 1)`, `【1†source】` or `[1](#cite-1)` too.
`MarkReader` writes all of them as they were told, and leaves out the numbers of passages that are not there. Code stays
as it is.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

LONGEST_MARK, LONGEST_TARGET, LONGEST_CODE = 80, 300, 1000
"""Characters of a mark, of the address of a link, and of code within a line. What is longer is none."""

_CLOSING = {"[": "]", "【": "】", "［": "］", "(": ")"}
_WORD = r"(?:sources?|citations?|cite|passages?|references?|refs?\.?|quellen?|belege?|fuentes?|citas?)"
_SEE = r"(?:see|cf\.?|siehe|vgl\.?|ver|voir)"
_ONE = rf"(?:{_WORD}\s*+(?:[:#]\s*+)?)?(?:[#^]\s*+)?\d{{1,9}}"
_NUMBERS = rf"{_ONE}(?:\s*+(?:[,;&–-]|and|und|et|y)\s*+{_ONE})*+"
_SQUARE = re.compile(rf"\s*+(?:{_SEE}\s++)?(?P<numbers>{_NUMBERS})\s*+(?:\^\s*+)?(?:†.*)?", re.IGNORECASE | re.DOTALL)
_OF_MESSAGE = re.compile(r"\d{1,9}:\d{1,9}(?:†.*)?", re.DOTALL)
_ROUND = re.compile(rf"\s*+(?:{_SEE}\s++)?(?={_WORD})(?P<numbers>{_NUMBERS})\s*+", re.IGNORECASE)
_INNER = re.compile(r"[\[【［]([^\[\]【】［］]*)[\]】］]")
_BETWEEN = re.compile(rf"[\s,;&]*+(?:(?:{_SEE}|and|und|et|y)\s*+)?", re.IGNORECASE)
_PLAIN = re.compile(r"\d+(?:\s*,\s*\d+)*")
_RANGE = re.compile(r"(?<!\d)(\d++)\s*+[–-]\s*+(\d++)")
_BEGINS_MARK = re.compile(rf"(?:{_SEE}|{_WORD}|[\d\s,;&–^#:†-]|and|und|et|y)*+", re.IGNORECASE)
_SPECIAL = re.compile(r"(?<![ \t])(?:[ \t]*+\\?[\[【［(]|[ \t]++\Z|[ \t]*+\\\Z)|`+")
_TILDES = re.compile(r"(?<![^\n])[ \t>]*(~{3,}|~{0,2}\Z)")
_BLANK_LINE = re.compile(r"\n[ \t]*\n")
_ENDS_WORD = frozenset(" \t\n\r.,;:!?)]}»”’\"'】］")
_MOST_OF_RANGE = 50


@dataclass(frozen=True)
class _Mark:
    """A mark with its numbers, which ends at `end`. `written` is how it stays where all of them are known. One that is
    `nested` is marks in round brackets."""

    end: int
    numbers: Sequence[int]
    written: str
    nested: bool = False


class _NeedMore(Exception):
    """What comes next decides."""


class MarkReader:
    """Reads an answer that comes in pieces of any length, and gives out what of it is decided.

    `dropped` counts the numbers that were left out, because they are not among `known`.
    """

    def __init__(self, known: Collection[int]) -> None:
        self._known = known
        self._rest = ""
        self._before = "\n"  # the end of what was given out
        self._fence = ""
        self.dropped = 0

    def feed(self, text: str) -> str:
        """Take the next piece. Returns what follows on what was returned before."""
        self._rest += text
        return self._read(final=False)

    def finish(self) -> str:
        """What is left, when nothing more comes."""
        return self._read(final=True)

    def _read(self, *, final: bool) -> str:
        out: list[str] = []
        try:
            while self._rest:
                taken, written = self._step(self._rest, final)
                self._rest = self._rest[taken:]
                self._before = (self._before + written)[-LONGEST_MARK:]
                out.append(written)
        except _NeedMore:
            pass
        return "".join(out)

    def _step(self, text: str, final: bool) -> tuple[int, str]:
        """How many characters are read next, and what is written for them."""
        if self._fence:
            return self._read_code_line(text, final)
        if self._before.endswith("\n") and (tildes := _TILDES.match(text)):
            return self._open_tildes(text, tildes, final)
        found = _SPECIAL.search(text)
        line = text.find("\n") + 1  # what begins a line is looked at on its own, for fences
        if line and (found is None or line <= found.start()):
            return line, text[:line]
        if found is None:
            return len(text), text
        if found.start():
            return found.start(), text[: found.start()]
        if found[0].startswith("`"):
            return self._read_backticks(text, len(found[0]), final)
        if found[0][-1] in " \t\\":
            if not final:
                raise _NeedMore
            return len(text), text
        return self._read_mark(text, found.end() - 1, final)

    def _read_code_line(self, text: str, final: bool) -> tuple[int, str]:
        end = text.find("\n") + 1
        line = text[: end or len(text)]
        begun = self._before.endswith("\n")
        bare = line.strip(" \t>\r\n")
        may_close = begun and not bare.strip(self._fence[0])
        if not end and not final and may_close:
            raise _NeedMore
        if may_close and len(bare) >= len(self._fence):
            self._fence = ""
        return len(line), line

    def _open_tildes(self, text: str, tildes: re.Match[str], final: bool) -> tuple[int, str]:
        if len(tildes[1]) < 3 or (tildes.end() == len(text) and not final):
            if not final:
                raise _NeedMore
            return len(text), text
        self._fence = tildes[1]
        return tildes.end(), tildes[0]

    def _read_backticks(self, text: str, n: int, final: bool) -> tuple[int, str]:
        """Code within a line, or the beginning of a fence. A run without an end is a run of backticks and no more."""
        window = text[:LONGEST_CODE]
        whole = final or len(text) >= LONGEST_CODE
        if n == len(text) and not final:
            raise _NeedMore
        stop = len(window)
        if n >= 3 and (line := window.find("\n", n)) >= 0:
            stop = line
        elif n < 3 and (blank := _BLANK_LINE.search(window, n)):
            stop = blank.start()
        for run in re.finditer("`+", window[:stop]):
            if run.start() and run.end() == len(window) and not whole:
                raise _NeedMore
            if run.start() and len(run[0]) == n:
                return run.end(), text[: run.end()]
        if stop == len(window) and not whole:
            raise _NeedMore
        if n >= 3 and stop < len(window):
            self._fence = "`" * n
            return stop + 1, text[: stop + 1]
        return n, text[:n]

    def _read_mark(self, text: str, at: int, final: bool) -> tuple[int, str]:
        mark = _find_mark(text, at, final)
        spaces = text[:at].removesuffix("\\")
        if mark is None:
            return at + 1, text[: at + 1]
        known = [n for n in dict.fromkeys(mark.numbers) if n in self._known]
        unknown = len(set(mark.numbers)) - len(known) if mark.numbers else 1
        if not unknown:
            return mark.end, spaces + mark.written
        if not known and mark.end == len(text) and not final:
            raise _NeedMore
        self.dropped += unknown
        if known:
            return mark.end, spaces + (f"({_write(known)})" if mark.nested else _write(known))
        return mark.end, self._leave_out(spaces, text[mark.end : mark.end + 1])

    def _leave_out(self, spaces: str, after: str) -> str:
        """What stands in place of a mark that is left out, between the spaces before it and what comes after it."""
        before = self._before + spaces
        opened = max(before.rfind(c) for c in "[【［(")
        if opened >= 0 and _BEGINS_MARK.fullmatch(before, opened + 1):
            return f"{spaces}…"  # without it what stands around it could be read as a mark
        if before.endswith("\n") or not self._before.strip():
            return spaces
        if after and after not in _ENDS_WORD:
            return spaces or (" " if after.isalnum() and before[-1:].isalnum() else "")
        return spaces if self._before.endswith("\n") else ""


def _find_mark(text: str, at: int, final: bool) -> _Mark | None:
    """The mark that the bracket at a place begins. Raises _NeedMore where what comes next decides."""
    opening = text[at]
    double = opening == "[" and text[at + 1 : at + 2] == "["
    start = at + 1 + double
    window = text[start : at + LONGEST_MARK]
    closing = _CLOSING[opening]
    end = window.find(closing)
    barred = [i for i in (window.find("\n"), window.find(opening)) if i >= 0]
    if end < 0 or any(i < end for i in barred):
        if end < 0 and not barred and not final and len(window) < LONGEST_MARK - 1 - double:
            raise _NeedMore
        return None
    body, end = window[:end], start + end + 1
    if double:
        if end == len(text) and not final:
            raise _NeedMore
        if text[end : end + 1] != "]":
            return None
        end += 1
    if opening == "(":
        return _read_round(body, end)
    escaped = text[at - 1 : at] == "\\" if at else False
    numbers = _read_square(body.removesuffix("\\") if escaped else body)
    if numbers is None:
        return None
    plain = opening == "[" and not double and _PLAIN.fullmatch(body) is not None
    return _Mark(_find_target(text, end, final), numbers, f"[{body}]" if plain else _write(numbers))


def _find_target(text: str, end: int, final: bool) -> int:
    """Where the address ends that makes a link of the mark which ends at `end`: there, where it has none."""
    if end == len(text):
        if not final:
            raise _NeedMore
        return end
    if text[end] != "(":
        return end
    for i, c in enumerate(text[end + 1 : end + LONGEST_TARGET], end + 1):
        if c == ")":
            return i + 1
        if c.isspace() or c == "(":
            return end
    if not final and len(text) < end + LONGEST_TARGET:
        raise _NeedMore
    return end


def _write(numbers: Sequence[int]) -> str:
    return f"[{', '.join(map(str, dict.fromkeys(numbers)))}]"


def _read_square(body: str) -> list[int] | None:
    """The numbers of a mark in square brackets; None where they hold something else."""
    if _OF_MESSAGE.fullmatch(body):
        return []  # a place in another system, which names no passage of ours
    found = _SQUARE.fullmatch(body)
    return _read_numbers(found["numbers"]) if found else None


def _read_round(body: str, end: int) -> _Mark | None:
    """The mark in round brackets: numbers with the word for a source before them, or marks with nothing between."""
    if found := _ROUND.fullmatch(body):
        numbers = _read_numbers(found["numbers"])
        return _Mark(end, numbers, _write(numbers)) if numbers is not None else None
    inner = [_read_square(one) for one in _INNER.findall(body)]
    listed = [n for some in inner for n in some or ()]
    if not listed or None in inner or not all(map(_BETWEEN.fullmatch, _INNER.sub("\0", body).split("\0"))):
        return None
    plain = re.fullmatch(r"[^【［†^]*", body) and all(map(_PLAIN.fullmatch, _INNER.findall(body)))
    return _Mark(end, listed, f"({body})" if plain else f"({_write(listed)})", nested=True)


def _read_numbers(text: str) -> list[int] | None:
    """The numbers of a list with ranges. None where all of them are years."""
    numbers: list[int] = []
    for first, last in _RANGE.findall(text):
        low, high = int(first), int(last)
        numbers += range(low, high + 1) if 0 <= high - low < _MOST_OF_RANGE else [low, high]
    numbers += [int(n) for n in re.findall(r"\d+", _RANGE.sub(" ", text))]
    return None if all(1000 <= n < 2200 for n in numbers) else sorted(numbers) if _RANGE.search(text) else numbers
