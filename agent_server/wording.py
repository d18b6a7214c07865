"""Values in the words of people, and text of others that Markdown reads as text and nothing else."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from itertools import islice
from typing import Any

MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
LONGEST_TEXT = 300
"""Characters of one value. The rest is an ellipsis."""
_MOST_JOINED, _DEEPEST, _MOST_LOOKED_AT = 20, 3, 4_000

_DATE = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\\.[0-9]+)?)?(Z|[+-][0-9]{2}:[0-9]{2})?")
_HUMP = re.compile("(?<=[a-z0-9])(?=[A-Z])")
_SURROGATE = re.compile("[\ud800-\udfff]")
_REORDERS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")

# What makes Markdown of a text on one line. An underscore within a word, a lone colon and the like do not, and are left,
# because people also read the source: on a terminal, and in clients that render nothing.
_ACTIVE = re.compile(
    r"""
      [\\*`\[\]<|~]
    | (?<![^\W_])_ | _(?![^\W_])        # emphasis
    | &(?=\#?\w{1,32};)                 # &amp;
    | :(?=//|/?$)                       # https://
    | ^[>#] | ^[-+](?=\s) | ^[-:+=](?=[-:=\s]*$) | ^[0-9]{1,9}[.)](?=\s|$)
    """,
    re.VERBOSE,
)


def escape_markdown(text: str) -> str:
    """`text` on one line, with nothing in it that Markdown would take for more than text."""
    return _ACTIVE.sub(lambda found: f"{found[0][:-1]}\\{found[0][-1]}", one_line(text))


def one_line(text: str) -> str:
    """The beginning of `text` without line ends, control characters and what would reorder its neighbours."""
    # A result may hold a book, of which a few words are said.
    text = text[:_MOST_LOOKED_AT]
    text = _REORDERS.sub("", _SURROGATE.sub("\ufffd", text))
    return " ".join(_CONTROL.sub(" ", text).split())


def shorten(text: str, longest: int = LONGEST_TEXT) -> str:
    """At most `longest` characters of `text` and an ellipsis, cut between words where there are any."""
    if len(text) <= longest:
        return text
    return f"{text[:longest].rsplit(' ', 1)[0]} …"


def word_label(name: str) -> str:
    """`due_date` as "Due date"."""
    words = one_line(_HUMP.sub(" ", name.replace("_", " ")))
    return words[:1].upper() + words[1:]


def word_value(value: Any, name: str = "", depth: int = 0) -> str:
    """A value on one line, "" where it says nothing. `name` is that of its field, by which months are known."""
    match value:
        case None | "":
            return ""
        case bool():
            return "yes" if value else "no"
        case int() if is_month(value) and re.fullmatch("(.*_)?month", name):
            return MONTHS[value - 1]
        case int() | float():
            return _number(value)
        case str():
            return shorten(one_line(word_date(value)))
        case Mapping() if depth < _DEEPEST:
            pairs = ((key, word_value(v, str(key), depth + 1)) for key, v in islice(value.items(), _MOST_JOINED))
            return shorten(", ".join(f"{word_label(str(key)).lower()} {text}" for key, text in pairs if text))
        case list() | tuple() if value and all(map(is_month, value)) and re.fullmatch("(.*_)?months?", name):
            return word_months(value)
        case list() | tuple() if depth < _DEEPEST:
            texts = [text for v in value[:_MOST_JOINED] if (text := word_value(v, name, depth + 1))]
            more = len(value) - _MOST_JOINED
            return shorten(", ".join([*texts, f"{more} more"] if more > 0 else texts))
        case Mapping() | list() | tuple():
            return "…" if value else ""
        case _:
            return shorten(one_line(str(value)))


def is_month(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 12


def word_months(numbers: Sequence[int]) -> str:
    """`[11, 12, 1, 2, 6]` as "November to February and June"."""
    there = set(numbers)
    if len(there) == 12:
        return "all year"
    firsts = [month for month in range(1, 13) if month in there and (month - 2) % 12 + 1 not in there]
    runs: list[str] = []
    for first in firsts:
        last = first
        while last % 12 + 1 in there:
            last = last % 12 + 1
        length = (last - first) % 12 + 1
        joint = " and " if length == 2 else " to "
        runs.append(MONTHS[first - 1] if length == 1 else f"{MONTHS[first - 1]}{joint}{MONTHS[last - 1]}")
    # A run over the turn of the year is the first that one would name.
    if firsts and 1 in there and 12 in there:
        runs.insert(0, runs.pop())
    return join_words(runs)


def count(number: int, noun: str, verb: tuple[str, str] | None = None) -> str:
    """`1 mistake`, `2 mistakes`; with the verb ("is", "are"), `1 page is` and `2 pages are`."""
    words = f"{number} {noun}" if number == 1 else f"{number} {noun}s"
    return words if verb is None else f"{words} {verb[number != 1]}"


def join_words(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def word_date(text: str) -> str:
    """A date or a time in ISO 8601 as "12 March 2026" or "12 March 2026, 14:30 UTC"; any other text as it is."""
    try:
        if _DATE.fullmatch(text):
            return _day(date.fromisoformat(text))
        if _TIME.fullmatch(text):
            moment = datetime.fromisoformat(text)
            if moment.tzinfo is None:
                return f"{_day(moment)}, {moment:%H:%M}"
            moment = moment.astimezone(UTC)
            return f"{_day(moment)}, {moment:%H:%M} UTC"
    except (ValueError, OverflowError):
        pass
    return text


def _day(day: date) -> str:
    return f"{day.day} {MONTHS[day.month - 1]} {day.year}"


def _number(value: int | float) -> str:
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else str(value)
    # Python refuses to write more digits than a few thousand.
    return str(value) if abs(value) < 10**30 else f"{'-' if value < 0 else ''}a number of more than 30 digits"
