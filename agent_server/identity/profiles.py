"""Profiles: what is known of a caller, a small JSON object."""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from agent_server.errors import InvalidInput
from agent_server.identity.caller import Caller
from agent_server.identity.models import Profile

MAX_BYTES = 8_192


async def read_profile(session: AsyncSession, caller: Caller) -> dict[str, Any]:
    """What is known of the caller; empty for one who has told nothing."""
    row = await session.get(Profile, caller.id)
    return dict(row.body) if row else {}


async def update_profile(session: AsyncSession, caller: Caller, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Set the given keys, drop those given as None, keep the rest. Raises InvalidInput when it grows too large."""
    row = await session.get(Profile, caller.id, with_for_update=True)
    merged = {**(row.body if row else {}), **changes}
    body = {key: value for key, value in merged.items() if value is not None}
    if len(json.dumps(body)) > MAX_BYTES:
        raise InvalidInput(f"profile: at most {MAX_BYTES} bytes of JSON are kept; shorten it")
    await session.execute(
        insert(Profile)
        .values(owner_id=caller.id, body=body)
        .on_conflict_do_update(index_elements=["owner_id"], set_={"body": body})
    )
    return body
