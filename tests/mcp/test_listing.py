"""What a list of tools costs a model, and what it still says."""

import json
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, create_model

from agent_server.mcp.tools import describe, shorten
from agent_server.workspace import load_workspace

ROOT = Path(__file__).parent.parent.parent
MOST_TOKENS = 130
"""On average. A list with schemas of results, and with null wherever an argument may be left out, takes 300."""


class Place(BaseModel):
    """Where something is."""

    name: str
    depth: Annotated[int | None, Field(ge=1, description="Metres.")] = None


TYPES: list[Any] = [
    str | None,
    Annotated[int | None, Field(ge=1, le=9, description="How many.")],
    Literal["a", "b"] | None,
    int | str | None,
    list[str | None] | None,
    Place | None,
    list[Place] | None,
    dict[str, int | None] | None,
    Annotated[str, Field(max_length=3)],
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 11) | st.text(max_size=4) | st.sampled_from("ab"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["name", "depth"]), inner, max_size=2),
    max_leaves=5,
)


def _is_valid(schema: Any, value: Any) -> bool:
    return bool(jsonschema.Draft202012Validator(schema).is_valid(value))


def _leave_out_nulls(value: Any) -> Any:
    """The value without the arguments that null leaves out: those of objects, and of objects in them."""
    if not isinstance(value, dict):
        return [_leave_out_nulls(item) for item in value] if isinstance(value, list) else value
    return {key: _leave_out_nulls(item) for key, item in value.items() if item is not None}


@given(st.lists(st.tuples(st.sampled_from(TYPES), st.booleans()), min_size=1, max_size=4), st.data())
def test_a_shorter_schema_takes_the_same_arguments_but_for_null(fields: list[tuple[Any, bool]], data: Any) -> None:
    names = {f"f{n}": (kind, ... if needed else None) for n, (kind, needed) in enumerate(fields)}
    model: type[BaseModel] = create_model("Arguments", **names)  # type: ignore[call-overload]
    schema = model.model_json_schema()
    short = shorten(schema)
    arguments = data.draw(st.dictionaries(st.sampled_from(list(names)), VALUES))
    if _is_valid(short, arguments):
        assert _is_valid(schema, arguments)
    given_ones = {name: value for name, value in arguments.items() if value is not None or names[name][1] is ...}
    if _is_valid(schema, given_ones) and given_ones == _leave_out_nulls(given_ones):
        assert _is_valid(short, given_ones)


def find_descriptions(schema: Any) -> list[str]:
    parts = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    own = [schema["description"]] if isinstance(schema, dict) and isinstance(schema.get("description"), str) else []
    return sorted([*own, *(found for part in parts for found in find_descriptions(part))])


def test_what_a_model_is_told_of_an_argument_is_kept() -> None:
    for name, tool in load_workspace(ROOT).tools.items():
        listed = describe(tool, output_schema=False).input_schema
        assert listed["properties"].keys() == tool.input_schema["properties"].keys(), name
        assert listed.get("required") == tool.input_schema.get("required"), name
        for argument, schema in tool.input_schema["properties"].items():
            assert find_descriptions(listed["properties"][argument]) == find_descriptions(schema), (name, argument)


@pytest.mark.parametrize(
    ("schema", "short"),
    [
        ({"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}, {"type": "string"}),
        (
            {"anyOf": [{"type": "integer"}, {"type": "string"}, {"type": "null"}], "default": None, "description": "x"},
            {"anyOf": [{"type": "integer"}, {"type": "string"}], "description": "x"},
        ),
        ({"type": "integer", "default": 20}, {"type": "integer", "default": 20}),
    ],
)
def test_null_is_not_listed_where_an_argument_may_be_left_out(schema: Any, short: Any) -> None:
    assert shorten({"properties": {"anyOf": schema}}) == {"properties": {"anyOf": short}}


def test_a_tool_costs_few_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    count = import_module("litellm").token_counter
    listed = [
        describe(tool, output_schema=False).model_dump(by_alias=True, exclude_none=True, mode="json")
        for tool in load_workspace(ROOT).tools.values()
    ]
    tokens = [count(model="gpt-5.4-mini", text=json.dumps(one, separators=(",", ":"))) for one in listed]
    assert sum(tokens) / len(tokens) <= MOST_TOKENS
