"""What the scenarios of the conformance suite ask of a server, as a workspace declares it."""

import asyncio
import base64
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field

from agent_server import (
    Accepted,
    Ask,
    Audio,
    Dismissed,
    Embedded,
    Image,
    InvalidInput,
    ListRoots,
    Sample,
    Sampled,
    ToolContext,
    announce,
    resource,
    tool,
)

Form = TypeVar("Form", bound=BaseModel)

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
)


WAV = base64.b64decode("UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA=")


@tool(scope="fixtures:read", effect="read")
async def test_simple_text(context: ToolContext) -> str:
    """Return a text."""
    return "This is a simple text response for testing."


@tool(scope="fixtures:read", effect="read")
async def test_image_content(context: ToolContext) -> Image:
    """Return a picture."""
    return Image(PNG, "image/png")


@tool(scope="fixtures:read", effect="read")
async def test_audio_content(context: ToolContext) -> Audio:
    """Return a sound."""
    return Audio(WAV, "audio/wav")


@tool(scope="fixtures:read", effect="read")
async def test_embedded_resource(context: ToolContext) -> Embedded:
    """Return a file."""
    return Embedded("test://embedded-resource", text="This is an embedded resource content.", mime_type="text/plain")


@tool(scope="fixtures:read", effect="read")
async def test_multiple_content_types(context: ToolContext) -> list[str | Image | Embedded]:
    """Return a text, a picture and a file."""
    data = '{"test":"data","value":123}'
    return [
        "Multiple content types test:",
        Image(PNG, "image/png"),
        Embedded("test://mixed-content-resource", text=data, mime_type="application/json"),
    ]


@tool(scope="fixtures:read", effect="read")
async def test_tool_with_logging(context: ToolContext) -> str:
    """Say what it does."""
    for message in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await context.log(message)
        await asyncio.sleep(0.05)  # the suite wants them to come one by one
    return "done"


@tool(scope="fixtures:read", effect="read")
async def test_tool_with_progress(context: ToolContext) -> str:
    """Say how far it is."""
    for done in (0, 50, 100):
        await context.report_progress(done, 100, f"step {done}")
        await asyncio.sleep(0.05)  # the suite wants them to come one by one
    return "done"


class Answer(BaseModel):
    username: str = Field(description="User's response")
    email: str = Field(description="User's email address")


class Defaults(BaseModel):
    name: str = "John Doe"
    age: int = 30
    score: float = 95.5
    status: Literal["active", "inactive", "pending"] = "active"
    verified: bool = True


def _titled(**titles: str) -> Any:
    return [{"const": value, "title": title} for value, title in titles.items()]


class Enums(BaseModel):
    untitledSingle: Literal["option1", "option2", "option3"]
    titledSingle: str = Field(json_schema_extra={"oneOf": _titled(value1="First", value2="Second")})
    untitledMulti: list[Literal["option1", "option2", "option3"]]
    titledMulti: list[str] = Field(
        json_schema_extra={"items": {"type": "string", "anyOf": _titled(value1="First", value2="Second")}}
    )
    legacyEnum: str = Field(json_schema_extra={"enum": ["opt1", "opt2"], "enumNames": ["One", "Two"]})


async def _ask(context: ToolContext, message: str, form: type[BaseModel]) -> str:
    reply = await context.ask(message, form)
    content = reply.data.model_dump_json() if isinstance(reply, Accepted) else "{}"
    action = {"Accepted": "accept", "Declined": "decline", "Dismissed": "cancel"}[type(reply).__name__]
    return f"User response: action={action}, content={content}"


@tool(scope="fixtures:read", effect="read")
async def test_elicitation(context: ToolContext, message: str) -> str:
    """Ask the user."""
    return await _ask(context, message, Answer)


@tool(scope="fixtures:read", effect="read")
async def test_streaming_elicitation(context: ToolContext) -> str:
    """Ask the user, and say before that how far it is."""
    await context.report_progress(1, 2, "about to ask")
    return await _ask(context, "Who are you?", Answer)


