"""An HTML page -> Markdown. What is around the text (menus, scripts, styles) is left out.

The tag of a block is a break, and the cells of a table stay apart. Where a page says which part is its text (`<main>`,
else `<article>`), that part is read. Nothing here calls itself: how deeply a page is nested makes no difference.
"""

import re
from dataclasses import dataclass
from html.parser import HTMLParser

from agent_server.knowledge.readers.base import NoContent, ReadText
from agent_server.knowledge.readers.encoding import decode

_LEFT_OUT = frozenset(
    {"script", "style", "template", "noscript", "svg", "math", "nav", "footer", "iframe", "button", "select"}
)
_BLOCKS = frozenset(
    {"address", "article", "aside", "blockquote", "body", "center", "dd", "details", "dialog", "div", "dl", "dt", "fieldset",
     "figcaption", "figure", "header", "hgroup", "html", "legend", "li", "main", "ol", "p", "section", "summary", "table",
     "tbody", "tfoot", "thead", "tr", "ul", "caption", "hr", "video", "audio"}
)  # fmt: skip
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
# Of these the end is always written: of others it may be left out, and all that follows would be hidden with them.
_HIDDEN = frozenset({"div", "section", "span", "aside", "ul", "ol", "table"})
_CODE = frozenset({"code", "kbd", "samp", "tt"})
_DEEPEST_LIST = 6
_CHARSET = re.compile(
    rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w-]{2,40})|<\?xml[^>]{0,100}encoding=["']([\w-]{2,40})""", re.I
)
_REFRESH = re.compile(r"^\s*+0*+\d?\s*+;\s*+url\s*+=", re.IGNORECASE)
_TAG = re.compile(r"</?[A-Za-z][^<>\n`]{0,100}>")
# What would begin a heading, a quotation, a list or a rule in Markdown.
_BEGINNING = re.compile(r"^(#{1,6}(?=\s|$)|>|[-+*](?=\s)|\d{1,9}(?=[.)]\s)|`{3,}|~{3,}|={2,}\s*$|-{2,}\s*$)")
_MOST_WORDS_OF_A_STUB = 40


def read_html(content: bytes) -> ReadText:
    found = _CHARSET.search(content[:2048])
    declared = (found[1] or found[2]).decode("ascii") if found else None
    read = decode(content, declared)
    page = convert_html(read.text)
    return ReadText(page.text, page.title, read.remarks)


def convert_html(source: str) -> ReadText:
    """The page as Markdown. Raises NoContent for one that only leads elsewhere."""
    parser = _Parser()
    parser.feed(source)
    parser.close()
    parser.end_block()
    text = parser.join_blocks()
    if parser.leads_elsewhere and len(text.split()) <= _MOST_WORDS_OF_A_STUB:
        raise NoContent("only leads to another page")
    return ReadText(f"{text}\n" if text else "", parser.first_heading or " ".join("".join(parser.title).split()))


@dataclass(frozen=True)
class _Block:
    """A block in the part of the page that it stands in: "main", "article" or ""."""

    text: str
    part: str
    in_list: bool
    is_item: bool


