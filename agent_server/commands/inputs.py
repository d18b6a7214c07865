"""--input NAME=VALUE, as the prompts declare it."""

from collections.abc import Mapping, Sequence
from typing import Any

import typer

from agent_server.arguments import read_as_meant
from agent_server.prompts.inputs import Input, check_inputs


def read_inputs(words: Sequence[str], declared: Mapping[str, Input]) -> dict[str, Any]:
    """The values of the inputs, each of the type that it is declared with.

    Raises typer.BadParameter for what is no NAME=VALUE, and InvalidInput, which names all that no agent takes.
    """
    given: dict[str, Any] = {}
    for word in words:
        name, is_given, value = word.partition("=")
        if not name or not is_given:
            raise typer.BadParameter(f"--input: {word!r} is no NAME=VALUE; write it as in --input days=3")
        if name in given:
            raise typer.BadParameter(f"--input: {name} is given twice; keep one")
        given[name] = value
    values = read_as_meant(given, {"properties": {name: {"type": each.type} for name, each in declared.items()}})
    check_inputs(values, declared)
    return values
