"""agent-server feedback"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import get_args
from uuid import UUID

import typer

from agent_server.caller import Caller
from agent_server.commands.context import CommandContext
from agent_server.commands.dates import read_since
from agent_server.commands.terminal import fail, say, show
from agent_server.db import SYSTEM, Database
from agent_server.errors import name_known
from agent_server.feedback.models import READ_SCOPE, Feedback, Rating
from agent_server.feedback.repository import FeedbackRepository
from agent_server.turns.models import Turn
from agent_server.turns.repository import TurnRepository
from agent_server.wording import one_line, shorten


async def list_feedback(
    context: CommandContext, rating: str | None, since: str | None, limit: int, as_json: bool
) -> None:
    chosen: Rating | None = next((one for one in get_args(Rating) if one == rating), None)
    if rating is not None and chosen is None:
        raise typer.BadParameter(f"--rating: {name_known(rating, get_args(Rating))}")
    begin = None if since is None else read_since(since)
    database = await context.engine_database()
    async with database.transaction(scopes=[READ_SCOPE]) as session:
        feedback = FeedbackRepository(session, Caller(id=SYSTEM, kind="service"))
        page = await feedback.page_of_all_callers(limit, rating=chosen, since=begin)
    turns = await _read_turns(database, page.items)
    if as_json:
        show([_view(row, turns[row.turn_id]) for row in page.items if row.turn_id in turns])
        return
    for row in page.items:
        if turn := turns.get(row.turn_id):
            say(
                f"{row.id}  {row.updated_at:%Y-%m-%d %H:%M}  {row.rating:<4}  {shorten(one_line(turn.input['message']))}"
            )
            if row.comment:
                say(f"    {one_line(row.comment)}")
    if page.next_cursor is not None:
        fail(f"There are more than these {limit}; name more with --limit")


async def _read_turns(database: Database, given: Sequence[Feedback]) -> Mapping[UUID, Turn]:
    """The turns that these are about. One that was deleted meanwhile is not among them."""
    by_owner: dict[UUID, list[UUID]] = defaultdict(list)
    for row in given:
        by_owner[row.owner_id].append(row.turn_id)
    found: dict[UUID, Turn] = {}
    for owner, ids in by_owner.items():
        async with database.transaction(owner) as session:
            turns = await TurnRepository(session, Caller(id=owner, kind="service")).list_by_id(ids)
        found |= {turn.id: turn for turn in turns}
    return found


def _view(row: Feedback, turn: Turn) -> dict[str, object]:
    return {
        "id": row.id,
        "rating": row.rating,
        "comment": row.comment,
        "message": turn.input["message"],
        "agent": turn.agent,
        "turn_id": turn.id,
        "conversation_id": turn.conversation_id,
        "owner_id": row.owner_id,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
    }
