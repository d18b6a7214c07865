"""The tables of reStructuredText -> Markdown: grids, simple ones, lists and CSV."""

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

_GRID = re.compile(r"^\+(?:[-=]+\+)+$")
_SIMPLE = re.compile(r"^={2,}(?: +={2,})+$")
_HEADER_ROWS = re.compile(r"^:header-rows:\s*(\d+)")
_HEADER = re.compile(r"^:header:\s*(.+)$")

Inline: TypeAlias = Callable[[str], str]


def find_table_end(lines: Sequence[str], at: int) -> int | None:
    """Where the table ends that begins with this line; None where none begins."""
    if _GRID.match(lines[at]):
        end = at
        while end < len(lines) and lines[end][:1] in ("+", "|"):
            end += 1
        return end
    if not _SIMPLE.match(lines[at]):
        return None
    rules = 0
    for n in range(at, len(lines)):
        rules += _SIMPLE.match(lines[n]) is not None
        # The last rule has nothing below it; the one below the header has.
        if rules >= 2 and _SIMPLE.match(lines[n]) and (n + 1 == len(lines) or not lines[n + 1].strip()):
            return n + 1
    return None


def convert_table(lines: Sequence[str], inline: Inline) -> str:
    return render([*(_read_grid(lines) if _GRID.match(lines[0]) else _read_simple(lines))], inline)


def _read_grid(lines: Sequence[str]) -> Iterator[list[str]]:
    row: list[list[str]] = []
    for line in lines[1:]:
        if line.startswith("+"):
            if row:
                yield [" ".join(cell).strip() for cell in row]
            row = []
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        row = row or [[] for _ in cells]
        for n, cell in enumerate(cells[: len(row)]):
            row[n].append(cell)
    if row:
        yield [" ".join(cell).strip() for cell in row]


def _read_simple(lines: Sequence[str]) -> Iterator[list[str]]:
    starts = [found.start() for found in re.finditer(r"=+", lines[0])]
    row: list[str] = []
    for line in lines[1:]:
        if not line.strip() or set(line) <= {"=", "-", " "}:
            continue
        ends = [*starts[1:], None]
        cells = [line[start:end].strip() for start, end in zip(starts, ends, strict=True)]
        if row and not cells[0]:  # the first cell is empty: the row above goes on
            row = [f"{before} {cell}".strip() for before, cell in zip(row, cells, strict=True)]
            continue
        if row:
            yield row
        row = cells
    if row:
        yield row


def read_list_table(lines: Sequence[str], caption: str, options: Sequence[str], inline: Inline) -> Iterator[str]:
    rows: list[list[str]] = []
    for line in lines:
        stripped = line.strip()
        if stripped.startswith(("* -", "* *", "- *")):
            rows.append([stripped[3:].strip()])
        elif stripped in ("*", "-") and not line[0].isspace():
            rows.append([])
        elif rows and re.match(r"^\s{1,4}[-*](?:\s|$)", line):
            rows[-1].append(stripped[1:].strip())
        elif rows and rows[-1] and stripped:
            rows[-1][-1] += f" {stripped}"
    if caption:
        yield f"**{inline(caption)}**"
    has_head = any((found := _HEADER_ROWS.match(option)) and found[1] != "0" for option in options)
    yield render(rows if has_head or not rows else [[""] * len(rows[0]), *rows], inline)


def read_csv_table(lines: Sequence[str], caption: str, options: Sequence[str], inline: Inline) -> Iterator[str]:
    heads = [found[1] for option in options if (found := _HEADER.match(option))]
    try:
        rows = list(csv.reader([*heads, *(line for line in lines if line.strip())], skipinitialspace=True))
    except csv.Error:
        rows = [[line] for line in lines]
    if caption:
        yield f"**{inline(caption)}**"
    yield render(rows, inline)


def render(rows: Sequence[Sequence[str]], inline: Inline) -> str:
    """Rows of cells as a table of Markdown. The first row is its header."""
    width = max(map(len, rows), default=0)
    if not width:
        return ""
    shown = [
        [inline(cell).replace("\n", " ").replace("|", "\\|") for cell in row] + [""] * (width - len(row))
        for row in rows
    ]
    joined = ["| " + " | ".join(row) + " |" for row in shown]
    return "\n".join([joined[0], "|" + "---|" * width, *joined[1:]])
