"""The variables that a body declares: what each may be, and where its value comes from.

    1. `inputs` of the request
    2. the caller's profile, by the same key
    3. the default

One that has none of the three is missing. All that are missing or of another type are named together.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal, get_args

from jinja2.defaults import DEFAULT_NAMESPACE
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from agent_server.errors import FieldError, InvalidInput, name_fields, name_known, quote_value
from agent_server.prompts.templates import VARIABLES

Kind = Literal["string", "integer", "number", "boolean", "array", "object"]
"""The types of JSON Schema."""
NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,39}$"
RESERVED = frozenset(
    {*VARIABLES, *DEFAULT_NAMESPACE, "and", "or", "not", "in", "is", "if", "else"}
    | {"true", "false", "none", "True", "False", "None"}
    | {"self", "super", "loop", "caller", "varargs", "kwargs"}
)
"""Names that mean something else in a template."""
_TAKES: Mapping[Kind, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: _is_number(value) and float(value).is_integer(),
    "number": lambda value: _is_number(value),
    "boolean": lambda value: isinstance(value, bool),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}
WORDS: Mapping[Kind, str] = {
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
}
_SAMPLES: Mapping[Kind, Any] = {
    "string": "something",
    "integer": 1,
    "number": 1,
    "boolean": True,
    "array": [],
    "object": {},
}


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) or math.isfinite(value)


def takes(kind: Kind, value: Any) -> bool:
    """Whether a value is of a type, as JSON Schema has it: 2.0 is an integer, and true is no number."""
    return _TAKES[kind](value)


def _find_kind(value: Any) -> Kind | None:
    return next((kind for kind in get_args(Kind) if takes(kind, value)), None)


def _is_json(value: Any) -> bool:
    """Whether a value of YAML is one of JSON, as a date is not."""
    match value:
        case dict():
            return all(isinstance(key, str) and _is_json(item) for key, item in value.items())
        case list():
            return all(map(_is_json, value))
        case float():
            return math.isfinite(value)
        case _:
            return value is None or isinstance(value, str | bool | int)


class Input(BaseModel):
    """A variable of a body. Without a type it has that of its default, else it is a text."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Kind = Field("string", description="What it may be.")
    default: Any = Field(None, description="Its value where none is given; without it one must be given.")
    description: Annotated[str | None, Field(strict=True)] = Field(None, description="What it is for.")
    enum: Annotated[list[Any] | None, Field(min_length=1)] = Field(None, description="All that it may be.")
    examples: Annotated[list[Any] | None, Field(min_length=1)] = Field(
        None, description="Some of what it may be, for clients that complete what a user types."
    )

    @model_validator(mode="after")
    def _check_values(self) -> "Input":
        for values in (self.enum, self.examples):
            if not all(takes(self.type, value) and _is_json(value) for value in values or ()):
                raise PydanticCustomError("values", "values")
        if self.enum is not None and self.default is not None and self.default not in self.enum:
            raise PydanticCustomError("values", "values")
        return self

    @model_validator(mode="before")
    @classmethod
    def _read_type(cls, value: Any) -> Any:
        if value is None:
            return {}
        if not isinstance(value, dict) or "default" not in value:
            return value
        default = value["default"]
        kind: Any = value["type"] if "type" in value else _find_kind(default)
        known = isinstance(kind, str) and kind in WORDS
        if ("type" not in value and not known) or (known and not (takes(kind, default) and _is_json(default))):
            raise PydanticCustomError("default", "default")
        return {**value, "type": kind}

    @property
    def sample(self) -> Any:
        """A value to try a body with."""
        if self.default is not None:
            return self.default
        return self.enum[0] if self.enum else _SAMPLES[self.type]

    @property
    def words(self) -> str:
        """What it may be, in words."""
        return f"one of {', '.join(map(quote_value, self.enum))}" if self.enum else WORDS[self.type]

    def takes(self, value: Any) -> bool:
        """Whether a value is one that it may have."""
        return takes(self.type, value) and (self.enum is None or value in self.enum)


def _refuse_reserved(name: Any) -> Any:
    if name in RESERVED:
        raise PydanticCustomError("reserved", "reserved")
    return name


InputName = Annotated[str, Field(pattern=NAME), BeforeValidator(_refuse_reserved)]


def fill_inputs(
    agent: str, inputs: Mapping[str, Input], given: Mapping[str, Any], profile: Mapping[str, Any]
) -> dict[str, Any]:
    """The value of each input. Raises InvalidInput, which names all that are missing or of another type."""
    values: dict[str, Any] = {}
    wrong: list[FieldError] = []
    for name, declared in inputs.items():
        # A profile keeps no null, and a request that sends one has nothing to say.
        found = next((source[name] for source in (given, profile) if source.get(name) is not None), declared.default)
        if found is None:
            wrong.append(FieldError(name, f"is missing; it is {declared.words}"))
        elif not declared.takes(found):
            wrong.append(FieldError(name, f"must be {declared.words}, not {quote_value(found)}"))
        values[name] = found
    if wrong:
        where = "give them as `inputs` of the request, or keep them in the profile"
        raise InvalidInput(f"The inputs of {agent} are not complete: {name_fields(wrong, len(wrong))}; {where}", wrong)
    return values


def check_inputs(given: Mapping[str, Any], declared: Mapping[str, Input]) -> None:
    """Raises InvalidInput for values of a request that no agent has declared, or declared of another type."""
    wrong = list(_find_wrong(given, declared))
    if wrong:
        raise InvalidInput(name_fields(wrong, len(wrong)), wrong)


def _find_wrong(given: Mapping[str, Any], declared: Mapping[str, Input]) -> Iterator[FieldError]:
    for name, value in given.items():
        if name not in declared:
            yield FieldError(f"inputs.{name}", f"no agent takes it; {name_known(name, declared)}")
        elif value is not None and not declared[name].takes(value):
            yield FieldError(f"inputs.{name}", f"must be {declared[name].words}")
