"""What no JSON parser has to be asked about."""

import re
from collections.abc import Mapping
from typing import Any

from agent_server.errors import LONGEST_FIELD, FieldError, InvalidInput, cut, quote_value

DEPTH_LIMIT = 100
"""Most JSON arrays and objects inside of each other: far below the depth at which Python's recursion ends."""
VALUES_LIMIT = 20_000
"""Most members of objects and elements of arrays in a body, all together."""

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
# Possessive, and with an end that may be missing: each byte is looked at once, also of a string that is never closed.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_NO_MARKS = bytes(set(range(256)) - set(b"[]{},"))
_JSON = re.compile(r"\s*application/([\w.!#$&^+-]+\+)?json\s*(;|$)", re.IGNORECASE | re.ASCII)
_GLANCE = 64 * 1024
"""Bytes of a body that is refused in any case, in which the reason is looked for."""


def name_wrong_type(headers: Mapping[str, str]) -> str | None:
    """What is wrong with the type that a body is said to have. None of JSON's, `application/...+json` among them."""
    given = headers.get("content-type", "")
    if _JSON.match(given):
        return None
    sent = f"is {quote_value(given)}" if given else "is missing"
    return f"Content-Type: {sent}; send JSON, as `Content-Type: application/json`"


def check_json(body: bytes) -> None:
    """Raises InvalidInput for a body that is nested too deep, holds too many values or is not UTF-8.

    Any body may be JSON, whatever its type says.
    """
    # UTF-16 and UTF-32, which Python's parser takes, could hide brackets from the count below.
    if b"\0" in body:
        raise _invalid("not JSON in UTF-8")
    brackets = body.count(b"[") + body.count(b"{")
    if brackets <= DEPTH_LIMIT and brackets + body.count(b",") <= VALUES_LIMIT:
        return
    # To leave out the texts takes a moment for each. A value has two at most, its name and itself.
    many = body.count(b'"') - body.count(b'\\"') > 4 * VALUES_LIMIT
    marks = _STRING.sub(b"", body[:_GLANCE] if many else body).translate(None, _NO_MARKS)
    if _is_deep(marks.translate(None, b",")[: 2 * VALUES_LIMIT]):
        raise _invalid(f"nested more than {DEPTH_LIMIT} deep; send it flatter")
    if many or marks.count(b",") + marks.count(b"[") + marks.count(b"{") > VALUES_LIMIT:
        raise _invalid(f"holds more than {VALUES_LIMIT} values; send less at once")


def _invalid(message: str) -> InvalidInput:
    field = FieldError("body", message)
    return InvalidInput(str(field), [field])


def _is_deep(brackets: bytes) -> bool:
    depth = 0
    for bracket in brackets:
        depth += 1 if bracket in b"[{" else -1
        if depth > DEPTH_LIMIT:
            return True
    return False


def refuse_unstorable(value: Any, path: tuple[str, ...]) -> None:
    """Postgres stores neither NUL nor half a surrogate pair; say so before the database does."""
    if len(path) > DEPTH_LIMIT:
        raise InvalidInput(f"{cut(path[0], LONGEST_FIELD)}: is nested more than {DEPTH_LIMIT} deep; send it flatter")
    match value:
        case str():
            if _UNSTORABLE.search(value):
                message = "holds a NUL byte or broken Unicode; send valid UTF-8 text"
                field = FieldError(".".join(path) or "arguments", message)
                raise InvalidInput(str(field), [field])
        case Mapping():
            for key, item in value.items():
                refuse_unstorable(str(key), path)
                refuse_unstorable(item, (*path, str(key)))
        case list() | tuple():
            for index, item in enumerate(value):
                refuse_unstorable(item, (*path, str(index)))
