"""Who sent a message, as it is kept with its turn.

An attempt may be made by another process, later: it has no request to take the caller from.
"""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from agent_server.caller import Caller


def sender_json(caller: Caller) -> dict[str, Any]:
    """The caller as it is kept. `read_sender` reads it."""
    more = {
        "key_id": caller.key_id and str(caller.key_id),
        "by_roles": caller.by_roles,
        "network": caller.network,
    }
    return {"kind": caller.kind, "scopes": sorted(caller.scopes), **{key: kept for key, kept in more.items() if kept}}


def read_sender(owner_id: UUID, kept: Mapping[str, Any]) -> Caller:
    """The caller `owner_id` as it was kept."""
    # Only what there is to say is kept.
    key_id = kept.get("key_id")
    return Caller(
        id=owner_id,
        kind=kept["kind"],
        scopes=frozenset(kept["scopes"]),
        key_id=None if key_id is None else UUID(key_id),
        by_roles=kept.get("by_roles", False),
        network=kept.get("network"),
    )
