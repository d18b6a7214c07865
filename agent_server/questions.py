"""What a tool asks its user in the middle of a call.

No call waits for an answer. The one that asks is rolled back, the surface puts the question in its own way, and the tool
runs again from its first line with the answers that there are. So nothing is held while a person thinks, whichever
process gets the answer can go on, and a tool does the same on every surface.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from agent_server.errors import Conflict, InvalidInput

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
F = TypeVar("F", bound=BaseModel)
Need = Literal["forms", "urls", "samples", "roots"]
"""What a client must be able to do to be asked something."""
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
class Sampled:
    """What the client's model has written."""

    text: str
    model: str


@dataclass(frozen=True)
class Root:
    """A folder that the client works in. `uri` is its address, mostly `file://`."""

    uri: str
    name: str | None = None


@dataclass(frozen=True)
class Inquiry:
    """A question of a tool: with the JSON Schema of a form, with an address to open, with what to ask the client's model
    (`sampling`), or for the folders that the client works in. `name` is what a client knows the question by."""

    message: str
    schema: Mapping[str, Any] | None = None
    url: str | None = None
    sampling: Mapping[str, Any] | None = None
    roots: bool = False
    name: str | None = None

    @property
    def needs(self) -> Need:
        if self.roots:
            return "roots"
        if self.sampling is not None:
            return "samples"
        return "forms" if self.url is None else "urls"


@dataclass(frozen=True)
class Reply:
    """What a client says that its user answered. `content` is not validated."""

    action: Action
    content: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The answers that a call has so far, in the order of its questions, and what else its client `can` be asked.

    `key` is one for all runs of the call: it takes the place of an idempotency key that nobody sent.
    """

    key: str
    given: Sequence[tuple[Inquiry, Reply]] = ()
    can: frozenset[Need] = frozenset()

    def add(self, inquiry: Inquiry, reply: Reply) -> "Answers":
        return replace(self, given=(*self.given, (inquiry, reply)))

    def find(self, n: int, inquiry: Inquiry) -> Reply:
        """The answer to the question of this number from 0. Raises Asked where it is to be put first, and Conflict where
        it cannot be."""
        return self.find_all(n, [inquiry])[0]

    def find_all(self, n: int, inquiries: Sequence[Inquiry]) -> Sequence[Reply]:
        """The answers to questions that are put together, of which the first has this number. Raises as `find`."""
        there = self.given[n : n + len(inquiries)]
        known = 0
        while known < len(there) and there[known][0] == inquiries[known]:
            known += 1
        if known == len(inquiries):
            return [reply for _, reply in there]
        for inquiry in inquiries[known:]:
            if inquiry.needs not in self.can:
                raise Unasked(inquiry.needs)
        if n + len(inquiries) > MOST_QUESTIONS:
            raise Conflict(f"The tool has asked {MOST_QUESTIONS} times in this call, and asks no more")
        # Something has changed since the others were put: what follows a new question may be other questions.
        raise Asked(inquiries[known:], replace(self, given=self.given[: n + known]))


# No Exception: a tool that catches those must not keep its question from being put.
class Asked(BaseException):
    """The call is to be made again with answers to `inquiries`, added to `answers` in their order."""

    def __init__(self, inquiries: Sequence[Inquiry], answers: Answers) -> None:
        super().__init__(inquiries[0].message)
        self.inquiries, self.answers = tuple(inquiries), answers


_DOES: Mapping[Need, str] = {
    "forms": "ask its user to fill in a form",
    "urls": "ask its user to open an address",
    "samples": "ask the client's model",
    "roots": "ask for the client's folders",
}


class Unasked(Conflict):
    """The client cannot be asked what a tool has to ask."""

    def __init__(self, needs: Need) -> None:
        super().__init__(f"The tool has to {_DOES[needs]}, and this client cannot: use one that can")
        self.needs = needs


class Question(Protocol[T_co]):
    """Something that a tool asks; `read` makes of the reply what the tool is given. Raises InvalidInput for a reply that
    cannot be used."""

    @property
    def inquiry(self) -> Inquiry: ...

    def read(self, reply: Reply) -> T_co: ...


@dataclass(frozen=True)
class Ask(Generic[F]):
    """Asks the caller to fill in a form."""

    message: str
    form: type[F]
    name: str | None = None

    @property
    def inquiry(self) -> Inquiry:
        return Inquiry(self.message, form_schema(self.form), name=self.name)

    def read(self, reply: Reply) -> Accepted[F] | Declined | Dismissed:
        if reply.action != "accept":
            return Declined() if reply.action == "decline" else Dismissed()
        try:
            return Accepted(self.form.model_validate(dict(reply.content or {})))
        except ValidationError as error:
            # "from None": the text of pydantic's error quotes what the user wrote.
            wrong = error.errors(include_input=False, include_url=False)[0]
            where = ".".join(str(part) for part in wrong["loc"]) or "form"
            raise InvalidInput(f"The user's answer cannot be used: {where}: {wrong['msg']}; call again") from None


@dataclass(frozen=True)
class Sample:
    """Asks the client's model, which its user may look at first."""

    prompt: str
    max_tokens: int = 1000
    system: str | None = None
    name: str | None = None

    @property
    def inquiry(self) -> Inquiry:
        message = {"role": "user", "content": {"type": "text", "text": self.prompt}}
        system = {} if self.system is None else {"systemPrompt": self.system}
        params = {"messages": [message], "maxTokens": self.max_tokens, **system}
        return Inquiry(self.prompt, sampling=params, name=self.name)

    def read(self, reply: Reply) -> Sampled | Dismissed:
        if reply.action != "accept":
            return Dismissed()
        content = (reply.content or {}).get("content")
        parts = content if isinstance(content, list) else [content]
        texts = [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]
        if not texts:
            raise InvalidInput("The answer of the client's model cannot be used: it has no text; call again")
        return Sampled("".join(texts), str((reply.content or {}).get("model", "")))


@dataclass(frozen=True)
class ListRoots:
    """Asks for the folders that the client works in."""

    name: str | None = None

    @property
    def inquiry(self) -> Inquiry:
        return Inquiry("Folders", roots=True, name=self.name)

    def read(self, reply: Reply) -> Sequence[Root] | Dismissed:
        if reply.action != "accept":
            return Dismissed()
        listed = (reply.content or {}).get("roots")
        roots = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
        return [Root(each["uri"], each.get("name")) for each in roots if isinstance(each.get("uri"), str)]


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
