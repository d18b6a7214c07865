"""Arguments as models and clients write them, read as a tool's schema has them.

Many send a list, an object or a number as JSON text, and `null` for what they leave out. Where the schema leaves no
doubt that this is what was meant, it is read so; everywhere else arguments stay as they are:

    text where the schema takes none   the JSON that it spells, if it spells some
    null for what has a default        left out, unless the schema takes null
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from agent_server.bodies import DEPTH_LIMIT, check_json, refuse_unstorable
from agent_server.errors import InvalidInput

Schema = Mapping[str, Any]

_KINDS: Mapping[type[Any], str] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    type(None): "null",
    list: "array",
    dict: "object",
}
_ALL = frozenset(_KINDS.values())
_ABOUT = frozenset({"title", "description", "default", "examples"})
"""What is said of a field, and not of one of its alternatives."""
_BYTE_ORDER_MARK = "\ufeff"


def read_object(tool: str, text: str) -> dict[str, Any]:
    """The object that the arguments of a call spell; without any text an empty one. Raises InvalidInput."""
    text = text.removeprefix(_BYTE_ORDER_MARK)
    if not text.strip():
        return {}
    try:
        value = json.loads(text)
        if isinstance(value, str) and value.lstrip().startswith("{"):  # an object that was written as text twice
            value = json.loads(value)
    # RecursionError: a model or a caller may send ten thousand open brackets.
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"The arguments of {tool} are not JSON ({error}); send one JSON object") from None
    if not isinstance(value, dict):
        raise InvalidInput(f'The arguments of {tool} must be one JSON object, as in {{"title": "..."}}')
    return value


def read_as_meant(arguments: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
    """The arguments as an input schema has them. Raises InvalidInput for text that spells what cannot be stored."""
    return _read_members(arguments, schema, schema.get("$defs", {}), ())


def allow_nulls(schema: Any) -> Any:
    """What `read_as_meant` takes of an input schema without references: null too for each field with a default."""
    if not isinstance(schema, Mapping):  # `additionalProperties` may be true or false
        return schema
    allowed = dict(schema)
    for key in ("anyOf", "oneOf"):
        if options := schema.get(key):
            # Where several take an object, nothing says which of them one is for: it is read as it stands.
            alone = all(sum(kind in _kinds(option, {}) for option in options) < 2 for kind in ("object", "array"))
            allowed[key] = [allow_nulls(option) if alone else option for option in options]
    for key in ("items", "additionalProperties"):
        if key in schema:
            allowed[key] = allow_nulls(schema[key])
    if properties := schema.get("properties"):
        required = schema.get("required", ())
        allowed["properties"] = {
            name: allow_nulls(each) if name in required else _allow_null(allow_nulls(each))
            for name, each in properties.items()
        }
    return allowed


def _allow_null(schema: Schema) -> Schema:
    if "null" in _kinds(schema, {}):
        return schema
    about = {name: value for name, value in schema.items() if name in _ABOUT}
    return {"anyOf": [{name: value for name, value in schema.items() if name not in _ABOUT}, {"type": "null"}], **about}


def _read_members(
    value: Mapping[str, Any], schema: Schema, definitions: Schema, path: tuple[str, ...]
) -> dict[str, Any]:
    properties, required = schema.get("properties", {}), schema.get("required", ())
    read = {}
    for name, item in value.items():
        if name in properties:
            item = _read(item, properties[name], definitions, (*path, name))
            if item is None and name not in required and "null" not in _kinds(properties[name], definitions):
                continue
        read[name] = item
    return read


def _read(value: Any, schema: Any, definitions: Schema, path: tuple[str, ...]) -> Any:
    if isinstance(value, str) and "string" not in _kinds(schema, definitions):
        text = None
        while isinstance(value, str) and value != text:  # some are quoted twice
            text, value = value, _parse(value, path)
    match value, _find_only(schema, definitions, value):
        case dict(), {"properties": _} as only:
            return _read_members(value, only, definitions, path)
        case dict(), {"additionalProperties": dict(item)}:
            return {name: _read(each, item, definitions, (*path, name)) for name, each in value.items()}
        case list(), {"items": dict(item)}:
            return [_read(each, item, definitions, (*path, str(n))) for n, each in enumerate(value)]
    return value


def _parse(text: str, path: tuple[str, ...]) -> Any:
    """What a text spells; the text itself where that is no JSON."""
    try:
        check_json(text.encode())
        value = json.loads(text, parse_constant=_refuse_constant)
    # RecursionError: see `read_object`. InvalidInput: too deep or too much, as it would be in the body itself.
    except (ValueError, RecursionError, InvalidInput):
        return text
    if len(path) > DEPTH_LIMIT:
        return text
    refuse_unstorable(value, path)
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)  # NaN and Infinity are no JSON


def _find_only(schema: Any, definitions: Schema, value: Any) -> Schema:
    """The one alternative of a schema that a value like this may be of. It is empty where there are several."""
    fitting = [each for each in _alternatives(schema, definitions) if _kind_of(value) in _kinds(each, definitions)]
    return fitting[0] if len(fitting) == 1 else {}


def _alternatives(schema: Any, definitions: Schema, depth: int = 0) -> Iterable[Schema]:
    if not isinstance(schema, Mapping) or depth > DEPTH_LIMIT:
        return
    if isinstance(name := schema.get("$ref"), str):
        yield from _alternatives(definitions.get(name.removeprefix("#/$defs/")), definitions, depth + 1)
    elif options := schema.get("anyOf") or schema.get("oneOf"):
        for option in options:
            yield from _alternatives(option, definitions, depth + 1)
    else:
        yield schema


def _kinds(schema: Any, definitions: Schema) -> frozenset[str]:
    """The JSON types that a schema takes; all of them where it does not say."""
    found: set[str] = set()
    for each in _alternatives(schema, definitions):
        match each:
            case {"const": value}:
                found.add(_kind_of(value))
            case {"enum": list(values)}:
                found |= {_kind_of(value) for value in values}
            case {"type": str(kind)}:
                found.add(kind)
            case {"type": list(kinds)}:
                found |= {*kinds}
            case _:
                return _ALL
    return frozenset(found) or _ALL


def _kind_of(value: Any) -> str:
    return _KINDS.get(type(value), "")
