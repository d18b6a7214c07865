"""What a tool asks its user in the middle of a call.

No call waits for an answer. The one that asks is rolled back, the surface puts the question in its own way, and the tool
runs again from its first line with the answers that there are. So nothing is held while a person thinks, whichever
process gets the answer can go on, and a tool does the same on every surface.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel

from agent_server.errors import Conflict

T = TypeVar("T")
Action = Literal["accept", "decline", "cancel"]

MOST_QUESTIONS = 20
"""How often one call may ask. A question that changes each time the tool runs would have no end."""

_KEPT = frozenset(
    {
        "type",
        "title",
        "description",
        "default",
        "enum",
        "enumNames",
        "oneOf",
        "format",
        "minLength",
        "maxLength",
        "pattern",
        "minimum",
        "maximum",
        "items",
        "minItems",
        "maxItems",
    }
)
_CHOICES = ("enum", "anyOf")
"""Where the values stand of which some are chosen, the second with titles."""
_PLAIN = frozenset({"string", "number", "integer", "boolean"})


@dataclass(frozen=True)
class Accepted(Generic[T]):
    """The user has answered. `data` is the form as it was filled in; None where an address was to be opened."""

    data: T


@dataclass(frozen=True)
class Declined:
    """The user has said no."""


@dataclass(frozen=True)
class Dismissed:
    """The user has said neither yes nor no."""


@dataclass(frozen=True)
class Inquiry:
    """A question of a tool: with the JSON Schema of a form, or with an address to open."""

    message: str
    schema: Mapping[str, Any] | None = None
    url: str | None = None


@dataclass(frozen=True)
class Reply:
    """What a client says that its user answered. `content` is not validated."""

    action: Action
    content: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The answers that a call has so far, in the order of its questions, and what else its client can be asked.

    `key` is one for all runs of the call: it takes the place of an idempotency key that nobody sent.
    """

    key: str
    given: Sequence[tuple[Inquiry, Reply]] = ()
    forms: bool = False
    urls: bool = False

    def add(self, inquiry: Inquiry, reply: Reply) -> "Answers":
        return replace(self, given=(*self.given, (inquiry, reply)))

    def find(self, n: int, inquiry: Inquiry) -> Reply:
        """The answer to the question of this number from 0. Raises Asked where it is to be put first, and Conflict where
        it cannot be."""
        if n < len(self.given) and self.given[n][0] == inquiry:
            return self.given[n][1]
        kind = "fill in a form" if inquiry.url is None else "open an address"
        if not (self.forms if inquiry.url is None else self.urls):
            raise Conflict(f"The tool has to ask its user to {kind}, and this client cannot: use one that can")
        if n >= MOST_QUESTIONS:
            raise Conflict(f"The tool has asked {MOST_QUESTIONS} times in this call, and asks no more")
        # Something has changed since the others were put: what follows a new question may be other questions.
        raise Asked(inquiry, replace(self, given=self.given[:n]))


# No Exception: a tool that catches those must not keep its question from being put.
class Asked(BaseException):
    """The call is to be made again with an answer to `inquiry`, added to `answers`."""

    def __init__(self, inquiry: Inquiry, answers: Answers) -> None:
        super().__init__(inquiry.message)
        self.inquiry, self.answers = inquiry, answers


def form_schema(form: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema of a form as clients can show it. Raises TypeError for a field that is no single plain value."""
    schema = form.model_json_schema()
    definitions = schema.get("$defs", {})
    fields = {name: _show_field(form, name, about, definitions) for name, about in schema.get("properties", {}).items()}
    return {"type": "object", "properties": fields, "required": schema.get("required", [])}


def _show_field(
    form: type[BaseModel], name: str, about: Mapping[str, Any], definitions: Mapping[str, Any]
) -> dict[str, Any]:
    field = _resolve(about, definitions)
    choices = [_resolve(each, definitions) for each in field.get("anyOf", ()) if each.get("type") != "null"]
    if len(choices) == 1:  # one that may be left out
        field = {**choices[0], **{key: value for key, value in field.items() if key != "anyOf"}}
    shown = {key: value for key, value in field.items() if key in _KEPT and not (key == "default" and value is None)}
    if "const" in field:
        shown["enum"] = [field["const"]]
    if isinstance(shown.get("items"), Mapping):
        shown["items"] = {k: v for k, v in _resolve(shown["items"], definitions).items() if k in ("type", *_CHOICES)}
    is_choices = shown.get("type") == "array" and not shown.get("items", {}).keys().isdisjoint(_CHOICES)
    if shown.get("type") not in _PLAIN and not is_choices:
        raise TypeError(
            f"{form.__name__}.{name}: a form asks for texts, numbers, yes or no, and choices (Literal, or a list of "
            "one); ask for one of these"
        )
    return shown


def _resolve(about: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    name = str(about.get("$ref", "")).removeprefix("#/$defs/")
    return {**definitions.get(name, {}), **{key: value for key, value in about.items() if key != "$ref"}}
