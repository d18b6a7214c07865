"""What is known of a caller as a small JSON object."""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from agent_server.caller import Caller
from agent_server.errors import InvalidInput
from agent_server.identity.models import Profile

MAX_BYTES = 8_192
PROFILE = "(select body from profile where owner_id = :owner_id)"
"""SQL of what is known of an owner. It is null for one who has told nothing."""


async def read_profile(session: AsyncSession, caller: Caller) -> dict[str, Any]:
    """What is known of the caller. It is empty for one who has told nothing."""
    row = await session.get(Profile, caller.id)
    return dict(row.body) if row else {}


async def update_profile(session: AsyncSession, caller: Caller, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Change the given keys and keep the rest. None drops a key. Raises InvalidInput when it grows too large."""
    try:
        json.dumps(changes, allow_nan=False)
    except ValueError:
        raise InvalidInput("profile: NaN and Infinity are no JSON; leave them out") from None
    given = insert(Profile).values(owner_id=caller.id, body=dict(changes))
    # merged by the database: two first changes at once would each see no row, and one would overwrite the other
    merged = given.on_conflict_do_update(
        index_elements=["owner_id"], set_={"body": col(Profile.body).op("||")(given.excluded.body)}
    )
    body: dict[str, Any] = (await session.execute(merged.returning(col(Profile.body)))).scalar_one()
    # `||` keeps a key whose value is null.
    kept = {key: value for key, value in body.items() if value is not None}
    # Only the database has seen the whole profile; to raise here takes the change back.
    if not fits(kept):
        raise InvalidInput(f"profile: at most {MAX_BYTES} bytes of JSON are kept; shorten it")
    if len(kept) < len(body):
        await session.execute(update(Profile).where(col(Profile.owner_id) == caller.id).values(body=kept))
    return kept


def fits(body: Mapping[str, Any]) -> bool:
    """Whether a profile is small enough to be kept."""
    return len(json.dumps(body)) <= MAX_BYTES
