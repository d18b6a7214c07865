"""JSON Schemas that others wrote.

`simplify` keeps of one what a model and this server understand: keywords that take no regular expression, references
written out, every text marked and cut. A schema that is too large, too deep or refers elsewhere is refused whole.
`find_wrong` checks a value against what is left. What it does not check, the other server does.
"""

import json
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent_server.errors import FieldError
from agent_server.wording import one_line, shorten

Schema = dict[str, Any]

MOST_PARTS = 500
"""How many schemas there may be in one, its references written out."""
DEEPEST = 12
LONGEST_TEXT = 500
"""Longest description of an argument and longest value of an enum, characters."""
MOST_VALUES = 100
_MOST_STEPS = 50_000
"""How many comparisons are made of one value. Behind them nothing is found wrong."""
_NAME = re.compile(r"[A-Za-z_$][A-Za-z0-9_.$-]{0,63}")
_TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems")
_SEVERAL = ("anyOf", "oneOf", "allOf")


class Unusable(Exception):
    """A declaration of another server that cannot be used. Its text says why."""


def mark(server: str, text: str) -> str:
    """A text of another server as a model reads it: on one line, cut, and with the name of who wrote it."""
    return f"[{server}] {shorten(one_line(text), LONGEST_TEXT)}"


def simplify(server: str, schema: Any) -> Schema:
    """What is kept of the schema of an object. Raises Unusable."""
    if not isinstance(schema, dict):
        raise Unusable("its schema is no JSON object")
    if schema.get("type", "object") != "object":
        raise Unusable("its schema is not that of an object")
    kept = _Simplifier(server, schema).simplify(schema, ())
    return {"type": "object", "properties": {}, **kept}


@dataclass
class _Simplifier:
    server: str
    whole: Schema
    parts: int = 0

    def simplify(self, schema: Any, path: tuple[str, ...], depth: int = 0) -> Schema:
        """The kept part of a schema. `path` are the references that led here."""
        self.parts += 1
        if self.parts > MOST_PARTS:
            raise Unusable(f"its schema has more than {MOST_PARTS} parts")
        if depth > DEEPEST:
            raise Unusable(f"its schema is nested more than {DEEPEST} deep")
        if schema is True or schema == {}:
            return {}
        if not isinstance(schema, dict):
            raise Unusable("a part of its schema is no JSON object")
        if "$ref" in schema:
            pointer = schema["$ref"]
            if pointer in path:  # it has no end when it is written out
                return {}
            return self.simplify(self._find(pointer), (*path, pointer), depth + 1)
        kept = dict(self._keep_values(schema))
        for key in _SEVERAL:
            if key in schema:
                kept[key] = [self.simplify(each, path, depth + 1) for each in _list(schema[key], key)]
        if "items" in schema and not isinstance(schema["items"], list):
            kept["items"] = self.simplify(schema["items"], path, depth + 1)
        if "additionalProperties" in schema:
            given = schema["additionalProperties"]
            kept["additionalProperties"] = (
                given if isinstance(given, bool) else self.simplify(given, path, depth + 1) or True
            )
        if "properties" in schema:
            kept["properties"] = {
                _check_name(name): self.simplify(each, path, depth + 1)
                for name, each in _object(schema["properties"], "properties").items()
            }
        return kept

    def _find(self, pointer: Any) -> Any:
        if not isinstance(pointer, str) or not pointer.startswith("#"):
            raise Unusable("its schema refers to another document")
        found: Any = self.whole
        for key in filter(None, pointer.removeprefix("#").split("/")):
            if not isinstance(found, dict):
                raise Unusable("its schema refers to a part that is not there")
            found = found.get(key.replace("~1", "/").replace("~0", "~"))
        if found is None:
            raise Unusable("its schema refers to a part that is not there")
        return found

    def _keep_values(self, schema: Schema) -> Iterator[tuple[str, Any]]:
        """The keywords whose values are no schemas."""
        if "type" in schema:
            kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
            if not kinds or any(kind not in _TYPES for kind in kinds):
                raise Unusable("its schema has a type that JSON Schema does not have")
            yield "type", schema["type"]
        if isinstance(schema.get("description"), str) and schema["description"].strip():
            yield "description", mark(self.server, schema["description"])
        if "enum" in schema:
            values = _list(schema["enum"], "enum")
            if len(values) > MOST_VALUES:
                raise Unusable(f"an enum of its schema has more than {MOST_VALUES} values")
            yield "enum", [_check_value(value) for value in values]
        for key in ("const", "default"):
            if key in schema:
                yield key, _check_value(schema[key])
        if "required" in schema:
            yield "required", [_check_name(name) for name in _list(schema["required"], "required", least=0)]
        for key in _BOUNDS:
            if _is_number(schema.get(key)):
                yield key, schema[key]
        for key in _COUNTS:
            if isinstance(schema.get(key), int) and not isinstance(schema[key], bool):
                yield key, schema[key]