@tool(scope="fixtures:read", effect="read")
async def test_logging_tool(context: ToolContext) -> str:
    """Say what it does."""
    await context.log("at work")
    return "done"


@tool(scope="fixtures:read", effect="read")
async def test_elicitation_sep1034_defaults(context: ToolContext) -> str:
    """Ask the user with values that are filled in."""
    return await _ask(context, "Please answer", Defaults)


@tool(scope="fixtures:read", effect="read")
async def test_elicitation_sep1330_enums(context: ToolContext) -> str:
    """Ask the user to choose."""
    return await _ask(context, "Please choose", Enums)


class Name(BaseModel):
    name: str


class Colour(BaseModel):
    color: str


class Agreement(BaseModel):
    ok: bool


async def _fill(context: ToolContext, message: str, form: type[Form], name: str | None = None) -> Form:
    reply = await context.ask(message, form, name=name)
    if not isinstance(reply, Accepted):
        raise InvalidInput("The user has not answered")
    return reply.data


@tool(scope="fixtures:read", effect="read")
async def test_input_required_result_elicitation(context: ToolContext) -> str:
    """Ask for a name."""
    return f"Hello, {(await _fill(context, 'What is your name?', Name, 'user_name')).name}!"


def _text(reply: Sampled | Dismissed) -> str:
    if not isinstance(reply, Sampled):
        raise InvalidInput("The client's model was not asked")
    return reply.text


@tool(scope="fixtures:read", effect="read")
async def test_sampling(context: ToolContext, prompt: str) -> str:
    """Ask the client's model."""
    return f"LLM response: {_text(await context.sample(prompt, max_tokens=100))}"


@tool(scope="fixtures:read", effect="read")
async def test_missing_capability(context: ToolContext) -> str:
    """Ask a model that the client has not said it has."""
    return _text(await context.sample("Hello"))


@tool(scope="fixtures:read", effect="read")
async def test_input_required_result_sampling(context: ToolContext) -> str:
    """Ask the client's model."""
    return _text(await context.sample("What is the capital of France?", max_tokens=100, name="capital_question"))


@tool(scope="fixtures:read", effect="read")
async def test_input_required_result_list_roots(context: ToolContext) -> str:
    """Ask for the client's folders."""
    roots = await context.roots(name="client_roots")
    return "none" if isinstance(roots, Dismissed) else ", ".join(root.uri for root in roots)


@tool(scope="fixtures:read", effect="read")
async def test_input_required_result_multiple_inputs(context: ToolContext) -> str:
    """Ask three things at once."""
    name, greeting, roots = await context.ask_all(
        Ask("What is your name?", Name, name="user_name"),
        Sample("Generate a greeting", max_tokens=50, name="greeting"),
        ListRoots(name="client_roots"),
    )
    return f"{_text(greeting)} {name} {roots}"


@tool(scope="fixtures:read", effect="read")
async def test_input_required_result_capabilities(context: ToolContext) -> str:
    """Ask what the client can be asked."""
    if context.can_ask("forms"):
        return (await _fill(context, "What is your name?", Name)).name
    return _text(await context.sample("Make up a name", name="made_up"))


@tool(scope="fixtures:read", effect="read")
async def test_input_required_result_request_state(context: ToolContext) -> str:
    """Ask for a yes."""
    await _fill(context, "Please confirm", Agreement)
    return "state-ok"


@tool(scope="fixtures:read", effect="read")
async def test_input_required_result_tampered_state(context: ToolContext) -> str:
    """Ask for a yes."""
    await _fill(context, "Please confirm", Agreement)
    return "state-ok"


@tool(scope="fixtures:read", effect="read")
async def test_input_required_result_multi_round(context: ToolContext) -> str:
    """Ask two questions, one after the other."""
    name = (await _fill(context, "Step 1: name?", Name)).name
    return f"{name} likes {(await _fill(context, 'Step 2: colour?', Colour)).color}."


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
