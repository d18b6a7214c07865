"""What the server says when something is wrong: each message that is written in the source reads as the others do."""

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import pytest

from agent_server import errors
from tests.conftest import ROOT

FOLDERS = ("agent_server", "tools")
ERRORS = {
    name
    for name, kind in vars(errors).items()
    if inspect.isclass(kind) and issubclass(kind, errors.AgentServerError) and kind is not errors.WorkspaceInvalid
} | {"DatabaseAway", "BadRequest", "Misdirected", "UnsupportedMediaType", "AddressTooLong", "RequestTimedOut", "Fault"}
LONGEST = 260
"""Characters without the values. A person reads so much in one go."""
# `port: ` is an argument, `X-Y: ` a header, `AGENT_SERVER_X: ` a setting, `{` a value that names something.
BEGINS = re.compile(r"[A-Z\"`{]|[a-z_]+(\.[a-z_]+)*: |\S+: ")
JARGON = re.compile(r"\b(None|null|(?i:exception|invalid|illegal|failed to|unable to|please|oops|sorry))\b")


@dataclass(frozen=True)
class Message:
    """A message as the source has it, with `{}` for each value."""

    place: str
    text: str


def _read(node: ast.expr) -> str | None:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(str(v.value) if isinstance(v, ast.Constant) else "{}" for v in values)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return (_read(left) or "{}") + (_read(right) or "{}")
    return None


@cache
def list_messages() -> list[Message]:
    """All messages. They are read when the first test wants them, not by each process that collects the tests."""
    return list(_read_messages())


def _read_messages() -> Iterator[Message]:
    for folder in FOLDERS:
        for file in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                if (
                    isinstance(node, ast.Call)
                    and node.args
                    and _name(node.func) in ERRORS
                    and (text := _read(node.args[0]))
                ):
                    yield Message(f"{file.relative_to(ROOT)}:{node.lineno}", text)


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def test_there_are_messages_to_look_at() -> None:
    assert len(list_messages()) > 150


@pytest.mark.parametrize(
    ("rule", "broken"),
    [
        ("begins with a capital or with what it is about", lambda text: not BEGINS.match(text)),
        ("ends without a sign: a door puts its own, or none", lambda text: text.rstrip()[-1] in ".!,;:"),
        ("is on one line with single spaces", lambda text: re.search(r"  |\n|\t|^ | $", text)),
        ("says it in the words of people", JARGON.search),
        ("can be read in one go", lambda text: len(text) > LONGEST),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_message(rule: str, broken: object) -> None:
    assert callable(broken)
    assert [f"{message.place}: {message.text}" for message in list_messages() if broken(message.text)] == [], rule
