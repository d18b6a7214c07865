"""Markdown -> the blocks that a reader sees, in order.

Blocks are headings, paragraphs, lists, tables and code, parsed as CommonMark does. Inline markup is dropped, and so are
the marks of template languages and admonitions; code stays as written. A table row is written out with the names of its
columns.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from markdown_it import MarkdownIt
from markdown_it.token import Token

from agent_server.knowledge.markup import display
from agent_server.knowledge.readers.markdown import clean
from agent_server.knowledge.sentences import split_sentences

_MARKDOWN = MarkdownIt("commonmark").enable("table")
# Without the parsing of inline markup: `display` needs the text as written, to leave code alone.
_MARKDOWN.core.ruler.enableOnly(["normalize", "block"])

_BREAK = re.compile(r"<(?:br|/?(?:p|div|h[1-6]|li|ul|ol|dl|dt|dd|tr|table|section|pre|blockquote))\b[^>]*>", re.I)
_TABLE = re.compile(r"(?:<table\b|<tr\b|<td\b).*?(?:</table>|\Z)", re.I | re.DOTALL)
_ROW = re.compile(r"<t[rdh]\b.*?(?=<tr\b|</table>|\Z)", re.I | re.DOTALL)
_CELL = re.compile(r"<(t[hd])\b[^>]*>(.*?)(?=<t[hd]\b|</tr>|\Z)", re.I | re.DOTALL)
_TAG = re.compile(r"</?[A-Za-z][^<>]{0,500}>")


@dataclass(frozen=True)
class Part:
    """The least of a block that is quoted: a sentence, an item, a row, or the whole code.

    `text` is Markdown without inline markup. `marker` stands before an item, `depth` is how deep its list is nested.
    """

    text: str
    marker: str = ""
    depth: int = 0


@dataclass(frozen=True)
class Block:
    """`level` is that of a heading, 0 for other kinds."""

    kind: Literal["heading", "text", "list", "table", "code"]
    parts: tuple[Part, ...]
    level: int = 0


def parse_blocks(markdown: str) -> list[Block]:
    """The blocks of a page or of a piece of one."""
    return list(_Reader(_MARKDOWN.parse(clean(markdown))).read())


class _Reader:
    """Reads blocks from the tokens of a page."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens, self._at = tokens, 0

    def read(self) -> Iterator[Block]:
        while self._at < len(self._tokens):
            token = self._tokens[self._at]
            match token.type:
                case "heading_open":
                    text = display(self._tokens[self._at + 1].content)
                    self._at += 3
                    if text:
                        yield Block("heading", (Part(text),), int(token.tag[1]))
                case "bullet_list_open" | "ordered_list_open":
                    if parts := self._list(0):
                        yield Block("list", tuple(parts))
                case "table_open":
                    yield from _block("table", _rows(self._table()))
                case "code_block" if _TAG.match(token.content.strip()):
                    # HTML is often indented, and no project means such a part of a page as code.
                    self._at += 1
                    yield from _html_blocks(token.content)
                case "fence" | "code_block":
                    self._at += 1
                    if token.content.strip():
                        yield Block("code", (Part(_fenced(token)),))
                case "html_block":
                    self._at += 1
                    yield from _html_blocks(token.content)
                case "inline":
                    self._at += 1
                    yield from _block("text", split_sentences(display(token.content)))
                case _:
                    self._at += 1

    def _list(self, depth: int) -> list[Part]:
        """The items of a list and of the lists in it. Code in an item stays in it."""
        parts: list[Part] = []
        marker = "-"
        texts: list[str] = []

        def close() -> None:
            if text := "\n".join(filter(None, texts)).strip():
                parts.append(Part(text, marker, depth))
            texts.clear()

        self._at += 1
        while self._at < len(self._tokens):
            token = self._tokens[self._at]
            match token.type:
                case "bullet_list_close" | "ordered_list_close":
                    self._at += 1
                    break
                case "bullet_list_open" | "ordered_list_open":
                    close()
                    parts += self._list(depth + 1)
                    continue
                case "list_item_open":
                    close()
                    marker = f"{token.info}{token.markup}" if token.info else "-"
                case "fence" | "code_block":
                    texts.append(_fenced(token))
                case "inline":
                    texts.append(display(token.content))
                case "html_block":
                    texts.append(display(token.content))
                case _:
                    pass
            self._at += 1
        close()
        return parts

    def _table(self) -> list[list[str]]:
        rows: list[list[str]] = []
        while self._tokens[self._at].type != "table_close":
            token = self._tokens[self._at]
            if token.type == "tr_open":
                rows.append([])
            elif token.type == "inline":
                rows[-1].append(display(token.content))
            self._at += 1
        self._at += 1
        return rows


def _block(kind: Literal["text", "table"], texts: Sequence[str]) -> Iterator[Block]:
    if parts := tuple(Part(text, "-" if kind == "table" else "") for text in texts if text):
        yield Block(kind, parts)


def _fenced(token: Token) -> str:
    mark = token.markup or "```"
    # The code itself may hold a fence of the usual length.
    return f"{mark}{token.info.strip()}\n{token.content.rstrip()}\n{mark}"


def _rows(table: Sequence[Sequence[str]]) -> list[str]:
    """Each row with the names of its columns."""
    if len(table) < 2:
        return ["; ".join(filter(None, row)) for row in table if any(row)]
    header, *body = table
    rows = []
    for row in filter(any, body):
        # Not strict: authors leave out cells at the end of a row.
        cells = [f"{name}: {cell}" if name else cell for name, cell in zip(header[1:], row[1:], strict=False) if cell]
        # A first cell without a word ("18", "3-5") needs its column's name to be understood; a word does not.
        first = f"{header[0]} {row[0]}" if header[0] and not re.search(r"[^\W\d_]{3}", row[0]) else row[0]
        rows.append(f"{first}: {'; '.join(cells)}" if first and cells else first or "; ".join(cells))
    return rows


def _html_blocks(text: str) -> Iterator[Block]:
    """The tables and paragraphs of HTML. The tag of a block is a break."""
    start = 0
    for table in _TABLE.finditer(text):
        yield from _html_text(text[start : table.start()])
        rows = [[(tag.lower(), display(cell)) for tag, cell in _CELL.findall(row)] for row in _ROW.findall(table[0])]
        rows = [row for row in rows if any(cell for _, cell in row)]
        plain = [[cell for _, cell in row] for row in rows]
        headed = bool(rows) and all(tag == "th" for tag, _ in rows[0])
        yield from _block("table", _rows(plain) if headed else ["; ".join(filter(None, row)) for row in plain])
        start = table.end()
    yield from _html_text(text[start:])


def _html_text(text: str) -> Iterator[Block]:
    for paragraph in re.split(r"\n\s*\n", _BREAK.sub("\n\n", text)):
        yield from _block("text", split_sentences(display(paragraph)))
