"""The JSON Schema of an agent's front matter, for editors. It takes what the loader takes.

What only the workspace can tell is left to `agent-server check`: whether a tool, a file or a model is there, whether a
schema under `output` is one, whether a default is one of `enum`, and what the name of the file says.
"""

from collections.abc import Iterator
from typing import Any

from agent_server.prompts.front import AGENTS_ALONE, FrontMatter
from agent_server.prompts.inputs import NAME, RESERVED

_JSON_TYPES = ("string", "integer", "number", "boolean", "array", "object")


def front_matter_schema() -> dict[str, Any]:
    """The schema. It is one of draft 7, which every editor reads."""
    schema = FrontMatter.model_json_schema()
    properties = schema["properties"]
    for value in properties.values():
        # pydantic makes titles of the keys, and defaults that a file need not repeat.
        value.pop("title", None)
        value.pop("default", None)
    properties["inputs"]["anyOf"][0] |= {"propertyNames": {"pattern": NAME, "not": {"enum": sorted(RESERVED)}}}
    shape = {"type": "object", "required": ["type"], "properties": {"type": {"const": "object"}}}
    properties["output"]["anyOf"] = [shape, {"type": "string"}, {"type": "null"}]
    share = properties["share"]
    share |= share.pop("anyOf")[0]
    declared = schema["$defs"]["Input"]
    declared["properties"]["default"] = {"not": {"type": "null"}, **declared["properties"]["default"]}
    declared["properties"]["default"].pop("default", None)
    for key in ("enum", "examples"):
        declared["properties"][key].pop("default", None)
    declared["allOf"] = [*map(_values_of, _JSON_TYPES), *_untyped_values()]
    del schema["required"]
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        **schema,
        "title": "An agent of agent-server",
        # A candidate, which says what its share is, leaves out what is as in the file of its agent.
        "if": {"required": ["share"]},
        "else": {"required": ["name", "description"]},
        "allOf": [
            {
                "if": {"required": ["mcp"], "properties": {"mcp": {"const": "only"}}},
                "then": {"not": {"anyOf": [{"required": [key]} for key in AGENTS_ALONE]}},
            }
        ],
    }


def _values_of(kind: str) -> dict[str, Any]:
    """What an input of a type says of its values."""
    values = {"default": {"type": kind}, "enum": {"items": {"type": kind}}, "examples": {"items": {"type": kind}}}
    return {
        "if": {"required": ["type"], "properties": {"type": {"const": kind}}},
        "then": {"properties": values},
    }


def _untyped_values() -> Iterator[dict[str, Any]]:
    """What an input says of its values that has the type of its default, or is a text."""
    untyped = {"not": {"required": ["type"]}}
    for kind in _JSON_TYPES:
        items = {"items": {"type": kind}}
        of_kind = {"required": ["default"], "properties": {"default": {"type": kind}}}
        # A whole number is an integer; a number is one with a fraction.
        other = {"not": {"properties": {"default": {"type": "integer"}}}} if kind == "number" else {}
        yield {"if": {"allOf": [untyped, of_kind, other]}, "then": {"properties": {"enum": items, "examples": items}}}
    texts = {"items": {"type": "string"}}
    without = {"not": {"required": ["default"]}}
    yield {"if": {"allOf": [untyped, without]}, "then": {"properties": {"enum": texts, "examples": texts}}}
