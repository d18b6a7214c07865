"""What a model wrote becomes HTML that can do no harm, the same whether it came whole or in pieces."""

import re
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from time import process_time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from inline_snapshot import snapshot

from agent_server.web.render import BlockRenderer, render_blocks


def test_each_top_level_block_is_one_piece_of_html() -> None:
    assert render_blocks("# Ascent\n\nSlow: **9 m/min**.\n\n1. stop\n2. wait\n\n> ~~never~~ rush") == snapshot(
        [
            "<h3>Ascent</h3>",
            "<p>Slow: <strong>9 m/min</strong>.</p>",
            """\
<ol>
<li>stop</li>
<li>wait</li>
</ol>\
""",
            """\
<blockquote>
<p><s>never</s> rush</p>
</blockquote>\
""",
        ]
    )


def test_table_is_aligned_by_class_and_scrolls_in_its_own_box() -> None:
    assert render_blocks("| m | bar |\n|--:|:-:|\n| 10 | 2 |") == snapshot(
        [
            """\
<div class="table"><table>
<thead>
<tr>
<th class="right">m</th>
<th class="center">bar</th>
</tr>
</thead>
<tbody>
<tr>
<td class="right">10</td>
<td class="center">2</td>
</tr>
</tbody>
</table>
</div>\
"""
        ]
    )


def test_code_is_highlighted_with_classes_and_keeps_its_blank_lines() -> None:
    assert render_blocks("```python\n\nx = '[1]'\n\n```", {1}) == snapshot(
        [
            """\
<pre><code class="language-python">
<span class="n">x</span> <span class="o">=</span> <span class="s1">'[1]'</span>

</code></pre>\
"""
        ]
    )


def test_unknown_language_is_shown_plain() -> None:
    assert render_blocks('```weird"><b>\n1 < 2\n```') == snapshot(
        ['<pre><code class="language-weirdb">1 &lt; 2\n</code></pre>']
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("so [1].", '<p>so <a class="cite" href="#cite-1">[1]</a>.</p>'),
        ("[1, 2]", '<p><a class="cite" href="#cite-1">[1]</a><a class="cite" href="#cite-2">[2]</a></p>'),
        ("[1][2]", '<p><a class="cite" href="#cite-1">[1]</a><a class="cite" href="#cite-2">[2]</a></p>'),
        ("[1, 9]", '<p><a class="cite" href="#cite-1">[1]</a>[9]</p>'),
        ("![1]", '<p>!<a class="cite" href="#cite-1">[1]</a></p>'),
        ("[1]: x", '<p><a class="cite" href="#cite-1">[1]</a>: x</p>'),
        ("[9]", "<p>[9]</p>"),
        ("`[1]`", "<p><code>[1]</code></p>"),
        ("    [1]", "<pre><code>[1]\n</code></pre>"),
        ("[1](http://a.b)", '<p><a href="http://a.b" rel="noopener nofollow" target="_blank">1</a></p>'),
    ],
)
def test_citation_is_a_link_where_its_number_is_known(text: str, shown: str) -> None:
    assert render_blocks(text, {1, 2}) == [shown]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[a](https://a.b 'T')", '<a href="https://a.b" title="T" rel="noopener nofollow" target="_blank">a</a>'),
        ("<me@a.b>", '<a href="mailto:me@a.b" rel="noopener nofollow" target="_blank">me@a.b</a>'),
        ("(https://a.b/c).", '(<a href="https://a.b/c" rel="noopener nofollow" target="_blank">https://a.b/c</a>).'),
        ("![seen](https://a.b/c.png)", '<a href="https://a.b/c.png" rel="noopener nofollow" target="_blank">seen</a>'),
    ],
)
def test_link_opens_elsewhere_and_an_image_is_only_a_link(text: str, shown: str) -> None:
    assert render_blocks(text) == [f"<p>{shown}</p>"]