class _Parser(HTMLParser):
    """Collects the blocks of a page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.title: list[str] = []
        self.first_heading = ""
        self.leads_elsewhere = False
        self._blocks: list[_Block] = []
        self._line: list[str] = []
        self._left_out: list[str] = []  # the open elements whose text is left out
        self._parts: list[str] = []
        self._in_title = False
        self._heading = 0
        self._is_term = False
        self._pre: list[str] | None = None
        self._code = 0
        self._language = ""
        self._lists: list[int | None] = []  # the number of the next item, None without numbers
        self._item: str | None = None  # the sign of an item that has no text yet
        self._quotes = 0
        self._tables: list[_Table] = []

    def join_blocks(self) -> str:
        """The text of the part that is the page's own."""
        parts = (("main",), ("article",), ("main", "article", ""))
        chosen = next((found for part in parts if (found := [b for b in self._blocks if b.part in part])), [])
        joined: list[str] = []
        for at, block in enumerate(chosen):
            # Items stand line by line: a list with empty lines between them reads as paragraphs.
            joined += ["" if at == 0 else "\n" if block.is_item and chosen[at - 1].in_list else "\n\n", block.text]
        return "".join(joined)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._left_out:
            if tag == self._left_out[-1]:
                self._left_out.append(tag)
            return
        given = dict(attrs)
        is_hidden = tag in _HIDDEN and (given.get("hidden", "no") is None or given.get("aria-hidden") == "true")
        if tag in _LEFT_OUT or is_hidden:
            self._left_out.append(tag)
        elif tag == "meta":
            is_refresh = (given.get("http-equiv") or "").lower() == "refresh"
            self.leads_elsewhere |= is_refresh and _REFRESH.search(given.get("content") or "") is not None
        elif tag == "title":
            self._in_title = not self.title
        elif tag == "br":
            self._add("\n")
        elif tag in _CODE and self._pre is None:
            self._code += 1
            self._add("`" if self._code == 1 else "")
        elif self._pre is not None and tag == "code":
            self._language = self._language or _find_language(given.get("class"))
        else:
            self._start_block(tag, given)

    def _start_block(self, tag: str, given: dict[str, str | None]) -> None:
        if tag in ("main", "article"):
            self.end_block()
            self._parts.append(tag)
        if tag in ("td", "th"):
            self._start_cell(tag)
        elif tag in _BLOCKS or tag in _HEADINGS or tag == "pre":
            self.end_block()
        if tag in _BLOCKS:
            self._is_term = tag == "dt"
        if tag in _HEADINGS:
            self._heading = _HEADINGS[tag]
        elif tag == "pre":
            self._pre, self._language = [], _find_language(given.get("class"))
        elif tag in ("ul", "ol"):
            start = given.get("start") or "1"
            self._lists.append(None if tag == "ul" else int(start[:6]) if start.isdecimal() else 1)
        elif tag == "li":
            self._start_item()
        elif tag == "blockquote":
            self._quotes += 1
        elif tag == "table":
            self._tables.append(_Table())
        elif tag == "tr" and self._tables:
            self._tables[-1].start_row()

    def handle_endtag(self, tag: str) -> None:
        if self._left_out:
            if tag == self._left_out[-1]:
                self._left_out.pop()
            return
        if tag == "title":
            self._in_title = False
        elif tag in _CODE and self._pre is None:
            if self._code == 1:
                self._add("`")
            self._code = max(0, self._code - 1)
        elif tag == "pre":
            self._end_code()
        elif tag in ("td", "th"):
            self._end_cell()
        elif tag in _BLOCKS or tag in _HEADINGS:
            self._end_of_block(tag)

    def _end_of_block(self, tag: str) -> None:
        self.end_block()
        if tag in ("ul", "ol") and self._lists:
            self._lists.pop()
        elif tag == "li":
            self._item = None
        elif tag == "blockquote":
            self._quotes = max(0, self._quotes - 1)
        elif tag == "table" and self._tables:
            self._end_cell()
            self._write(self._tables.pop().render(), is_text=False)
        elif tag in ("main", "article") and self._parts:
            self._parts.pop()

    def handle_data(self, data: str) -> None:
        if self._left_out:
            return
        if self._in_title:
            self.title.append(data)
        elif self._pre is not None:
            self._pre.append(data)
        else:
            self._add(re.sub(r"\s+", " ", data) if self._code == 0 else re.sub(r"[\s`]+", " ", data))

    def unknown_decl(self, data: str) -> None:  # <![CDATA[...]]>: the parser of Python would raise in some versions
        pass

    def _add(self, text: str) -> None:
        if self._pre is not None:
            self._pre.append(text)
        else:
            self._line.append(text)

    def _start_item(self) -> None:
        if not self._lists:
            self._lists.append(None)
        number = self._lists[-1]
        self._item = "- " if number is None else f"{number}. "
        if number is not None:
            self._lists[-1] = number + 1

    def _start_cell(self, tag: str) -> None:
        self._end_cell()
        if self._tables:
            self.end_block()
            self._tables[-1].start_cell(is_head=tag == "th")

    def _end_cell(self) -> None:
        self.end_block()
        if self._tables:
            self._tables[-1].end_cell()

    def _end_code(self) -> None:
        if self._pre is None:
            return
        text, self._pre = "".join(self._pre).strip("\n"), None
        if not text.strip():
            return
        if self._tables:
            self._tables[-1].add("`" + re.sub(r"[\s`|]+", " ", text).strip() + "`")
            return
        fence = "```"
        while fence in text:
            fence += "`"
        self._write(f"{fence}{self._language}\n{text}\n{fence}", is_text=False)

    def end_block(self) -> None:
        """Close the block that is being read."""
        if self._pre is not None:
            self._end_code()
        if self._code:  # code that nothing closed
            self._line.append("`")
            self._code = 0
        text = "".join(self._line)
        self._line = []
        lines = [" ".join(line.split()) for line in text.split("\n")]
        text = "\n".join(line for line in lines if line).replace("``", "")
        level, self._heading = self._heading, 0
        if not text:
            return
        if self._tables:
            self._tables[-1].add(_show_tags(text.replace("\n", " ")))
        elif level:
            text = _show_tags(text.replace("\n", " "))
            self.first_heading = self.first_heading or (text if level == 1 else "")
            self._write(f"{'#' * level} {text}", is_text=False)
        elif self._is_term:
            self._write(f"**{_show_tags(text)}**")
        else:
            self._write("\n".join(_BEGINNING.sub(r"\\\1", line) for line in _show_tags(text).split("\n")))

    def _write(self, text: str, *, is_text: bool = True) -> None:
        if not text:
            return
        if self._tables and not is_text:  # a table in a table
            self._tables[-1].add(" ".join(text.replace("|", " ").split()))
            return
        lines = text.split("\n")
        is_item = bool(self._lists and self._item)
        if self._lists:
            depth = min(len(self._lists), _DEEPEST_LIST)
            indent, sign = "   " * (depth - 1), self._item or "   "
            self._item = None
            lines = [f"{indent}{sign}{lines[0]}", *(f"{indent}   {line}" for line in lines[1:])]
        if self._quotes:
            lines = [f"> {line}".rstrip() for line in lines]
        part = next((part for part in ("main", "article") if part in self._parts), "")
        self._blocks.append(_Block("\n".join(lines), part, bool(self._lists), is_item))


