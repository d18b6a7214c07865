"""A passage -> the pieces that can be quoted.

These are sentences, list items, table rows and code blocks. Each is verbatim but for its inline markup; a table row
is written out with the names of its columns.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from agent_server.knowledge.passages import CitedPassage

# A capital or a digit must follow: the full stop in "approx. ten metres" ends no sentence.
_SENTENCE = re.compile(r"(?<=[.!?])[\"'”)\]*_]*\s+(?=[\"'“(\[`*_]*[A-Z0-9])")
_ABBREVIATION = re.compile(
    r"\b(e\.g|i\.e|etc|approx|ca|cf|vs|no|fig|dr|mr|mrs|ms|st|nr|max|min|incl)\.$", re.IGNORECASE
)
_ITEM = re.compile(r"^(\s*)([-*+]|\d+[.)])\s+(.*)")
_FENCE = re.compile(r"^\s*(`{3,}|~{3,})")
_HEADING_LINE = re.compile(r"^ {0,3}#{1,6}\s++((?:[^\s#]++|[\s#]++(?=[^\s#]))*+)[\s#]*+$")
_RULE = re.compile(r"^\s*+([-=*_]\s*+){3,}$")
_DIVIDER = re.compile(r"^\s*+(?:\|\s*+)?:?-{2,}.*$")
# Marks of admonitions, lines that are HTML only, link targets and footnotes: no reader sees them as text.
_IGNORED = re.compile(r"^\s*(!!!|\?\?\?|:::|<!--|<[/!a-zA-Z][^>]*>\s*$|\[\^?[^\]]+\]:)")


@dataclass(frozen=True)
class Piece:
    """Something that can be quoted. `place` orders the pieces of a passage; those of one list or table share `block`;
    `lead` is the sentence that introduces the list."""

    n: int
    kind: Literal["sentence", "item", "row", "code"]
    text: str
    heading: str
    place: int
    block: int
    marker: str = ""
    lead: str = ""


def pieces_of(cited: CitedPassage) -> Iterator[Piece]:
    """The quotable pieces of a passage in order."""
    heading, above = cited.passage.heading or cited.passage.title, cited.passage.title
    if not heading.startswith(above):
        # A question often names the subject of the page, which a heading inside the page leaves out.
        heading = f"{above} {heading}"
    place, last = 0, ""
    blocks = list(_blocks(cited.passage.text))
    for number, (kind, lines) in enumerate(blocks):
        if kind == "heading":
            heading, last = f"{above} {_display(lines[0])}", ""
            continue
        lead = last if last.endswith(":") else ""
        introduces = number + 1 < len(blocks) and blocks[number + 1][0] in ("list", "table", "code")
        for shape, marker, text in _block_pieces(kind, lines):
            if text.strip():
                last = text
                # A sentence that introduces a list is shown with the list; alone it answers nothing.
                if not (introduces and shape == "sentence" and text.endswith(":")):
                    yield Piece(cited.n, shape, text, heading, place, number, marker, lead)
                place += 1


_Shape = Literal["sentence", "item", "row", "code"]


def _blocks(text: str) -> Iterator[tuple[str, list[str]]]:
    """A Markdown text as kinds of blocks with their lines. A kind is heading, code, table, list or text."""
    kind, lines, fence = "", [], ""
    for line in text.splitlines():
        mark = _FENCE.match(line)
        if fence:
            lines.append(line)
            # A fence is closed by one of the same sign and at least its length: code may hold a shorter fence.
            if mark and mark[1].startswith(fence):
                yield "code", lines
                kind, lines, fence = "", [], ""
            continue
        now = _kind(line, kind)
        if now != kind or now == "heading":
            if lines:
                yield kind, lines
            kind, lines = now, []
        if mark:
            fence = mark[1]
        if now:
            lines.append(heading[1] if (heading := _HEADING_LINE.match(line)) else line)
    if lines:
        yield ("code" if fence else kind), lines


def _kind(line: str, before: str) -> str:
    if not line.strip() or _RULE.match(line) or _IGNORED.match(line):
        # An empty line between items does not end a list.
        return "list" if before == "list" and not line.strip() else ""
    if _FENCE.match(line):
        return "code"
    if _HEADING_LINE.match(line):
        return "heading"
    if line.lstrip().startswith("|"):
        return "table"
    if _ITEM.match(line) or (before == "list" and line.startswith((" ", "\t"))):
        return "list"
    return "text"


def _block_pieces(kind: str, lines: Sequence[str]) -> Iterator[tuple[_Shape, str, str]]:
    match kind:
        case "code":
            yield "code", "", "\n".join(lines)
        case "table":
            yield from (("row", "", row) for row in _rows(lines))
        case "list":
            yield from (("item", marker, _display(text)) for marker, text in _items(lines))
        case _:
            text = " ".join(line.strip().removeprefix(">").strip() for line in lines)
            yield from (("sentence", "", _display(sentence)) for sentence in _sentences(text))


def _rows(lines: Sequence[str]) -> Iterator[str]:
    """Each row with the names of its columns. A row of a table without a header is its cells."""
    table = [[_display(cell) for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))] for line in lines]
    if len(lines) < 2 or not _DIVIDER.match(lines[1]):
        yield from ("; ".join(filter(None, row)) for row in table if any(row))
        return
    header = table[0]
    for row in table[2:]:
        # Not strict: authors leave out cells at the end of a row.
        cells = [f"{name}: {cell}" if name else cell for name, cell in zip(header[1:], row[1:], strict=False) if cell]
        # A first cell without a word ("18", "3-5") needs its column's name to be understood; a word does not.
        first = f"{header[0]} {row[0]}" if header[0] and not re.search(r"[a-z]{3}", row[0], re.IGNORECASE) else row[0]
        if any(row):
            yield f"{first}: {'; '.join(cells)}" if first and cells else first or "; ".join(cells)


def _items(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    marker, text = "", ""
    for line in lines:
        if found := _ITEM.match(line):
            if text:
                yield marker, text
            marker, text = found[2] if found[2][0].isdigit() else "-", found[3]
        elif line.strip():
            text += f" {line.strip()}"
    if text:
        yield marker, text


def _sentences(text: str) -> Iterator[str]:
    start = 0
    for gap in _SENTENCE.finditer(text):
        if _ABBREVIATION.search(text[start : gap.start()]):
            continue
        yield text[start : gap.end()].strip()
        start = gap.end()
    yield text[start:].strip()


def _display(text: str) -> str:
    """The text without inline markup. Code stays as it is."""
    text = re.sub(r"!\[[^\]]{0,300}\]\([^)]{0,500}\)|\[\^[^\]]{1,100}\]|<[^<>\s][^<>]{0,500}>", "", text)
    text = re.sub(r"\[([^\]]{0,300})\]\([^)]{0,500}\)", r"\1", text)
    # Split at code, because * and _ are part of it there.
    parts = re.split(r"(`[^`]*`)", text)
    plain = [p if p.startswith("`") else re.sub(r"\*{1,3}|(?<!\w)_{1,3}|_{1,3}(?!\w)", "", p) for p in parts]
    return "".join(plain).strip()