DONE = '<input type="checkbox" disabled="" checked="" aria-label="Done">'
OPEN = '<input type="checkbox" disabled="" aria-label="Not done">'


@pytest.mark.parametrize(
    ("item", "shown"),
    [
        ("[ ] buy fins", f'<li class="task">{OPEN} buy fins</li>'),
        ("[x] buy fins", f'<li class="task">{DONE} buy fins</li>'),
        ("[X] **buy** `fins`", f'<li class="task">{DONE} <strong>buy</strong> <code>fins</code></li>'),
        ("[ ] see [1]", f'<li class="task">{OPEN} see <a class="cite" href="#cite-1">[1]</a></li>'),
        ("[ ]", "<li>[ ]</li>"),
        ("[x]y", "<li>[x]y</li>"),
        ("buy [ ] fins", "<li>buy [ ] fins</li>"),
        (r"\[ ] fins", "<li>[ ] fins</li>"),
        ("`[ ] fins`", "<li><code>[ ] fins</code></li>"),
    ],
)
def test_item_of_a_task_list_has_a_box_that_nobody_can_tick(item: str, shown: str) -> None:
    for mark, tag in (("-", "ul"), ("1.", "ol")):
        assert render_blocks(f"{mark} {item}", {1}) == [f"<{tag}>\n{shown}\n</{tag}>"]
    assert "<input" not in render_blocks(item, {1})[0]