class _Table:
    """The cells of one table."""

    def __init__(self) -> None:
        self._rows: list[list[str]] = []
        self._has_head = False
        self._cell: list[str] | None = None
        self._above: list[str] = []  # its caption

    def start_row(self) -> None:
        self.end_cell()
        self._rows.append([])

    def start_cell(self, *, is_head: bool) -> None:
        if not self._rows:
            self._rows.append([])
        self._has_head |= is_head and len(self._rows) == 1
        self._cell = []

    def end_cell(self) -> None:
        if self._cell is not None:
            self._rows[-1].append(" ".join(self._cell).replace("|", "\\|"))
            self._cell = None

    def add(self, text: str) -> None:
        (self._above if self._cell is None else self._cell).append(text)

    def render(self) -> str:
        rows = [row for row in self._rows if any(cell.strip() for cell in row)]
        width = max(map(len, rows), default=0)
        above = " ".join(self._above)
        if width <= 1:  # it only places things
            return "\n\n".join([*([above] if above else []), *(row[0].replace("\\|", "|") for row in rows)])
        head, *rest = rows
        if not rest:
            return " ".join([*([above] if above else []), *head])
        lines = [_join_cells(head, width), "|" + "---|" * width, *(_join_cells(row, width) for row in rest)]
        return (f"{above}\n\n" if above else "") + "\n".join(lines)


def _join_cells(cells: list[str], width: int) -> str:
    return "| " + " | ".join([*cells, *[""] * (width - len(cells))]) + " |"


def _find_language(classes: str | None) -> str:
    found = re.search(r"\b(?:language|lang|highlight-source|brush:)[-:]?\s?([\w+#-]{1,30})", classes or "")
    return found[1] if found else ""


def _show_tags(text: str) -> str:
    """The text with tags that a reader is meant to see as code, since Markdown would take them for its own."""
    parts = text.split("`")
    return "`".join(part if at % 2 else _TAG.sub(lambda found: f"`{found[0]}`", part) for at, part in enumerate(parts))
