"""A tool as MCP lists it and its outcome as MCP returns it."""

import base64
import json
from collections.abc import Mapping
from typing import Any

import mcp_types as types

from agent_server.charts.drawing import CannotDraw, Drawings
from agent_server.charts.looks import Look
from agent_server.charts.telling import list_charts, tell_value
from agent_server.errors import AgentServerError
from agent_server.log import without_secrets
from agent_server.media import list_parts
from agent_server.tool import Tool

_NAMED = ("properties", "$defs", "patternProperties")
_VERBATIM = ("default", "const", "enum", "examples")
"""Keywords whose values are data and no schemas."""
MAY_BE_TASK = types.ToolExecution(task_support="optional")
"""What a list says of a tool that a client of 2025-11-25 may have as a task."""


def describe(tool: Tool[..., Any], *, output_schema: bool, tasks: bool = False) -> types.Tool:
    """The entry of `tool` in a list, with `tasks` where clients may have them. Its hints follow from the declared effect,
    and promise no more than that.

    Half of what a list costs a model would be schemas of results, which models do not need in order to call a tool:
    `output_schema` says whether it has them.
    """
    read = tool.effect == "read"
    return types.Tool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=shorten(tool.input_schema),
        output_schema=_output_schema(tool) if output_schema and not _is_unstructured(tool) else None,
        # Of a tool that only reads, the protocol gives no meaning to whether it destroys or may be repeated. None may be
        # repeated freely but these: "exactly once" is per call, and two MCP calls are two calls.
        annotations=types.ToolAnnotations(
            read_only_hint=read or None,  # false is what the protocol takes for granted
            destructive_hint=None if read else tool.destructive,
            open_world_hint=tool.effect in ("keyed", "once"),
        ),
        execution=MAY_BE_TASK if tasks and tool.long else None,
    )


def describe_all(
    tools: Mapping[str, Tool[..., Any]], *, output_schemas: bool, tasks: bool = False
) -> list[tuple[Tool[..., Any], types.Tool]]:
    """The tools with their entries in one order, so that a list does not change with the replica that answers."""
    return [(tools[name], describe(tools[name], output_schema=output_schemas, tasks=tasks)) for name in sorted(tools)]


def render_output(tool: Tool[..., Any], output: Any) -> types.CallToolResult:
    """`output` as structured content and as compact text for clients that read only that. A text is itself, an image or
    the like a part of its own kind, and of figures the text is the table.

    Raises ValueError for a result that JSON cannot hold.
    """
    if tool.has_parts:
        return types.CallToolResult(content=[_render_part(part) for part in list_parts(output)])
    if _is_text(tool):
        output.encode()  # as below
        return types.CallToolResult(content=[types.TextContent(text=output)])
    structured = output if _is_object(tool) else {"result": output}
    text = json.dumps(structured, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # Half a surrogate pair must fail here, as NaN does above: later it would break a stream that has begun.
    text.encode()
    text = tell_value(output) or text
    return types.CallToolResult(content=[types.TextContent(text=text)], structured_content=structured)


async def add_pictures(result: types.CallToolResult, output: Any, drawings: Drawings) -> types.CallToolResult:
    """`result` with a picture of each chart in `output`, or a line that says why there is none."""
    added: list[types.ContentBlock] = []
    for chart in list_charts(output):
        try:
            picture = await drawings.draw(chart, Look("png"))
        except CannotDraw as error:
            added.append(types.TextContent(text=str(error)))
            break
        added.append(types.ImageContent(data=base64.b64encode(picture).decode(), mime_type="image/png"))
    return result.model_copy(update={"content": [*result.content, *added]}) if added else result


def _render_part(part: Any) -> types.ContentBlock:
    match part:
        case str():
            return types.TextContent(text=part)
        case {"type": "image", "data": data, "mime_type": mime_type}:
            return types.ImageContent(data=data, mime_type=mime_type)
        case {"type": "audio", "data": data, "mime_type": mime_type}:
            return types.AudioContent(data=data, mime_type=mime_type)
        case {"type": "link"}:
            return types.ResourceLink.model_validate(part | {"type": "resource_link"}, by_name=True)
        case {"type": "embedded", "uri": uri, "text": text, "data": data, "mime_type": mime_type}:
            content: types.TextResourceContents | types.BlobResourceContents = (
                types.BlobResourceContents(uri=uri, blob=data, mime_type=mime_type)
                if text is None
                else types.TextResourceContents(uri=uri, text=text, mime_type=mime_type)
            )
            return types.EmbeddedResource(resource=content)
    raise ValueError(f"{type(part).__name__} is no part of a result")


def render_failure(error: AgentServerError) -> types.CallToolResult:
    """A failure that the model reads and may correct."""
    text = without_secrets(f"{error.code}: {error.message}")
    return types.CallToolResult(content=[types.TextContent(text=text)], is_error=True)


def shorten(schema: Any) -> Any:
    """A JSON Schema of arguments in fewer words: that an argument may be left out is not said a second time by `null`.

    Null is taken all the same, as on the other surfaces.
    """
    if isinstance(schema, list):
        return [shorten(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    # In these the keys are names of the author's.
    short = {
        key: {name: shorten(item) for name, item in value.items()} if key in _NAMED else shorten(value)
        for key, value in schema.items()
        if key not in _VERBATIM
    }
    short |= {key: schema[key] for key in _VERBATIM if key in schema}
    needed = schema.get("required", ())
    for name, item in short.get("properties", {}).items():
        if name not in needed and isinstance(item, dict) and item.get("default", ...) is None:
            short["properties"][name] = _leave_out_null(item)
    return short


def _leave_out_null(schema: dict[str, Any]) -> dict[str, Any]:
    choices = [choice for choice in schema.get("anyOf", ()) if choice != {"type": "null"}]
    rest = {key: value for key, value in schema.items() if key not in ("anyOf", "default")}
    if "anyOf" not in schema or rest.keys() & {key for choice in choices for key in choice}:
        return schema
    return {**choices[0], **rest} if len(choices) == 1 else {"anyOf": choices, **rest}


def _is_unstructured(tool: Tool[..., Any]) -> bool:
    return _is_text(tool) or tool.has_parts


def _is_text(tool: Tool[..., Any]) -> bool:
    return tool.output_schema.get("type") == "string"


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
