"""Stored items -> what a model is given of the earlier turns."""

from collections.abc import Sequence
from typing import Any

from agent_server.conversations.models import Item


def history(items: Sequence[Item]) -> list[dict[str, Any]]:
    """The bodies of `items` (in order) that a model can be given.

    A call without its output and an output without its call are left out: providers refuse them, and both occur, where
    the bound on history cuts a turn in two and where a turn was stopped between a call and its result. The history
    starts with a user's message, for the same reason.
    """
    answered = {i.body.get("call_id") for i in items if i.body.get("type") == "function_call_output"}
    called = {i.body.get("call_id") for i in items if i.body.get("type") == "function_call"}
    paired = answered & called
    kept = [i.body for i in items if "call_id" not in i.body or i.body["call_id"] in paired]
    first = next((n for n, body in enumerate(kept) if body.get("role") == "user"), len(kept))
    return kept[first:]