def _list(value: Any, key: str, least: int = 1) -> Sequence[Any]:
    if not isinstance(value, list) or len(value) < least:
        raise Unusable(f"{key} of its schema is no list")
    return value


def _object(value: Any, key: str) -> Schema:
    if not isinstance(value, dict):
        raise Unusable(f"{key} of its schema is no JSON object")
    return value


def _check_name(name: Any) -> str:
    # A name stands in the prompt as it is.
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise Unusable("the name of an argument is not up to 64 letters, digits, _, ., $ and -")
    return name


def _check_value(value: Any) -> Any:
    """A value that stands in the prompt as it is. Raises Unusable for one that is long or has several lines."""
    text = value if isinstance(value, str) else _dump(value)
    if len(text) > LONGEST_TEXT or (isinstance(value, str) and one_line(value) != value):
        raise Unusable("a value in its schema is too long, or has characters that no line of text has")
    return value


def _dump(value: Any) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:  # NaN, or a number of thousands of digits
        raise Unusable("a number in its schema is none of JSON") from None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def find_wrong(schema: Schema, value: Any) -> list[FieldError]:
    """What plainly is not as a simplified schema has it. Nothing of the value is repeated."""
    check = _Check()
    try:
        return list(check.find(schema, value, ()))
    except _Enough:
        return []


class _Enough(Exception):
    """More comparisons would take too long."""


@dataclass
class _Check:
    steps: int = 0

    def find(self, schema: Schema, value: Any, path: tuple[str, ...]) -> Iterator[FieldError]:
        self.steps += 1
        if self.steps > _MOST_STEPS:
            raise _Enough
        where = ".".join(path) or "arguments"
        if (kinds := schema.get("type")) is not None and not _is_of(value, kinds):
            named = " or ".join(kinds) if isinstance(kinds, list) else kinds
            yield FieldError(where, f"is not of the type {named}")
            return
        if "enum" in schema and not any(_same(value, each) for each in schema["enum"]):
            yield FieldError(where, f"is none of {shorten(_dump(schema['enum']), 200)}")
        if "const" in schema and not _same(value, schema["const"]):
            yield FieldError(where, f"is not {shorten(_dump(schema['const']), 200)}")
        yield from _find_out_of_bounds(schema, value, where)
        for each in schema.get("allOf", ()):
            yield from self.find(each, value, path)
        for key in ("anyOf", "oneOf"):
            if key in schema and all(any(self.find(each, value, path)) for each in schema[key]):
                yield FieldError(where, "is none of the kinds that are taken")
        if isinstance(value, Mapping):
            yield from self._find_in_object(schema, value, path)
        if isinstance(value, list) and "items" in schema:
            for at, item in enumerate(value):
                yield from self.find(schema["items"], item, (*path, str(at)))

    def _find_in_object(self, schema: Schema, value: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[FieldError]:
        known = schema.get("properties", {})
        for name in schema.get("required", ()):
            if name not in value:
                yield FieldError(".".join((*path, name)), "is missing")
        rest = schema.get("additionalProperties", True)
        for name, item in value.items():
            if name in known:
                yield from self.find(known[name], item, (*path, name))
            elif rest is False:
                taken = ", ".join(known) or "none"
                yield FieldError(".".join((*path, str(name))), f"is not known; there are {shorten(taken, 200)}")
            elif isinstance(rest, dict):
                yield from self.find(rest, item, (*path, str(name)))


def _is_of(value: Any, kinds: str | Sequence[str]) -> bool:
    named = [kinds] if isinstance(kinds, str) else kinds
    match value:
        case bool():
            return "boolean" in named
        case None:
            return "null" in named
        case int():
            return "integer" in named or "number" in named
        case float():
            return "number" in named or ("integer" in named and value.is_integer())
        case str():
            return "string" in named
        case list():
            return "array" in named
    return "object" in named


def _same(one: Any, other: Any) -> bool:
    # In Python True is 1, which JSON keeps apart.
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


_BOUNDS: Mapping[str, tuple[Callable[[Any, Any], bool], str]] = {
    "minimum": (operator.lt, "is less than"),
    "maximum": (operator.gt, "is more than"),
    "exclusiveMinimum": (operator.le, "is not more than"),
    "exclusiveMaximum": (operator.ge, "is not less than"),
}


def _find_out_of_bounds(schema: Schema, value: Any, where: str) -> Iterator[FieldError]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        for key, (is_wrong, said) in _BOUNDS.items():
            if key in schema and is_wrong(value, schema[key]):
                yield FieldError(where, f"{said} {schema[key]}")
    for kind, least, most, noun in (
        (str, "minLength", "maxLength", "characters"),
        (list, "minItems", "maxItems", "entries"),
    ):
        if isinstance(value, kind):
            if len(value) < schema.get(least, 0):
                yield FieldError(where, f"has fewer than {schema[least]} {noun}")
            if most in schema and len(value) > schema[most]:
                yield FieldError(where, f"has more than {schema[most]} {noun}")
