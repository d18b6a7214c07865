"""reStructuredText -> Markdown, without Sphinx and without docutils.

Most of it is written for Sphinx, whose directives docutils does not know: it drops what they hold. Here a directive that
is not known keeps its text. No file is included and no raw HTML is passed on.
"""

import re
from collections.abc import Iterator, Sequence

from agent_server.knowledge.readers.base import ReadText
from agent_server.knowledge.readers.encoding import decode
from agent_server.knowledge.readers.rst_inline import Substitutions, convert_inline, find_substitutions
from agent_server.knowledge.readers.rst_tables import convert_table, find_table_end, read_csv_table, read_list_table

_DEEPEST = 20
_ADORNMENT = re.compile(r"^([!-/:-@\[-`{-~])\1{2,}\s*$")
_DIRECTIVE = re.compile(r"^\.\. +(?:\|[^|]*\| +)?([A-Za-z][\w:.+-]*)::(?:\s+(.*))?$")
_NOTE = re.compile(r"^\.\. +\[([^\]]+)\]\s*(.*)$")
_OPTION = re.compile(r"^:[A-Za-z][\w-]*:(?:\s|$)")
_FIELD = re.compile(r"^:([A-Za-z][^:`]{0,60}):(?:\s+(.*))?$")
_ITEM = re.compile(r"^(?:([-*+\u2022])|(\(?(?:\d{1,9}|#|[A-Za-z])[.)]))(\s+)(?=\S)")
_CODE = frozenset(
    {"code-block", "code", "sourcecode", "parsed-literal", "prompt", "doctest", "testcode", "ipython", "literal"}
)
_DROPPED = frozenset(
    {"toctree", "index", "image", "contents", "include", "raw", "highlight", "currentmodule", "meta", "literalinclude",
     "tabularcolumns", "rst-class", "class", "role", "default-role", "sectnum", "program", "highlightlang", "testsetup",
     "testcleanup", "plot", "graphviz", "uml", "title", "replace", "unicode", "date", "todolist", "only-html"}
)  # fmt: skip
_NOTES = frozenset(
    {"note", "tip", "hint", "warning", "caution", "danger", "attention", "error", "important", "seealso", "todo",
     "admonition", "topic", "sidebar", "rubric", "epigraph", "highlights", "pull-quote", "container", "compound", "only"}
)  # fmt: skip
_TITLED = frozenset({"admonition", "topic", "sidebar", "rubric"})
_VERSIONS = {
    "versionadded": "New in version",
    "versionchanged": "Changed in version",
    "deprecated": "Deprecated since version",
}


def read_rst(content: bytes) -> ReadText:
    read = decode(content)
    lines = [line.rstrip() for line in read.text.expandtabs(8).split("\n")]
    document = _Document(find_substitutions(lines))
    text = "\n\n".join(document.convert(lines, 0))
    return ReadText(f"{text}\n" if text else "", document.title, read.remarks)