class _Inspector(HTMLParser):
    """Collects what a browser would act on."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.addresses: set[str] = set()
        self.inputs: set[str | None] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.addresses |= {value or "" for name, value in attrs if name == "href"}
        if tag == "input":
            self.inputs |= {dict(attrs).get("type"), *({"active"} if "disabled" not in dict(attrs) else ())}


HARMLESS_TAGS = {
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
} | {"span", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul"}


ATTRIBUTES = {"href", "title", "class", "rel", "target", "start", "type", "disabled", "checked", "aria-label"}


def harm(blocks: list[str]) -> object:
    inspector = _Inspector()
    inspector.feed("".join(blocks))
    return (
        inspector.tags - HARMLESS_TAGS
        or inspector.attributes - ATTRIBUTES
        or inspector.inputs - {"checkbox"}
        or {a for a in inspector.addresses if not re.match(r"https?://|https?:|mailto:|#cite-\d{1,3}$", a, re.I)}
    )


@pytest.mark.parametrize(
    "text",
    [
        "<img src=x onerror=alert(1)>",
        "<script>alert(1)</script>",
        "<div>\n<iframe src=//evil>\n</div>",
        "<!-- <b> -->",
        "a <b onclick=alert(1)>b</b>",
        "[a](javascript:alert(1))",
        "[a](JaVaScRiPt&colon;alert(1))",
        "[a](\x01javascript:alert(1))",
        "<javascript:alert(1)>",
        "[a](data:text/html,<script>alert(1)</script>)",
        "[a](data:image/svg+xml;base64,PHN2Zz4=)",
        "[a](vbscript:x) [b](file:///etc/passwd) [c](//evil) [d](/api/logout) [e](#form)",
        '[a](https://a.b "\\" onmouseover=alert(1) x=\\"")',
        "![a](javascript:alert(1)) ![b](https://a.b/\"onerror='x')",
        '```"onload=alert(1)\nx\n```',
        "[x]: javascript:alert(1)\n\n[x]",
        "https://a.b/\"onmouseover='alert(1)'",
        "[1](#cite-1){onclick=x}",
    ],
)
def test_nothing_a_model_writes_can_act(text: str) -> None:
    assert not harm(render_blocks(text, {1}))


@pytest.fixture(scope="module")
def plain() -> float:
    """What plain text costs, of which the cheapest of several counts."""
    return min(
        _cost(lambda: render_blocks("a word of *text* with `code` in it, and a line end\n" * 380)) for _ in range(3)
    )


@pytest.mark.parametrize(
    "piece", ["[", "![[", "[a](", "<a ", "*a_", "**a *b ", ":", "&", "`", "~~a", "[1,", "|-", "\\"]
)
def test_hostile_text_costs_no_more_than_plain_text(plain: float, piece: str) -> None:
    assert (
        _cost(lambda: render_blocks(piece * (19_000 // len(piece)), {1})) < 40 * plain
    )  # 7, and 130 without the limits


def test_a_table_of_many_columns_costs_no_more_than_plain_text(plain: float) -> None:
    table = f"{'|a' * 1000}\n{'|-' * 1000}\n" + "x\n" * 1000
    assert _cost(lambda: render_blocks(table)) < 40 * plain


def test_only_blocks_that_changed_are_sent_again() -> None:
    renderer = BlockRenderer()
    assert renderer.feed("one\n\ntw") == snapshot([(0, "<p>one</p>"), (1, "<p>tw</p>")])
    assert renderer.feed("one\n\ntwo\n\nthree") == snapshot([(1, "<p>two</p>"), (2, "<p>three</p>")])
    assert renderer.feed("one\n\ntwo\n\nthree\n\n") == snapshot([])


def test_a_block_that_joins_the_one_before_is_sent_as_gone() -> None:
    renderer = BlockRenderer()
    renderer.feed("1. a\n\n2")
    assert renderer.feed("1. a\n\n2. b") == snapshot(
        [(0, "<ol>\n<li>\n<p>a</p>\n</li>\n<li>\n<p>b</p>\n</li>\n</ol>"), (1, "")]
    )


def test_source_that_becomes_known_later_links_what_was_written_before() -> None:
    renderer, text = BlockRenderer(), "a [1]\n\nb\n\nc\n\nd"
    renderer.feed(text)
    assert renderer.feed(text, {1}) == snapshot([(0, '<p>a <a class="cite" href="#cite-1">[1]</a></p>')])


def test_long_answer_is_not_parsed_again_from_its_start() -> None:
    renderer, text = BlockRenderer(), "A sentence with **weight**.\n\n" * 400
    whole = _cost(lambda: renderer.feed(text))

    def go_on() -> None:
        for i in range(100):
            renderer.feed(text + "word " * i)

    assert _cost(go_on) < 30 * whole  # 100 when parsed from its start


def _cost(work: Callable[[], object]) -> float:
    """The time of the processor that it takes, seconds."""
    start = process_time()
    work()
    return process_time() - start


BLOCKS = [
    "- ",
    "- [ ] ",
    "1. [x] ",
    "* ",
    "1. ",
    "2. ",
    "# ",
    "> ",
    "```",
    "```py\n",
    "~~~\n",
    "---",
    "===",
    "|a|b|\n",
    "|-|-|\n",
    "|--",
]
INLINES = ["[1]", "[2, 3]", "](x)", "![", "**", "~~", "<b>", "&amp;", "[a]: /u\n", "http", "://a.b/", "<http://e.f>"]
CHARACTERS = [*"\n\r\t a1.)(|[]`_*\\&<-+:é\x00\u2028\x0b\ud800"]
WHITESPACE = ["\n\n", "\r\n", "  ", "    ", "<div>\n", "<!--"]
MARKDOWN = st.lists(st.sampled_from(BLOCKS + INLINES + CHARACTERS + WHITESPACE), max_size=30).map("".join)


@given(st.lists(st.tuples(MARKDOWN, st.sets(st.integers(1, 3))), max_size=6))
@example([("a\n|a|b|\n|-", set()), ("|-|\n", set())])
@example([("- a\n\n ", set()), (" b", {1})])
@example([("a\r", set()), ("", set()), ("\n\nb", set())])
def test_text_in_pieces_ends_as_the_whole_text_does(pieces: list[tuple[str, set[int]]]) -> None:
    renderer, shown, text = BlockRenderer(), dict[int, str](), ""
    for piece, known in pieces:
        text += piece
        shown |= dict(renderer.feed(text, known))
        assert [html for _, html in sorted(shown.items()) if html] == render_blocks(text, known)


@given(MARKDOWN, st.integers(1, 7))
def test_every_step_of_a_stream_shows_what_has_come_so_far(text: str, step: int) -> None:
    renderer, shown = BlockRenderer(), dict[int, str]()
    for end in range(step, len(text) + step, step):
        shown |= dict(renderer.feed(text[:end], {1, 2}))
        assert [html for _, html in sorted(shown.items()) if html] == render_blocks(text[:end], {1, 2})


@given(st.text() | MARKDOWN)
def test_any_text_at_all_is_harmless(text: str) -> None:
    assert not harm(render_blocks(text, {1, 2}))


CODE = st.sampled_from(["py", "java", "c", "csharp", "ts", "markdown", "ini", "html", "diff", "sql", "rust", "console"])


@settings(deadline=None, max_examples=25)
@given(CODE, st.text(alphabet="ab01 \n\r\"'`#/*<>=-+.(){}[]\\$@", min_size=1, max_size=4))
def test_code_of_any_language_costs_in_proportion_to_its_length(language: str, piece: str) -> None:
    def cost(length: int) -> float:
        start = process_time()
        render_blocks(f"```{language}\n{piece * (length // len(piece))}\n```")
        return process_time() - start

    # Sixteen times as much with four times the text is a square; the rest is for a busy machine.
    assert cost(16_000) < 8 * cost(4_000) + 0.2


@pytest.mark.parametrize(
    "piece", ["- a\n", "1. a\n", "- [ ] a\n", "> a\n", "# a\n", "a\n", "a\n\n", "    a\n", "| a\n"]
)
def test_lines_of_any_kind_take_steps_in_proportion_to_their_number(piece: str) -> None:
    def steps(lines: int) -> int:
        """The functions that are called: their number is the same on every machine."""
        called = 0

        def count(_frame: object, event: str, _argument: object) -> None:
            nonlocal called
            called += event in ("call", "c_call")

        before = sys.getprofile()
        sys.setprofile(count)
        try:
            render_blocks(piece * lines)
        finally:
            sys.setprofile(before)
        return called

    assert steps(400) < 5 * steps(100)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(MARKDOWN, st.sets(st.integers(1, 2))), max_size=8), st.integers(0, 8), st.integers(1, 60))
def test_who_has_the_beginning_gets_the_rest_as_whoever_saw_all(
    pieces: list[tuple[str, set[int]]], seen: int, times: int
) -> None:
    whole, rest, text = BlockRenderer(), BlockRenderer(), ""
    for number, (piece, known) in enumerate(pieces):
        text += piece * times
        sent = whole.feed(text, known)
        if number < seen:
            rest.pass_over(text, known)
        else:
            assert rest.feed(text, known) == sent
    assert rest.feed(text, {1}, whole=True) == whole.feed(text, {1}, whole=True)
    shown = dict(BlockRenderer().feed(text, {1}))
    assert list(shown.values()) == render_blocks(text, {1})


def test_a_long_block_is_sent_a_few_times_its_length() -> None:
    code = "```java\n" + "a a a\n" * 2_000
    renderer, sent = BlockRenderer(), 0
    for end in range(0, len(code), 24):
        sent += sum(len(html) for _, html in renderer.feed(code[:end]))
    sent += sum(len(html) for _, html in renderer.feed(code, whole=True))
    assert sent < 15 * sum(map(len, render_blocks(code)))


@pytest.mark.parametrize("columns", [2, 20, 40])
def test_a_table_is_not_filled_up_to_many_times_its_text(columns: int) -> None:
    text = "| a " * columns + "|\n" + "|---" * columns + "|\n" + "b\n" * 800
    html = "".join(render_blocks(text))
    assert len(html) < 100 * len(text)
    assert html.count("<td") <= 500 + columns * 2
