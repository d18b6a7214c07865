"""The JSON Schema of an agent's front matter, for editors. It takes what the loader takes.

What only the workspace can tell is left to `agent-server check`: whether a tool, a file or a model is there, whether a
schema under `output` is one, and what the name of the file says.
"""

from typing import Any

from agent_server.prompts.front import FrontMatter
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
    declared["allOf"] = [
        {
            "if": {"required": ["type"], "properties": {"type": {"const": kind}}},
            "then": {"properties": {"default": {"type": kind}}},
        }
        for kind in _JSON_TYPES
    ]
    del schema["required"]
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        **schema,
        "title": "An agent of agent-server",
        # A candidate, which says what its share is, leaves out what is as in the file of its agent.
        "if": {"required": ["share"]},
        "else": {"required": ["name", "description"]},
    }
