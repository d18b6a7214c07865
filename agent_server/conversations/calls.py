"""The calls of tools in a turn, read from its items."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from agent_server.conversations.models import Item
from agent_server.db import storable

HANDOFF = "transfer_to_"
"""How the name of a call begins that hands the conversation to another agent."""


@dataclass(frozen=True, kw_only=True)
class CallOfItems:
    """A call as its items have it. `error` is what it failed with, `has_ended` whether its outcome is there."""

    call_id: str
    name: str
    arguments: Any
    output: Any = None
    error: str | None = None
    has_ended: bool = False


def read_calls(items: Iterable[Item]) -> Iterator[CallOfItems]:
    """The calls of a turn in their order. A hand-off is a call to the model only, and is none of them."""
    bodies = [item.body for item in items]
    outputs = {body["call_id"]: body for body in bodies if body.get("type") == "function_call_output"}
    for body in bodies:
        if body.get("type") != "function_call" or body["name"].startswith(HANDOFF):
            continue
        returned = outputs.get(body["call_id"], {})
        failed = returned.get("status") == "incomplete"
        yield CallOfItems(
            call_id=body["call_id"],
            name=body["name"],
            arguments=read_json(body["arguments"]),
            output=None if failed else read_json(returned.get("output")),
            error=returned["output"] if failed else None,
            has_ended=bool(returned),
        )


def read_json(text: Any) -> Any:
    """The JSON that a text is, or else the text."""
    # A model wrote the arguments, and a tool the output: neither has to be JSON, and people want to see both. What it
    # spells may be half a character, which no answer can be written with.
    try:
        return storable(json.loads(text))
    except (TypeError, ValueError, RecursionError):
        return text