class _Document:
    """What is known of the whole file while it is converted."""

    def __init__(self, substitutions: Substitutions) -> None:
        self._substitutions = substitutions
        self._levels: list[str] = []  # the adornments, in the order in which they came
        self.title = ""

    def convert(self, lines: Sequence[str], depth: int) -> Iterator[str]:
        """The blocks of these lines as Markdown."""
        if depth > _DEEPEST:
            yield self._inline(" ".join(" ".join(lines).split()))
            return
        at = 0
        while at < len(lines):
            if not lines[at].strip():
                at += 1
                continue
            for read in (
                self._read_heading,
                self._read_explicit,
                self._read_table,
                self._read_item,
                self._read_quotation,
            ):
                if found := read(lines, at, depth):
                    break
            else:
                found = self._read_paragraph(lines, at, depth)
            at, blocks = found
            yield from (block for block in blocks if block.strip())

    def _inline(self, text: str) -> str:
        return convert_inline(text, self._substitutions)

    def _read_heading(self, lines: Sequence[str], at: int, depth: int) -> tuple[int, list[str]] | None:
        line, below = lines[at], lines[at + 1] if at + 1 < len(lines) else ""
        if found := _ADORNMENT.match(line):
            closing = lines[at + 2] if at + 2 < len(lines) else ""
            if below.strip() and closing and closing[:1] == found[1] and _ADORNMENT.match(closing):
                return at + 3, [self._head(below.strip(), f"{found[1]}{found[1]}")]
            # A line between paragraphs; a table begins so too.
            return None if " " in line.strip() or below.strip() else (at + 1, [])
        if line[0].isspace() or not (found := _ADORNMENT.match(below)) or len(below.strip()) < min(len(line), 4):
            return None
        return at + 2, [self._head(line.strip(), found[1])]

    def _head(self, text: str, adornment: str) -> str:
        if adornment not in self._levels:
            self._levels.append(adornment)
        text = self._inline(text)
        self.title = self.title or text
        return f"{'#' * min(6, self._levels.index(adornment) + 1)} {text}"

    def _read_explicit(self, lines: Sequence[str], at: int, depth: int) -> tuple[int, list[str]] | None:
        line = lines[at]
        if line != ".." and not line.startswith(".. ") and not line.startswith("__ "):
            return None
        end, body = _take_indented(lines, at + 1)
        if found := _DIRECTIVE.match(line):
            return end, list(self._convert_directive(found[1].lower(), (found[2] or "").strip(), body, depth))
        if found := _NOTE.match(line):
            text = " ".join(" ".join([found[2], *body]).split())
            return end, [f"- {self._inline(text)}"]
        return end, []  # a comment, a target, a substitution

    def _convert_directive(self, name: str, argument: str, body: list[str], depth: int) -> Iterator[str]:
        start = next((n for n, row in enumerate(body) if not _OPTION.match(row)), len(body))
        options, inner = body[:start], body[start:]
        name = name.rpartition(":")[2]
        if name in _DROPPED or name.startswith("auto"):
            return
        if name in _CODE:
            language = argument if re.fullmatch(r"[\w+.#-]{1,30}", argument) else ""
            yield _fence(inner, language)
        elif name == "math":
            yield _fence([argument, *inner] if argument else inner, "math")
        elif name == "list-table":
            yield from read_list_table(inner, argument, options, self._inline)
        elif name == "csv-table":
            yield from read_csv_table(inner, argument, options, self._inline)
        elif name in _NOTES:
            title = self._inline(argument) if name in _TITLED else ""
            rows = inner if title or not argument or name in ("only", "container") else [argument, "", *inner]
            blocks = [*([f"**{title}:**"] if title else []), *self.convert(rows, depth + 1)]
            yield from blocks if name in ("only", "container", "compound", "rubric") else [_quote(blocks)]
        elif name in _VERSIONS:
            version, _, text = argument.partition(" ")
            more = " ".join(" ".join([text, *inner]).split())
            yield f"{_VERSIONS[name]} {version}" + (f": {self._inline(more)}" if more else ".")
        else:
            # A signature, a figure's caption, a tab: what it is about, and its text.
            if argument and name != "figure":
                yield (
                    f"`{argument}`" if re.search(r"[(_.=\[-]", argument) and "`" not in argument else f"**{argument}**"
                )
            yield from self.convert(inner, depth + 1)

    def _read_table(self, lines: Sequence[str], at: int, depth: int) -> tuple[int, list[str]] | None:
        end = find_table_end(lines, at)
        return None if end is None else (end, [convert_table(lines[at:end], self._inline)])

    def _read_item(self, lines: Sequence[str], at: int, depth: int) -> tuple[int, list[str]] | None:
        items: list[str] = []
        number = 0
        first = _ITEM.match(lines[at])
        while (
            at < len(lines) and (found := _ITEM.match(lines[at])) and first and (found[1] is None) == (first[1] is None)
        ):
            width = found.end()
            end, body = _take_indented(lines, at + 1, width if found[2] is None else min(width, 2))
            # "A. Smith wrote" is a sentence: in a list each line is an item or is indented.
            if (
                not items
                and found[2]
                and end < len(lines)
                and end == at + 1
                and lines[end].strip()
                and not _ITEM.match(lines[end])
            ):
                return None
            number += 1
            sign = "- " if found[1] else f"{number}. "
            below = [""] if at + 1 < len(lines) and not lines[at + 1].strip() else []
            blocks = list(self.convert([lines[at][width:], *below, *body], depth + 1))
            items.append(_hang(sign, blocks))
            at = end
            following = _skip_empty(lines, at)
            if following < len(lines) and _ITEM.match(lines[following]):
                at = following
        return (at, ["\n".join(items)]) if items else None

    def _read_quotation(self, lines: Sequence[str], at: int, depth: int) -> tuple[int, list[str]] | None:
        if not lines[at][0].isspace():
            return None
        end, body = _take_indented(lines, at)
        return end, [_quote(list(self.convert(body, depth + 1)))]

    def _read_paragraph(self, lines: Sequence[str], at: int, depth: int) -> tuple[int, list[str]]:
        if lines[at].startswith(">>>"):
            end = next((n for n in range(at, len(lines)) if not lines[n].strip()), len(lines))
            return end, [_fence(lines[at:end], "python")]
        if found := _FIELD.match(lines[at]):
            end, body = _take_indented(lines, at + 1)
            # At the top it describes the file, as `:orphan:` does.
            text = " ".join(" ".join([found[2] or "", *body]).split())
            return end, [f"- **{found[1]}**: {self._inline(text)}"] if self.title and text else []
        end = at + 1
        while end < len(lines) and lines[end].strip() and not lines[end][0].isspace():
            end += 1
        if end == at + 1 and end < len(lines) and lines[end].strip():  # indented below one line: a definition
            after, body = _take_indented(lines, end)
            blocks = list(self.convert(body, depth + 1))
            return after, [f"**{self._inline(lines[at])}**: {blocks[0] if blocks else ''}", *blocks[1:]]
        text = "\n".join(line[2:] if line.startswith("| ") else line for line in lines[at:end])
        if not text.endswith("::"):
            return end, [self._inline(text)]
        text = text[:-2].rstrip() if text.endswith(" ::") or text == "::" else text[:-1]
        start = _skip_empty(lines, end)
        after, body = _take_indented(lines, start)
        return after if body else end, [self._inline(text), _fence(body, "")]


