"""The YAML at the head of a Markdown file, and what is wrong with it as a person would say it.

    values     what YAML reads
    lines      the line of each key in the file
    mistakes   each with its line; with a mistake in the YAML itself there are no values

Prompts and pages of the content are read by the same rules, so that a mistake has the same words in both.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import yaml

_KEY_LINE = re.compile(r"([A-Za-z_][\w-]*)[ \t]*:(?:[ \t]+(.*))?$")
_INDENTED_KEY = re.compile(r"[ \t]+([A-Za-z_][\w-]*)[ \t]*:(?:\s|$)")
_QUOTED = re.compile(r""""(?:\\.|[^"\\])*"|'(?:''|[^'])*'""")
_DATE = re.compile(r":\s*\d{4}-\d\d?-\d\d?")
_CLOSING = {"[": "]", "{": "}"}
_BAD_BEGINNINGS = ("cannot start any token", "alias", "alphabetic", "the tag")
"""What YAML says of a value that begins with one of its signs: @ ` % * & !"""
_LONGEST_EXAMPLE = 60
_LIBYAML = getattr(yaml, "CSafeLoader", None)
_MOST_NESTED = 500
NOT_YAML = "front matter is not YAML"


@dataclass(frozen=True)
class Head:
    """Front matter as read."""

    values: Mapping[str, Any]
    lines: Mapping[str, int]
    mistakes: Sequence[tuple[int, str]] = ()
    repeated: Sequence[tuple[str, int, int]] = ()
    """Keys that stand there twice: the key, its line and the line of the first one. YAML keeps the last."""


def read_head(text: str, first: int) -> Head:
    """Read the YAML between the two `---` lines. `first` is the number of its first line in the file."""
    try:
        node, read = _load(text)
        if node is None:
            return Head({}, {})
        if not isinstance(node, yaml.MappingNode):
            return Head({}, {}, [(first, "front matter is not `key: value` lines, as in `title: Bread`")])
        values = {str(key): value for key, value in read.items()}
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2026-13-45
        line, message = _explain(error, text)
        return Head({}, {}, [(first + line, f"{NOT_YAML}: {message}")])
    lines: dict[str, int] = {}
    repeated: list[tuple[str, int, int]] = []
    for key, _ in node.value:
        name, line = str(key.value), first + key.start_mark.line
        if lines.setdefault(name, line) != line:
            repeated.append((name, line, lines[name]))
    return Head(values, lines, (), repeated)


def _load(text: str) -> tuple[yaml.Node | None, Any]:
    """The node of a YAML document, and what it says. Raises YAMLError, ValueError and RecursionError."""
    # libyaml is ten times as fast. It has other words for a mistake, takes tabs in more places, and has no bound for how
    # deeply things are nested.
    if _LIBYAML is not None and "\t" not in text and sum(map(text.count, "[{-:?")) <= _MOST_NESTED:
        with suppress(yaml.YAMLError):
            return _load_with(_LIBYAML, text)
    return _load_with(yaml.SafeLoader, text)


def _load_with(kind: Any, text: str) -> tuple[yaml.Node | None, Any]:
    loader = kind(text)
    node = loader.get_single_node()
    return node, None if node is None else loader.construct_document(node)


def _explain(error: Exception, text: str) -> tuple[int, str]:
    """The line, counted from 0, and what is wrong there."""
    if isinstance(error, yaml.reader.ReaderError):
        return text.count("\n", 0, error.position), f"{error.reason}; remove the character"
    rows = text.split("\n")
    # Before YAML's own words: it notices what was not closed far below, and speaks of tokens.
    if (found := next(_find_unclosed(rows), None)) or (found := next(_find_no_keys(rows), None)):
        return found
    if isinstance(error, yaml.MarkedYAMLError):
        # A quotation that nothing closes is noticed at the end of the text.
        unclosed = "quoted scalar" in str(error.context)
        mark = (error.context_mark if unclosed else None) or error.problem_mark or error.context_mark
        at = min(mark.line, len(rows) - 1) if mark else 0
        problem = "a quotation that begins here is not closed" if unclosed else str(error.problem or error.context)
        return at, _explain_marked(problem, rows[at])
    if isinstance(error, RecursionError):
        return 0, "it is nested too deeply"
    at = next((at for at, row in enumerate(rows) if _DATE.search(row)), 0)
    return at, f"{str(error).splitlines()[0]}; put the value in quotation marks, as in date: '2026-01-31'"


def _find_unclosed(rows: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Lists, mappings and quotations that begin behind a key and do not end before the next one."""
    for at, key, value in _list_values(rows):
        sign = value[:1]
        if sign in _CLOSING:
            bare = _QUOTED.sub("", value)
            if bare.count(sign) > bare.count(_CLOSING[sign]):
                noun = "list" if sign == "[" else "mapping"
                example = "[one, two]" if sign == "[" else "{one: 1, two: 2}"
                yield (
                    at,
                    f"the {noun} of `{key}:` begins here and is not closed; end it with {_CLOSING[sign]}, as in {key}: {example}",
                )
        elif sign in ('"', "'") and not _QUOTED.fullmatch(value.strip()):
            inner = value.strip().strip(sign).replace('"', "'")
            yield at, f"the quotation of `{key}:` does not end where its text does; write {_quoted(key, inner)}"


def _list_values(rows: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    """The line, the key and the value of each key, with the lines below that belong to it."""
    starts = [(at, found) for at, row in enumerate(rows) if (found := _KEY_LINE.match(row))]
    ends = [at for at, _ in starts[1:]] + [len(rows)]
    # Not strict: where there is no key, there is an end all the same.
    for (at, found), end in zip(starts, ends, strict=False):
        yield at, found[1], "\n".join([found[2] or "", *rows[at + 1 : end]]).strip()


def _find_no_keys(rows: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Lines at the margin that are no `key: value`."""
    for at, row in enumerate(rows):
        if not row.strip() or row[0] in " \t#-}]" or _KEY_LINE.match(row):
            continue
        if found := re.match(r"([A-Za-z_][\w-]*):(\S.*)", row):
            yield at, f"there is no space behind the colon; write `{_cut(f'{found[1]}: {found[2]}')}`"
        elif row[0] not in "\"'?[{&*!%":
            yield at, f"{_cut(row)!r} is no `key: value`; write one as in `title: Bread`, or indent the line"


def _explain_marked(problem: str, row: str) -> str:
    """What YAML found on this line."""
    key, value = (found[1], found[2] or "") if (found := _KEY_LINE.match(row)) else ("title", row.strip())
    if "\t" in problem or row.startswith("\t") or "\\t" in problem:
        return "there is a tab in this line; write spaces"
    if indented := _INDENTED_KEY.match(row):
        return f"`{indented[1]}:` is indented and the line above has a value already; begin it at the margin"
    if problem.startswith("mapping values"):
        return f"there is a colon in the value; put it in quotation marks, as in {_quoted(key, value)}"
    if any(words in problem for words in _BAD_BEGINNINGS):
        return (
            f"a value cannot begin with {value[:1] or row[:1]}; put it in quotation marks, as in {_quoted(key, value)}"
        )
    return f"{problem}; look at the quotation marks, the brackets and how far this line is indented"


def _quoted(key: str, value: str) -> str:
    plain = value.replace('"', "'").split("\n")[0]
    return f'{key}: "{_cut(plain)}"'


def _cut(text: str) -> str:
    text = text.strip()
    return text if len(text) <= _LONGEST_EXAMPLE else f"{text[: _LONGEST_EXAMPLE - 3]}..."
