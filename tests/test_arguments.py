"""Arguments as models and clients write them mean what they would mean written as the schema has them."""

import importlib
import json
from datetime import date
from typing import Any, Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from agent_server import ToolContext, tool
from agent_server.api.tools import inline_definitions
from agent_server.arguments import allow_nulls
from agent_server.bodies import DEPTH_LIMIT
from agent_server.errors import InvalidInput
from agent_server.tool import Tool


class Size(BaseModel):
    """A size."""

    width: int = 1
    tags: list[str] = []


class Filter(BaseModel):
    """A filter."""

    color: Literal["red", "blue"] = "red"
    sizes: list[Size] = []
    inner: "Filter | None" = None


@tool(scope="probe:read", effect="read")
async def take(
    context: ToolContext,
    number: int = 7,
    share: float = 0.5,
    sure: bool = False,
    numbers: list[int] = [7],  # noqa: B006
    words: list[str] = [],  # noqa: B006
    counts: dict[str, int] = {},  # noqa: B006
    filter: Filter | None = None,
    filters: list[Filter] = [],  # noqa: B006
    size: Size = Size(),  # noqa: B008
    named: dict[str, Size] = {},  # noqa: B006
    either: list[int] | dict[str, int] = [],  # noqa: B006
    level: Literal[1, 2] = 1,
    some: int | None = 7,
    few: set[int] = set(),  # noqa: B006
    text: str = "",
    mixed: str | list[str] = "",
    day: date | None = None,
    kind: Literal["a", "1", "[]"] = "a",
    at_most: int | str = Field(default=1),
) -> None:
    """Take anything."""


Draft202012Validator: Any = importlib.import_module("jsonschema").Draft202012Validator  # it has no types
TEXT_PARAMETERS = ("text", "mixed", "kind", "at_most", "day")
OTHERS = sorted(set(take.arguments.model_fields) - {*TEXT_PARAMETERS})
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)
SPELLED = st.sampled_from(["1", "[1]", '{"a": 1}', "null", "true", '"1"', "3.5", "NaN", "-0", "1e2", "[", "007", " 3 "])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS | SPELLED
KEYS = WORDS | st.sampled_from(["color", "sizes", "inner", "width", "tags"])
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3))


def outcome(declared: Tool[..., Any], arguments: Any) -> Any:
    try:
        return declared.validate(arguments)
    except InvalidInput as error:
        return str(error), [str(field) for field in error.fields]


@given(name=st.sampled_from(OTHERS), value=VALUES)
@example("numbers", "[1, 2]")
@example("share", "NaN")
@example("filter", {"sizes": '[{"width": "2", "tags": null}]', "inner": "{}"})
@example("either", '{"a": "1"}')
@example("filter", '{"color": "green"}')
def test_a_value_and_its_json_text_are_the_same_call_or_the_same_mistake(name: str, value: Any) -> None:
    right = outcome(take, {name: value})
    assert outcome(take, {name: json.dumps(value)}) == right
    assert outcome(take, {name: json.dumps(json.dumps(value))}) == right
    assert outcome(take, json.dumps({name: value})) == right
    assert outcome(take, json.dumps(json.dumps({name: value}))) == right
    assert outcome(take, "\ufeff" + json.dumps({name: json.dumps(value, ensure_ascii=False)})) == right


@given(value=WORDS | SPELLED)
@example("null")
def test_a_text_stays_a_text_where_one_is_taken(value: str) -> None:
    for name in ("text", "mixed", "at_most"):
        assert outcome(take, {name: value})[name] == value
    if value not in ("a", "1", "[]"):
        assert "kind: Input should be" in outcome(take, {"kind": value})[0]


@pytest.mark.parametrize("name", sorted(take.arguments.model_fields))
def test_null_leaves_out_what_has_a_default_and_is_kept_where_it_is_a_value(name: str) -> None:
    given_null, left_out = take.validate({name: None}), take.validate({})
    takes_null = name in ("filter", "some", "day")
    assert given_null == {**left_out, name: None} if takes_null else given_null == left_out


DESCRIBED = Draft202012Validator(allow_nulls(inline_definitions(take.input_schema)))
SIZES = st.fixed_dictionaries(
    {}, optional={"width": st.integers() | st.none() | WORDS, "tags": st.lists(WORDS) | st.none()}
)


@given(st.dictionaries(st.sampled_from(sorted({*OTHERS, "text", "mixed"} - {"filter", "filters"})), VALUES | SIZES))
@example({"text": None, "size": {"width": None}, "named": {"a": {"tags": None}}, "day": None})
def test_what_the_described_schema_allows_is_taken(arguments: dict[str, Any]) -> None:
    if DESCRIBED.is_valid(arguments):
        take.validate(arguments)


@pytest.mark.parametrize("name", sorted({*take.arguments.model_fields} - {"filter"}))
def test_null_is_described_where_it_is_taken(name: str) -> None:
    assert DESCRIBED.is_valid({name: None})
    for inner in ({"width": None}, {"tags": None}):
        assert DESCRIBED.is_valid({"size": inner, "named": {name: inner}})
    assert not DESCRIBED.is_valid({"numbers": [None]})


@tool(scope="probe:read", effect="read")
async def need(context: ToolContext, numbers: list[int]) -> None:
    """Need numbers."""


def test_null_is_no_value_of_what_is_required() -> None:
    assert "numbers: Input should be a valid list" in outcome(need, {"numbers": None})[0]
    assert "numbers: Input should be a valid list" in outcome(need, {"numbers": "null"})[0]


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "[" * (DEPTH_LIMIT + 1) + "]" * (DEPTH_LIMIT + 1),
        "[" + "0," * 30_000 + "0]",
        "1" * 10_000,
        "[NaN]",
    ],
)
def test_a_text_that_is_too_much_is_refused_as_a_text(text: str) -> None:
    assert "numbers" in outcome(take, {"numbers": text})[0]
    assert "filter" in outcome(take, {"filter": {"inner": {"sizes": text}}})[0]


@pytest.mark.parametrize("text", ['["\\u0000"]', '["\\ud800"]'])
def test_what_cannot_be_stored_is_refused_also_within_a_text(text: str) -> None:
    assert "words.0: holds a NUL byte or broken Unicode" in outcome(take, {"words": text})[0]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-inf", float("nan")])
def test_a_number_that_json_does_not_have_is_refused(value: Any) -> None:
    assert "share" in outcome(take, {"share": value})[0]
