"""What the scenarios of the conformance suite ask of a server, as a workspace declares it."""

import base64

from pydantic import BaseModel

from agent_server import InvalidInput, ToolContext, announce, resource, tool

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
)


@tool(scope="fixtures:read", effect="read")
async def test_simple_text(context: ToolContext) -> str:
    """Return a text."""
    return "This is a simple text response for testing."


@tool(scope="fixtures:read", effect="read")
async def test_error_handling(context: ToolContext) -> str:
    """Fail."""
    raise InvalidInput("This tool intentionally returns an error for testing")


@tool(scope="fixtures:read", effect="read")
async def test_trigger_tool_change(context: ToolContext) -> str:
    """Say that the list of tools has changed."""
    announce(context, "tools")
    return "done"


@tool(scope="fixtures:read", effect="read")
async def test_trigger_prompt_change(context: ToolContext) -> str:
    """Say that the list of prompts has changed."""
    announce(context, "prompts")
    return "done"


@resource("test://static-text", scope="fixtures:read")
async def static_text(context: ToolContext) -> str:
    """A text."""
    return "This is the content of the static text resource."


@resource("test://static-binary", scope="fixtures:read", mime_type="image/png")
async def static_binary(context: ToolContext) -> bytes:
    """A picture."""
    return PNG


@resource("test://watched-resource", scope="fixtures:read")
async def watched_resource(context: ToolContext) -> str:
    """What clients watch."""
    return "Watched resource content"


@resource("test://example-resource", scope="fixtures:read")
async def example_resource(context: ToolContext) -> str:
    """What a prompt embeds."""
    return "Embedded resource content for testing."


class Data(BaseModel):
    """What the template gives."""

    id: str
    templateTest: bool  # the suite's name
    data: str


@resource("test://template/{id}/data", scope="fixtures:read")
async def template_data(context: ToolContext, id: str) -> Data:
    """The data of an id."""
    return Data(id=id, templateTest=True, data=f"Data for ID: {id}")
