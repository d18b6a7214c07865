"""offer_form: give a person the form of a tool to fill in, instead of calling the tool for them."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from agent_server.errors import InvalidInput, quote_value
from agent_server.tool import Tool, ToolContext, tool

FieldType = Literal["text", "textarea", "email", "tel", "number", "date", "select"]
LONG_TEXT = 200


class FormField(BaseModel):
    """One input of a form; `value` is what is known already."""

    name: str
    label: str
    type: FieldType
    required: bool
    value: str | None = None
    options: list[str] | None = None


class Form(BaseModel):
    """A form that calls `tool` when it is sent."""

    tool: str
    title: str
    description: str
    fields: list[FormField]


def gives_form(tool: Tool[..., Any]) -> bool:
    """Whether a tool gives the form of another, named by its argument `tool`, with the values in `arguments`."""
    return tool.has_result(Form)


class FormTools(dict[str, Tool[..., Any]]):
    """The tools of this process that have a form, by name."""


@tool(scope="forms:read", effect="read")
async def offer_form(
    context: ToolContext,
    tool: Annotated[str, Field(description="The name of the tool whose form to show.")],
    arguments: Annotated[dict[str, str], Field(description="What the user has said already, by argument.")] = {},  # noqa: B006  # pydantic copies defaults
) -> Form:
    """Show the user a form for a tool, filled in as far as known; the tool runs when the user sends it."""
    forms = {name: form for name, form in context.resource(FormTools).items() if context.caller.may(form.scope)}
    offered = forms.get(tool)
    if offered is None:
        raise InvalidInput(f"tool: {quote_value(tool)} has no form; those that have one: {', '.join(forms) or 'none'}")
    schema = offered.input_schema
    return Form(
        tool=offered.name,
        title=offered.title,
        description=offered.form,
        fields=[
            _field(name, _plain(about), name in schema.get("required", ()), arguments.get(name))
            for name, about in schema["properties"].items()
        ],
    )


def _plain(about: dict[str, Any]) -> dict[str, Any]:
    """A property without its `null` alternative."""
    # Pydantic writes an optional argument so. An input of a form is left empty instead.
    kinds = [kind for kind in about.get("anyOf", ()) if kind.get("type") != "null"]
    return {**about, **kinds[0]} if kinds else about


def _field(name: str, about: dict[str, Any], required: bool, value: str | None) -> FormField:
    return FormField(
        name=name,
        label=name.replace("_", " ").capitalize(),
        type=_type(name, about),
        required=required,
        value=value,
        options=about.get("enum"),
    )


def _type(name: str, about: dict[str, Any]) -> FieldType:
    match about:
        case {"enum": _}:
            return "select"
        case {"format": "email"}:
            return "email"
        case {"format": "date"}:
            return "date"
        case {"type": "integer" | "number"}:
            return "number"
        case {"type": "string", "maxLength": int(length)} if length > LONG_TEXT:
            return "textarea"
        case _:
            return "tel" if name in ("phone", "telephone", "mobile") else "text"
