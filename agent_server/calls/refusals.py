"""What a model is told of calls that are not made."""

from agent_server.calls.ledger import failure_text
from agent_server.errors import Conflict, NotFound, quote_value

SAME_CALLS = 2
"""How often the same call is made in a turn."""


def unknown_tool(name: str) -> str:
    """What a model is told that calls a tool which its agent does not have."""
    return failure_text(NotFound(f"There is no tool {quote_value(name)} here"))


def repeated_call(name: str) -> str:
    """What a model is told that makes the same call once more."""
    return failure_text(
        Conflict(
            f"{name} was called {SAME_CALLS} times with these arguments in this turn, and is not called again; "
            "answer with what it returned, or call it with other arguments"
        )
    )
