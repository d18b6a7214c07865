"""Markdown -> the tree that `document.typ` lays out: blocks and words by their kinds (`k`), ready for JSON."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

Node = dict[str, Any]

DEEPEST = 6
"""Lists and quotes within each other; what is deeper is not moved in further."""
MOST_COLUMNS = 24
"""Columns of a table that fit on a page. Of a wider one each row is a paragraph."""
LONGEST_WORD = 50
"""Letters that may stand without a place to break them, or they would run out of their column."""
FOLLOWED = frozenset({"http", "https", "mailto", "tel"})
"""Schemes of links that can be clicked."""
_BREAK = "\u200b"
_LONG = re.compile(rf"[^\s{_BREAK}]{{{LONGEST_WORD + 1},}}")
_INNER = {"strong": "strong", "em": "emph", "s": "strike"}

_MOST_LEVELS = 100
"""What the parser goes into. Blocks that are deeper it leaves out, so a text that comes near is shown as it is written."""
# Without HTML: tags are text.
_PARSER = MarkdownIt("commonmark", {"html": False, "maxNesting": _MOST_LEVELS}).enable(["table", "strikethrough"])


def read_markdown(markdown: str) -> list[Node]:
    """The blocks of a text."""
    text = _clean(markdown)
    tokens = [] if _is_deep(text) else _PARSER.parse(text)
    if not tokens or max(token.level for token in tokens) >= _MOST_LEVELS - 10:
        return [{"k": "code", "text": _breakable(text)}] if text.strip() else []
    return list(_blocks(SyntaxTreeNode(tokens).children, 0))


def clean_line(text: str) -> str:
    """A text in one line, without characters that have no shape."""
    return _breakable(" ".join(_clean(text).split()))


def _is_deep(text: str) -> bool:
    """Whether a line opens more blocks than anybody writes. To parse these takes long."""
    return re.search(rf"(?m)^(?:[ \t]*(?:>|[-*+]|\d+[.)])[ \t]*){{{DEEPEST * 4},}}", text) is not None


def _clean(text: str) -> str:
    # Nothing has a shape for them, and some viewers stop at them.
    return "".join(
        char if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cs", "Co", "Cn") else "\ufffd"
        for char in text.replace("\r\n", "\n").replace("\r", "\n")
    )


def _breakable(text: str) -> str:
    return _LONG.sub(lambda found: _BREAK.join(_pieces(found.group())), text)


def _pieces(word: str) -> Iterator[str]:
    """A word in pieces that may stand in different lines. No piece begins with a mark that belongs to the letter before."""
    start = 0
    for n, char in enumerate(word):
        if n - start >= LONGEST_WORD and not unicodedata.combining(char) and char != "\u200d":
            yield word[start:n]
            start = n
    yield word[start:]


def _blocks(nodes: Sequence[SyntaxTreeNode], depth: int) -> Iterator[Node]:
    for node in nodes:
        match node.type:
            case "heading":
                yield {"k": "heading", "level": int(node.tag[1]), "body": _words(node)}
            case "paragraph":
                yield {"k": "par", "body": _words(node)}
            case "bullet_list" | "ordered_list":
                yield from _list(node, depth)
            case "blockquote":
                inner = list(_blocks(node.children, depth + 1))
                yield from [{"k": "quote", "body": inner}] if depth < DEEPEST else inner
            case "fence" | "code_block":
                yield {"k": "code", "text": _breakable(node.content.rstrip("\n"))}
            case "table":
                yield from _table(node)
            case "hr":
                yield {"k": "rule"}
            case _:
                yield from _blocks(node.children, depth)


def _list(node: SyntaxTreeNode, depth: int) -> Iterator[Node]:
    items = [list(_blocks(item.children, depth + 1)) for item in node.children]
    if depth >= DEEPEST:
        yield from (block for item in items for block in item)
    elif node.type == "bullet_list":
        yield {"k": "list", "items": items}
    else:
        yield {"k": "enum", "start": int(node.attrs.get("start", 1)), "items": items}


def _table(node: SyntaxTreeNode) -> Iterator[Node]:
    rows = [row for part in node.children for row in part.children]
    cells = [[_words(cell) for cell in row.children] for row in rows]
    if len(cells[0]) > MOST_COLUMNS:
        for row in cells:
            joined = [word for cell in row for word in (*cell, {"k": "text", "text": " | "})]
            yield {"k": "par", "body": joined[:-1]}
        return
    align = [_alignment(cell) for cell in rows[0].children]
    yield {"k": "table", "align": align, "head": cells[0], "rows": cells[1:]}


def _alignment(cell: SyntaxTreeNode) -> str:
    return next((side for side in ("right", "center") if side in str(cell.attrs.get("style", ""))), "left")


def _words(node: SyntaxTreeNode) -> list[Node]:
    """What stands in a paragraph, a heading or a cell."""
    return [word for child in node.children for word in _inline(child)]


def _inline(node: SyntaxTreeNode) -> Iterator[Node]:
    match node.type:
        case "text" | "html_inline":
            yield {"k": "text", "text": _breakable(node.content)}
        case "code_inline":
            yield {"k": "mono", "text": _breakable(node.content)}
        case "softbreak":
            yield {"k": "text", "text": " "}
        case "hardbreak":
            yield {"k": "break"}
        case "strong" | "em" | "s":
            yield {"k": _INNER[node.type], "body": _words(node)}
        case "link":
            yield from _link(_words(node), str(node.attrs.get("href", "")))
        case "image":
            yield from _link([{"k": "text", "text": _breakable(node.content)}], str(node.attrs.get("src", "")))
        case _:
            yield from _words(node)


def _link(body: list[Node], address: str) -> Iterator[Node]:
    shown = "".join(word.get("text", "") for word in body)
    beside = [] if shown.replace(_BREAK, "") in (address, address.removeprefix("mailto:")) else [_beside(address)]
    if _is_followed(address):
        yield {"k": "link", "to": address, "body": body or [{"k": "text", "text": _breakable(address)}]}
        yield from beside if body else []
    else:
        yield from (*body, *beside)


def _beside(address: str) -> Node:
    return {"k": "text", "text": f" ({_breakable(address)})"}


def _is_followed(address: str) -> bool:
    try:
        return urlsplit(address).scheme in FOLLOWED
    except ValueError:
        return False