def _take_indented(lines: Sequence[str], at: int, width: int = 1) -> tuple[int, list[str]]:
    """Where the lines end that are indented from `at` on, and those lines without their indentation."""
    end = at
    for n in range(at, len(lines)):
        if not lines[n].strip():
            continue
        if len(lines[n]) - len(lines[n].lstrip()) < width:
            break
        end = n + 1
    taken = lines[at:end]
    margin = min((len(line) - len(line.lstrip()) for line in taken if line.strip()), default=0)
    body = [line[margin:] for line in taken]
    start = _skip_empty(body, 0)
    return end, body[start:]


def _skip_empty(lines: Sequence[str], at: int) -> int:
    while at < len(lines) and not lines[at].strip():
        at += 1
    return at


def _fence(lines: Sequence[str], language: str) -> str:
    text = "\n".join(lines).strip("\n")
    if not text.strip():
        return ""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text}\n{fence}"


def _quote(blocks: list[str]) -> str:
    return "\n".join(f"> {line}".rstrip() for line in "\n\n".join(blocks).split("\n")) if blocks else ""


def _hang(sign: str, blocks: list[str]) -> str:
    text = "\n\n".join(blocks)
    # A list in an item follows its text line by line.
    text = re.sub(r"\n\n(?=- |\d+\. )", "\n", text)
    return sign + text.replace("\n", "\n" + " " * len(sign)).replace("\n" + " " * len(sign) + "\n", "\n\n")
