"""How a tool's result reads: in plain words, whatever the tool gives and whoever wrote what is in it."""

import html
import json
import re
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from pydantic import BaseModel, Field

from agent_server import ToolContext, tool
from agent_server.calls.ledger import OutcomeUnknown
from agent_server.result_templates import render_result
from agent_server.results import tell, tell_failure, tell_result
from agent_server.tool import Tool, collect_mistakes
from agent_server.web.render import render_blocks
from agent_server.wording import count, escape_markdown, one_line, word_date, word_months
from agent_server.workspace import load_workspace
from tests.conftest import ROOT

HOSTILE = st.text(max_size=40) | st.sampled_from(
    [
        "[click](https://evil.example)",
        "![x](https://evil.example/x.png)",
        "https://evil.example/x and http://evil.example",
        "<https://evil.example> <b>bold</b> <script>alert(1)</script>",
        "a|b||c\n| --- | --- |\n| d | e |",
        "# head\n\n> quote\n\n- list\n1. one\n\n```\ncode\n```\n---\n===",
        "*a* **b** _c_ __d__ ~~e~~ `f`",
        "[1] and [2, 3]",
        "\\",
        "&lt;b&gt; &#60;",
        "1) x",
        "- [ ] task",
        "\u202eevil\u2066",
        "a\x00b\x85c\u2028d",
        "---",
        "\ud800",
        "https:",
        "x" * 5_000,
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | HOSTILE,
    lambda inside: (
        st.lists(inside, max_size=6)
        | st.dictionaries(HOSTILE | st.sampled_from(["items", "hits", "title", "name", "due", "months"]), inside)
    ),
    max_leaves=30,
)
ROWS = st.lists(st.fixed_dictionaries({"title": HOSTILE, "due_date": HOSTILE, "done": st.booleans()}), max_size=30)
LONGEST = 25_000

Level = Literal["open_water", "advanced"]


class Diver(BaseModel):
    name: str
    level: Level
    born: Annotated[datetime | None, Field(title="Date of birth")] = None
    best_months: list[int] = []


class Divers(BaseModel):
    divers: list[Diver]
    total: int = 0


@tool(scope="divers:read", effect="read")
async def list_divers(context: ToolContext) -> Divers:
    """List the divers."""
    raise NotImplementedError


@tool(scope="divers:write", effect="stored")
async def add_diver(context: ToolContext) -> Diver:
    """Add a diver."""
    raise NotImplementedError


def links_and_tables(markdown: str) -> tuple[int, list[list[int]]]:
    """How many links, images and pieces of HTML there are, and how many cells the rows of each table have."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown)
    every = [*tokens, *(child for token in tokens for child in token.children or ())]
    tables: list[list[int]] = []
    for token in tokens:
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            tables[-1].append(0)
        elif token.type in ("td_open", "th_open"):
            tables[-1][-1] += 1
    return sum(token.type in ("link_open", "image", "html_inline", "html_block") for token in every), tables


def texts(blocks: list[str]) -> str:
    """What a reader sees of rendered blocks."""
    return html.unescape(re.sub("<[^<>]*>", "", "".join(blocks)))


@given(HOSTILE)
def test_text_of_others_reads_as_it_was_written_and_as_nothing_else(text: str) -> None:
    said = one_line(text)
    for before, after in (("", ""), ("- ", " end"), ("**", "**, end"), ("x ", "y")):
        blocks = render_blocks(f"{before}{escape_markdown(text)}{after}", range(10))
        assert "<a" not in "".join(blocks)
        if said and before != "**":
            assert texts(blocks).split() == f"{before.strip('- ')} {said}{after}".split()


@given(JSON)
def test_any_result_reads_as_bounded_text_without_links_or_html(value: Any) -> None:
    for name, declared in (("gone_tool", None), ("list_divers", list_divers), ("add_diver", add_diver)):
        told = tell_result(name, declared, value)
        assert told
        assert len(told) < LONGEST
        links, tables = links_and_tables(told)
        assert links == 0
        assert all(len(set(cells)) == 1 for cells in tables)
        assert "<a" not in "".join(render_blocks(told, range(10)))


@given(ROWS)
def test_rows_stay_rows_whatever_stands_in_them(rows: list[dict[str, Any]]) -> None:
    told = tell_result("list_things", None, {"items": rows, "next_cursor": None})
    links, tables = links_and_tables(told)
    assert links == 0
    for cells in tables:
        assert (len(cells), len(set(cells))) == (min(len(rows), 20) + 1, 1)


@given(st.text(max_size=300))
def test_a_failure_reads_as_a_sentence(message: str) -> None:
    for error in (f"conflict: {message}", message):
        told = tell_failure("add_diver", add_diver, error)
        assert told[-1] in ".!?"
        assert links_and_tables(told) == (0, [])


def test_a_failure_is_told_to_a_person_and_not_to_the_model_that_made_the_call() -> None:
    for error, sentence in {
        "not_found: There is no diver 'my_ann'; list_divers shows which there are": "There is no diver 'my_ann'.",
        "conflict: there is a task 'milk' already": "There is a task 'milk' already.",
        "not_found: there is no place 'x'; there are Bali and Palau": "There is no place 'x'; there are Bali and Palau.",
        "invalid_input: give a date or clear_due, not both": "Give a date or clear due, not both.",
        "the tool is not there": "The tool is not there.",
    }.items():
        assert tell_failure("add_diver", add_diver, error) == f"That did not work. {sentence}"
    # It may have worked.
    assert tell("add_diver", add_diver, f"outcome_unknown: {OutcomeUnknown('add_diver').message}") == (
        "Add diver was cut off, and nobody knows whether it happened. Please check before you ask for it again."
    )


@given(st.sets(st.integers(1, 12), min_size=1))
def test_months_are_named_in_runs_that_hold_each_month_once(months: set[int]) -> None:
    named = word_months(sorted(months))
    names = [datetime(2026, month, 1, tzinfo=UTC).strftime("%B") for month in range(1, 13)]
    there: list[int] = []
    for run in re.split(", | and ", named) if named != "all year" else ["January to December"]:
        first, _, last = run.partition(" to ")
        at, end = names.index(first), names.index(last or first)
        there += [at + 1] + [(at + n) % 12 + 1 for n in range(1, (end - at) % 12 + 1)]
    assert sorted(there) == sorted(months)


def test_dates_months_words_and_labels_are_those_of_people() -> None:
    assert [word_months(months) for months in ([5, 6, 7, 8, 9, 10], [1, 2, 11, 12], [3, 4], [7], [*range(1, 13)])] == [
        "May to October", "November to February", "March and April", "July", "all year",
    ]  # fmt: skip
    assert [word_date(t) for t in ("2026-03-12", "2026-03-12T16:30:00+02:00", "2026-03-12T14:30:05", "2026-13-01")] == [
        "12 March 2026", "12 March 2026, 14:30 UTC", "12 March 2026, 14:30", "2026-13-01",
    ]  # fmt: skip
    diver = {"id": "7", "name": "Ann", "level": "open_water", "born": "1990-01-02T00:00:00", "best_months": [5, 6, 7]}
    assert tell_result("add_diver", add_diver, diver) == (
        "Done: **Ann**\n\n- Level: open water\n- Date of birth: 2 January 1990, 00:00\n- Best months: May to July"
    )


def test_few_rows_are_a_list_many_a_table_and_what_is_left_out_is_counted() -> None:
    def divers(count: int, total: int = 0) -> str:
        row = {"name": "Ann", "level": "open_water", "born": None, "best_months": [1]}
        return tell_result("list_divers", list_divers, {"divers": [row] * count, "total": total})

    assert divers(0) == "There are none."
    assert divers(2) == "\n".join(["- **Ann** · Level: open water · Best months: January"] * 2)
    assert divers(4).splitlines()[:3] == [
        "| Name | Level | Best months |",
        "| --- | --- | --- |",
        divers(5).splitlines()[2],
    ]
    assert divers(32).endswith("|\n\nAnd 12 more.")
    assert divers(20, total=50).endswith("|\n\nAnd 30 more.")
    assert tell_result("x", None, {"items": [{"title": "A"}], "next_cursor": "b"}).endswith("\n\nThere are more.")
    assert tell_result("x", None, ["red", "blue"]) == "- red\n- blue"


def test_an_object_is_told_in_three_lines_without_what_is_for_programs() -> None:
    site = {
        "id": "0f0e0d0c-0b0a-0908-0706-050403020100",
        "name": "SS Thistlegorm",
        "summary": "A cargo ship with motorcycles, trucks and railway wagons still in her holds, upright on sand.",
        **{f"field_{letter}": letter for letter in "abcdefg"},
        "wrecked": True,
        "owner": None,
        "created_at": "2026-01-01T00:00:00Z",
        "boats": [{"name": "Blue"}, {"name": "Red"}],
    }
    assert tell_result("get_site", None, site) == (
        "**SS Thistlegorm**\n\n"
        "- Summary: A cargo ship with motorcycles, trucks and railway wagons still in her holds, upright on sand.\n"
        "- Field a: a · Field b: b · Field c: c · Field d: d · Field e: e · and 4 more"
    )


def test_a_call_that_waits_reads_as_its_question_also_when_its_tool_is_gone() -> None:
    waits = {"done": False, "confirmation": "0f0e0d0c", "question": 'Delete "Ann"?', "message": "Not done."}
    for declared in (add_diver, None):
        assert tell_result("delete_diver", declared, waits) == 'Delete "Ann"? Nothing has been done yet.'


def test_the_output_of_a_search_reads_the_same_with_numbers_for_an_answer_and_without_for_a_card() -> None:
    hit = {"heading": "Flying", "text": "## Flying\n\n- Wait `12` hours, see [the page](x.md)."}
    stored = {"hits": [{"citation": 3, **hit}]}
    raw = {"hits": [{"id": "a", "document": "safety/flying.md", "title": "Safety", "score": 0.9, **hit}]}
    assert tell("search", None, json.dumps(stored)) == "- **Flying**\n  Wait 12 hours, see the page. [3]"
    assert tell_result("search", None, stored) == tell_result("search", None, raw)


def declare(result: Any) -> list[str]:
    """The mistakes of a tool with this template."""
    with collect_mistakes() as found:

        @tool(scope="divers:read", effect="read", result=result)
        async def show_divers(context: ToolContext) -> Divers:
            """Show the divers."""
            raise NotImplementedError

    assert isinstance(show_divers, Tool)
    assert all((mistake.file, mistake.line) == (__file__, show_divers.line) for mistake in found)
    return [mistake.message.removeprefix("tool show_divers: result: ") for mistake in found]


@pytest.mark.parametrize(
    ("template", "mistakes"),
    [
        ("{{ total }}", []),
        ("{% for d in divers %}{{ loop.index }} {{ d.name }} {{ d.born | date }}{% else %}{{ result }}{% endfor %}", []),
        ("{% set first = divers | first %}{{ first.best_months | months }}{{ divers[0]['level'] | words }}", []),
        ("{% for d in divers[:3] | sort(attribute='name') %}{{ d.name if d.born else total }}{% endfor %}", []),
        (
            "x\n{{ totl }}",
            ["line 2 of the template: the result has no field 'totl'; there are divers, result, total"],
        ),
        (
            "{% for d in divers %}\n{{ d.nam }}\n{% endfor %}",
            ["line 2 of the template: there is no field 'nam' here; there are best_months, born, level, name"],
        ),
        ("{% if not divers[0].nam %}x{% endif %}", ["line 1 of the template: there is no field 'nam' here; there are best_months, born, level, name"]),
        ("{{ total.x }}", ["line 1 of the template: there is no field 'x' here; it has none"]),
        ("{% for d in divers %}{% endfor %}{{ d }}", ["line 1 of the template: the result has no field 'd'; there are divers, result, total"]),
        ("{{ divers | table }}", ["line 1 of the template: No filter named 'table'. Beside Jinja's own there are date, months, words, short."]),
        ("{{ divers.append(1) }}", ["line 1 of the template: nothing can be called here; use a filter, as in {{ due | date }}"]),
        ("{% macro m() %}{% endmacro %}", ["line 1 of the template: {% macro %} cannot be used here; there are {{ }}, if, for and set"]),
        ("{% if %}", ["line 1 of the template: Expected an expression, got 'end of statement block'"]),
        (7, ['tool show_divers: result must be text in quotation marks, as in result="**{{ title }}** is on the list."']),
    ],
)  # fmt: skip
def test_a_template_is_checked_against_the_return_type_when_it_is_loaded(template: Any, mistakes: list[str]) -> None:
    assert declare(template) == mistakes


@given(st.sampled_from(["divers", "total", "result"]) | st.from_regex("[a-z]{1,8}", fullmatch=True))
def test_a_template_may_use_the_fields_that_there_are_and_no_others(name: str) -> None:
    if name not in ("if", "not", "and", "or", "in", "is", "else", "true", "false", "none"):
        assert bool(declare(f"{{{{ {name} }}}}")) == (name not in ("divers", "total", "result"))


class Page(BaseModel):
    title: str
    texts: list[str]
    due: str | None = None


@tool(
    scope="pages:read",
    effect="read",
    result="""
    **{{ title }}**{% if due %}, by {{ due | date }}{% endif %}

    | Number | Text |
    | --- | --- |
    {% for text in texts %}
    | {{ loop.index }} | {{ text }} |
    {% endfor %}
    """,
)
async def read_texts(context: ToolContext) -> Page:
    """Read texts."""
    raise NotImplementedError


@given(HOSTILE, st.lists(HOSTILE, max_size=400))
def test_what_a_template_says_of_data_is_escaped_and_bounded(title: str, lines: list[str]) -> None:
    told = tell_result("read_texts", read_texts, {"title": title, "texts": lines, "due": "2026-03-12"})
    links, tables = links_and_tables(told)
    assert links == 0
    assert len(tables) == 1
    assert set(tables[0]) == {2}
    assert len(told) < 9_000
    if one_line(title):
        assert "by 12 March 2026" in told


def test_a_line_that_is_only_a_tag_leaves_no_line() -> None:
    assert tell_result("read_texts", read_texts, {"title": "A", "texts": ["x", "y"], "due": None}) == (
        "**A**\n\n| Number | Text |\n| --- | --- |\n| 1 | x |\n| 2 | y |"
    )


def test_where_a_template_fails_the_result_reads_as_without_one() -> None:
    # Stored before the tool had the field.
    assert tell_result("read_texts", read_texts, {"title": "A"}) == "**A**"
    assert tell_result("read_texts", read_texts, {"title": "A", "texts": 7}) == "**A**\n\n- Texts: 7"
    assert tell_result("read_texts", read_texts, ["x"]) == "- x"


def results(schema: dict[str, Any], whole: dict[str, Any]) -> st.SearchStrategy[Any]:
    """What a schema allows, with hostile texts where it allows any."""
    if "$ref" in schema:
        return results(whole["$defs"][schema["$ref"].rpartition("/")[2]], whole)
    if "anyOf" in schema:
        return st.one_of([results(part, whole) for part in schema["anyOf"]])
    if "const" in schema or "enum" in schema:
        return st.sampled_from(schema.get("enum") or [schema["const"]])
    match schema:
        case {"type": "object", "properties": properties}:
            return st.fixed_dictionaries({name: results(part, whole) for name, part in properties.items()})
        case {"type": "object", "additionalProperties": dict() as part}:
            return st.dictionaries(HOSTILE, results(part, whole), max_size=5)
        case {"type": "array", "items": part}:
            return st.lists(results(part, whole), max_size=6)
        case {"type": "string", "format": "date"}:
            return st.dates().map(str)
        case {"type": "string", "format": "date-time"}:
            return st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat)
        case {"type": "string"}:
            return HOSTILE
        case {"type": "integer"}:
            return st.integers(0, 40)
        case {"type": "number"}:
            return st.floats(-180, 180)
        case {"type": "boolean"}:
            return st.booleans()
        case {"type": "null"}:
            return st.none()
        case _:
            return JSON


@cache
def reference_tools() -> list[Tool[..., Any]]:
    return [tool for tool in load_workspace(ROOT).tools.values() if tool.result]


@given(st.data())
def test_the_templates_of_the_reference_tools_tell_whatever_their_types_allow(data: st.DataObject) -> None:
    declared = data.draw(st.sampled_from(reference_tools()))
    value = data.draw(results(declared.output_schema, declared.output_schema))
    told = render_result(declared.result, value)
    assert told
    links, tables = links_and_tables(told)
    assert links == 0
    assert all(len(set(cells)) == 1 for cells in tables)


def test_one_is_not_counted_as_many() -> None:
    assert [count(n, "mistake") for n in (0, 1, 2)] == ["0 mistakes", "1 mistake", "2 mistakes"]
    assert [count(n, "page", ("is", "are")) for n in (1, 3)] == ["1 page is", "3 pages are"]
