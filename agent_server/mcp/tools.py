"""A tool as MCP lists it and its outcome as MCP returns it."""

import json
from typing import Any

import mcp_types as types

from agent_server.errors import AgentServerError
from agent_server.log import without_secrets
from agent_server.tool import Tool


def describe(tool: Tool[..., Any]) -> types.Tool:
    """The entry of `tool` in a list. Its hints follow from the declared effect, and promise no more than that."""
    read = tool.effect == "read"
    return types.Tool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=tool.input_schema,
        output_schema=_output_schema(tool),
        annotations=types.ToolAnnotations(
            read_only_hint=read,
            destructive_hint=tool.destructive,
            # Only a read may be repeated freely: "exactly once" is per call, and two MCP calls are two calls.
            idempotent_hint=read,
            open_world_hint=tool.effect in ("keyed", "once"),
        ),
    )


def render_output(tool: Tool[..., Any], output: Any) -> types.CallToolResult:
    """`output` as structured content and as compact text for clients that read only that.

    Raises ValueError for a result that JSON cannot hold.
    """
    structured = output if _is_object(tool) else {"result": output}
    text = json.dumps(structured, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # Half a surrogate pair must fail here, as NaN does above: later it would break a stream that has begun.
    text.encode()
    return types.CallToolResult(content=[types.TextContent(text=text)], structured_content=structured)


def render_failure(error: AgentServerError) -> types.CallToolResult:
    """A failure that the model reads and may correct."""
    text = without_secrets(f"{error.code}: {error.message}")
    return types.CallToolResult(content=[types.TextContent(text=text)], is_error=True)


def _is_object(tool: Tool[..., Any]) -> bool:
    return tool.output_schema.get("type") == "object"


def _output_schema(tool: Tool[..., Any]) -> dict[str, Any]:
    """The schema of the structured content. What is no object stands in it as `result`."""
    # Until the protocol of 2026 structured content is an object, and older clients are served, too.
    schema = tool.output_schema
    if _is_object(tool):
        return schema
    result = {key: value for key, value in schema.items() if key != "$defs"}
    definitions = {"$defs": schema["$defs"]} if "$defs" in schema else {}
    return {"type": "object", "properties": {"result": result}, "required": ["result"], **definitions}
