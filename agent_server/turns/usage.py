"""What the models of a turn used, read from its journal."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import text

from agent_server.db import Database

_CALLS = text("""
    select agent, response ->> 'model' as model, response -> 'usage' as usage from model_call
    where owner_id = :owner_id and turn_id = :turn_id order by n""")
_COUNTS = ("input_tokens", "output_tokens", "total_tokens")


async def read_usage(database: Database, *, owner_id: UUID, turn_id: UUID) -> tuple[str | None, dict[str, Any] | None]:
    """The agent that spoke last in a turn and what its models used. Both are None where none has answered.

    A turn that fails or is stopped has no outcome to tell them, and its calls cost as much. Raises Unavailable.
    """
    async with database.quick(owner_id) as session:
        calls = (await session.execute(_CALLS, {"owner_id": owner_id, "turn_id": turn_id})).all()
    if not calls:
        return None, None
    counts = {name: sum(_count(call.usage, name) for call in calls) for name in _COUNTS}
    return calls[-1].agent, {"model": calls[-1].model, "requests": len(calls), **counts}


def _count(usage: Mapping[str, Any] | None, name: str) -> int:
    return int((usage or {}).get(name) or 0)
