"""Markdown of an answer -> sanitised HTML with one string per top-level block.

Two walls: the parser never passes HTML through, and nh3 keeps only what is on the list below. The page may therefore
put the result into its document as it is.
"""

import re
from collections.abc import Collection, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from markdown_it.renderer import RendererHTML
from markdown_it.rules_block import StateBlock, table
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from markdown_it.utils import OptionsDict

if TYPE_CHECKING:
    import nh3

_CITATION = re.compile(r"\[(\d{1,3}(?:\s*,\s*\d{1,3})*)\]")
_URL = re.compile(r"://[^\s<>\"'`\[\]]*[^\s<>\"'`\[\](){}.,;:!?*_~|]")
_SCHEME = re.compile(r"(?<![\w./-])https?$")
_TASK = re.compile(r"\[([ xX])\][ \t]+")
_SURROGATE = re.compile("[\ud800-\udfff]")

# The parser takes quadratic time on some texts (12 s for 20,000 brackets): beyond what a person would write in one
# paragraph or table, it is shown as plain text.
_LONGEST_INLINE = 20_000
_COSTLY = ("[", "<", "&", "://")
_MOST_MARKS = 500
_MOST_COLUMNS = 40
_MOST_EMPTY_CELLS = 500

_SHORT, _GROWTH = 500, 8
"""A block of so many characters is rendered at each step, a longer one when it has grown by this part of the rest."""


@cache
def _sanitiser() -> "nh3.Cleaner":
    import nh3  # noqa: PLC0415  # heavy

    return nh3.Cleaner(
        tags={
            "a",
            "blockquote",
            "br",
            "code",
            "div",
            "em",
            "h3",
            "h4",
            "h5",
            "h6",
            "hr",
            "input",
            "li",
            "ol",
            "p",
            "pre",
            "s",
            "span",
        }
        | {"strong", "table", "tbody", "td", "th", "thead", "tr", "ul"},
        attributes={
            "a": {"href", "class", "title"},
            "code": {"class"},
            "div": {"class"},
            "li": {"class"},
            "ol": {"start"},
            "pre": {"class"},
            "span": {"class"},
            "td": {"class"},
            "th": {"class"},
        },
        tag_attribute_values={
            "a": {"rel": {"noopener nofollow"}, "target": {"_blank"}},
            "input": {"type": {"checkbox"}, "disabled": {""}, "checked": {""}, "aria-label": {"Done", "Not done"}},
        },
        url_schemes={"http", "https", "mailto"},
        url_relative=lambda url: url if re.fullmatch(r"#cite-\d{1,3}", url) else None,
        link_rel=None,
    )


class _Block(NamedTuple):
    """A top-level block. It has its tokens and the lines it covers, `end` exclusive."""

    tokens: Sequence[Token]
    start: int
    end: int


def render_blocks(text: str, citations: Collection[int] = ()) -> list[str]:
    """HTML of each top-level block. `[n]` becomes `<a class="cite" href="#cite-n">` for the n in `citations`."""
    known = frozenset(citations)
    return [_render(block, known) for block in _parse(_clean_characters(text), known)]


class BlockRenderer:
    """The same for a text that grows. It is parsed again only from the last block that can still change.

    That block is rendered again when it has grown by an eighth, so that all renderings of a long one together have a
    few times its length. What is rendered depends on the texts that were fed, not on when or on who has seen it.
    """

    def __init__(self) -> None:
        self._text = ""
        self._citations: frozenset[int] = frozenset()
        self._html: list[str] | None = []  # of `_text`; None where nobody has asked for it
        self._settled = 0  # so many blocks are final; the text of the next one starts at `_offset`
        self._offset = 0

    def feed(self, text: str, citations: Collection[int] = (), *, whole: bool = False) -> list[tuple[int, str]]:
        """Take the text so far and get the blocks that differ from before as (index, html), "" for one gone.

        Of a text that will go on there may be nothing yet; `whole` says that this is all of it.
        """
        before = self._render_known()
        if not self._is_due(text, citations, whole):
            return []
        known = self._take(text, citations)
        blocks = _parse(self._text[self._offset :], known)
        after = before[: self._settled] + [_render(block, known) for block in blocks]
        self._html = after
        self._settle(blocks)
        changed = [(i, html) for i, html in enumerate(after) if i >= len(before) or before[i] != html]
        return changed + [(i, "") for i in range(len(after), len(before))]

    def pass_over(self, text: str, citations: Collection[int] = ()) -> None:
        """Take the text so far as `feed` does, for somebody who has its blocks already."""
        if self._is_due(text, citations, whole=False):
            known = self._take(text, citations)
            self._html = None
            self._settle(_parse(self._text[self._offset :], known, _OUTLINE))

    def _is_due(self, text: str, citations: Collection[int], whole: bool) -> bool:
        unsettled = len(self._text) - self._offset
        grown = len(text) - len(self._text)
        return whole or frozenset(citations) != self._citations or grown * _GROWTH >= unsettled - _SHORT

    def _take(self, text: str, citations: Collection[int]) -> frozenset[int]:
        text, known = _clean_characters(text), frozenset(citations)
        if known != self._citations or not text.startswith(self._text):
            self._settled = self._offset = 0
        self._text, self._citations = text, known
        return known

    def _render_known(self) -> list[str]:
        if self._html is None:
            self._html = [_render(block, self._citations) for block in _parse(self._text, self._citations)]
        return self._html

    def _settle(self, blocks: Sequence[_Block]) -> None:
        """All blocks on finished lines are final except the last. What follows may still join that one."""
        unsettled = self._text[self._offset :]
        whole = [block for block in blocks if block.end <= unsettled.count("\n")]
        if len(whole) > 1:
            self._settled += len(whole) - 1
            self._offset += sum(len(line) + 1 for line in unsettled.split("\n")[: whole[-1].start])


