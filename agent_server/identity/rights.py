"""What a caller may do by its scopes and its kind."""

from collections.abc import Sequence

from agent_server.caller import Caller
from agent_server.errors import Forbidden

GUEST_SCOPES = frozenset(
    {
        "conversations:read",
        "conversations:write",
        "account:read",
        "account:write",
        "account:export",
        "account:erase",
    }
)
"""What every guest holds, because it owns its conversations and its profile."""


def require(caller: Caller, scope: str, what: str = "This") -> None:
    """Raises Forbidden for a caller who lacks `scope`. `what` is the subject of the message."""
    if not caller.may(scope):
        raise Forbidden(f"{what} needs the scope {scope}, which this caller lacks", scope)


def name_scopes(scopes: Sequence[str]) -> str:
    """Scopes as a message names them."""
    return f"the scope{'' if len(scopes) == 1 else 's'} {', '.join(scopes)}"


NEEDS_KEY = "this needs an API key (`agent-server key create` makes one)"


def require_member(caller: Caller, needs: str = NEEDS_KEY, scope: str | None = None) -> None:
    """Raises Forbidden for a guest. `needs` says what would be right."""
    # No scope can say this: a guest holds its agents' scopes, so that they can act for it, and keys and roles name the
    # same ones. What it may do only through an agent, or not at all, follows from its kind (docs/decisions/0007).
    if caller.kind == "guest":
        raise Forbidden(f"A guest may only chat; {needs}", scope)