def _clean_characters(text: str) -> str:
    """Line ends as "\\n" and no half surrogate pairs. These cannot be encoded."""
    return _SURROGATE.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))


def _parse(text: str, citations: frozenset[int], parser: MarkdownIt | None = None) -> list[_Block]:
    blocks: list[_Block] = []
    first, depth = 0, 0
    tokens = (parser or _MARKDOWN).parse(text, {"citations": citations})
    for i, token in enumerate(tokens):
        depth += token.nesting
        if depth == 0:
            start, end = tokens[first].map or (0, 0)
            blocks.append(_Block(tokens[first : i + 1], start, end))
            first = i + 1
    return blocks


def _render(block: _Block, citations: frozenset[int]) -> str:
    html: str = _MARKDOWN.renderer.render(block.tokens, _MARKDOWN.options, {"citations": citations})
    return _sanitiser().clean(html).strip()


def _citation_rule(state: StateInline, silent: bool) -> bool:
    """`[1]` and `[1, 2]` if at least one of the numbers is known. The others stay text."""
    match = _CITATION.match(state.src, state.pos, state.posMax)
    if not match:
        return False
    numbers = [int(number) for number in match[1].split(",")]
    if not any(number in state.env["citations"] for number in numbers):
        return False
    if not silent:
        state.push("citation", "", 0).meta = {"numbers": numbers}
    state.pos = match.end()
    return True


def _url_rule(state: StateInline, silent: bool) -> bool:
    """A bare address that is met at its colon. The text before it has been read already."""
    # Eight characters hold `https` and what may stand before it. To search all of a long text at each colon is slow.
    scheme = None if silent or state.linkLevel else _SCHEME.search(state.pending[-8:])
    match = scheme and _URL.match(state.src, state.pos, state.posMax)
    if not scheme or not match:
        return False
    address = scheme[0] + match[0]
    href = state.md.normalizeLink(address)
    if not state.md.validateLink(href):
        return False
    state.pending = state.pending.removesuffix(scheme[0])
    state.push("link_open", "a", 1).attrs = {"href": href}
    state.push("text", "", 0).content = address
    state.push("link_close", "a", -1)
    state.pos = match.end()
    return True


def _plain_rule(state: StateCore) -> None:
    """Run before the inline parser. That skips what is not of type `inline`."""
    for token in state.tokens:
        if token.type == "inline" and (
            len(token.content) > _LONGEST_INLINE or sum(map(token.content.count, _COSTLY)) > _MOST_MARKS
        ):
            token.type = "text"


def _task_rule(state: StateCore) -> None:
    """`- [ ] to do` and `- [x] done` as items with a box. It runs when neighbouring texts are joined."""
    for item, _, inline in zip(state.tokens, state.tokens[1:], state.tokens[2:], strict=False):
        if item.type != "list_item_open" or inline.type != "inline" or not inline.children:
            continue
        first = inline.children[0]
        # Of the source, so that an escaped bracket is none, and with something to be done after it.
        box = _TASK.match(inline.content)
        if box is None or first.type != "text" or not inline.content[box.end() :]:
            continue
        first.content = first.content[box.end() :]
        inline.children.insert(0, Token("task", "input", 0, meta={"done": box[1] != " "}))
        item.attrJoin("class", "task")


def _table_rule(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    columns = state.src.count("|", state.bMarks[start], state.eMarks[start])
    # What is no table goes no further: to look through all that follows each item of a list would take quadratic time.
    if columns > _MOST_COLUMNS or not table(state, start, end, True):
        return False
    # The parser fills each row up to the header's columns: a line of one character would be forty cells.
    empty = 0
    for line in range(start + 2, end):
        if state.isEmpty(line):
            break
        empty += columns - state.src.count("|", state.bMarks[line], state.eMarks[line])
        if empty > _MOST_EMPTY_CELLS:
            return False
    return table(state, start, end, silent)


def _citation(_: RendererHTML, tokens: Sequence[Token], idx: int, _options: OptionsDict, env: Any) -> str:
    return "".join(
        f'<a class="cite" href="#cite-{number}">[{number}]</a>' if number in env["citations"] else f"[{number}]"
        for number in tokens[idx].meta["numbers"]
    )


def _task(_: RendererHTML, tokens: Sequence[Token], idx: int, _options: OptionsDict, _env: Any) -> str:
    done = tokens[idx].meta["done"]
    return (
        f'<input type="checkbox" disabled{" checked" if done else ""} aria-label="{"Done" if done else "Not done"}"> '
    )


def _code(_: RendererHTML, tokens: Sequence[Token], idx: int, _options: OptionsDict, _env: Any) -> str:
    """A fence or an indented block. The latter has no language."""
    code = tokens[idx].content
    language = re.sub(r"[^\w+#-]", "", tokens[idx].info.strip().split(" ")[0].lower())[:20]
    from agent_server.web.code import highlight_code  # noqa: PLC0415  # heavy

    html = highlight_code(code, language)
    html = escapeHtml(code) if html is None else html
    name = f' class="language-{escapeHtml(language)}"' if language else ""
    return f"<pre><code{name}>{html}</code></pre>\n"


def _image(renderer: RendererHTML, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Any) -> str:
    # A link and no image: to load one would tell a stranger's server what was asked.
    address = escapeHtml(str(tokens[idx].attrs["src"]))
    alt = renderer.renderInlineAsText(tokens[idx].children or [], options, env)
    return f'<a href="{address}" rel="noopener nofollow" target="_blank">{escapeHtml(alt) or address}</a>'


def _link(renderer: RendererHTML, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Any) -> str:
    tokens[idx].attrs |= {"rel": "noopener nofollow", "target": "_blank"}
    return renderer.renderToken(tokens, idx, options, env)


def _heading(renderer: RendererHTML, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Any) -> str:
    """An answer stands below the page's two levels of headings."""
    tokens[idx].tag = f"h{min(6, int(tokens[idx].tag[1]) + 2)}"
    return renderer.renderToken(tokens, idx, options, env)


def _table(renderer: RendererHTML, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Any) -> str:
    """A table in a box of its own."""
    # A wide table scrolls in its box, and not the whole page.
    html = renderer.renderToken(tokens, idx, options, env)
    return f'<div class="table">{html}' if tokens[idx].nesting == 1 else f"{html}</div>"


def _cell(renderer: RendererHTML, tokens: Sequence[Token], idx: int, options: OptionsDict, env: Any) -> str:
    """A cell that is aligned by its class."""
    # The parser writes a style attribute, which the page's policy forbids.
    if style := tokens[idx].attrs.pop("style", None):
        tokens[idx].attrs["class"] = str(style).removeprefix("text-align:")
    return renderer.renderToken(tokens, idx, options, env)


def _markdown() -> MarkdownIt:
    markdown = MarkdownIt("commonmark", {"html": False})
    # Without references `[1]: x` cannot take the place of a citation, and text that is added at the end never changes
    # a block further up, on which `BlockRenderer` relies.
    markdown.enable(["table", "strikethrough"]).disable(["reference", "html_block", "html_inline"])
    markdown.core.ruler.before("inline", "plain", _plain_rule)
    markdown.core.ruler.after("text_join", "task", _task_rule)
    markdown.block.ruler.at("table", _table_rule, {"alt": ["paragraph", "reference"]})
    markdown.inline.ruler.after("link", "citation", _citation_rule)
    markdown.inline.ruler.after("text", "url", _url_rule)
    for name, rule in {
        "citation": _citation,
        "code_block": _code,
        "fence": _code,
        "heading_close": _heading,
        "heading_open": _heading,
        "image": _image,
        "link_open": _link,
        "task": _task,
        "table_close": _table,
        "table_open": _table,
        "td_open": _cell,
        "th_open": _cell,
    }.items():
        markdown.add_render_rule(name, rule)
    return markdown


_MARKDOWN = _markdown()
# Finds the blocks and reads nothing in them.
_OUTLINE = _markdown()
_OUTLINE.core.ruler.enableOnly(["normalize", "block"])
