"""What happened in a turn, at /dev/turns; and the turns to choose from."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict

from agent_server.api.local import DEVELOPER
from agent_server.conversations.repository import ConversationRepository
from agent_server.errors import NotFound
from agent_server.http.auth import ReaderDep, ServerDep
from agent_server.requests.rebuild import rebuild_requests
from agent_server.timeline import SentRequest, Timeline, read_timeline, show_request
from agent_server.turns.models import Turn
from agent_server.turns.repository import TurnRepository

router = APIRouter(include_in_schema=False)

_MOST = 100


class RunView(BaseModel):
    """A conversation that the developer page began."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    title: str
    agent: str | None
    updated_at: datetime


class TurnOfConversation(BaseModel):
    """A turn to choose."""

    id: UUID
    turn_no: int
    message: str
    status: str
    agent: str | None
    created_at: datetime


@router.get(f"{DEVELOPER}/turns/{{turn}}")
async def read_turn(turn: UUID, caller: ReaderDep, server: ServerDep, requests: bool = True) -> Timeline:
    """The timeline of a turn of the caller's. Without `requests` the calls of models are without what was sent."""
    # What was sent repeats what came before it: of a turn with many calls all of it can be a hundred times the turn.
    return await read_timeline(server.database, caller, turn, rebuild=requests)


@router.get(f"{DEVELOPER}/turns/{{turn}}/calls/{{no}}")
async def read_call(turn: UUID, no: Annotated[int, Path(ge=1)], caller: ReaderDep, server: ServerDep) -> SentRequest:
    """What a call of a model was sent."""
    async with server.database.transaction(caller.id) as session:
        await TurnRepository(session, caller).get(turn)
        sent = {request.no: request for request in await rebuild_requests(session, caller.id, turn)}
    if no not in sent:
        raise NotFound(f"The turn has no call {no} of a model; they count from 1")
    return show_request(sent[no])


@router.get(f"{DEVELOPER}/runs")
async def list_runs(caller: ReaderDep, server: ServerDep) -> list[RunView]:
    """The conversations that the developer page began, the latest first."""
    async with server.database.transaction(caller.id) as session:
        rows = await ConversationRepository(session, caller).list_runs(_MOST)
    return [RunView.model_validate(row) for row in rows]


@router.get(f"{DEVELOPER}/conversations/{{conversation}}/turns")
async def list_turns(conversation: UUID, caller: ReaderDep, server: ServerDep) -> list[TurnOfConversation]:
    """The latest turns of a conversation, in their order."""
    async with server.database.transaction(caller.id) as session:
        row = await ConversationRepository(session, caller).get(conversation)
        turns = await TurnRepository(session, caller).list_latest(row.id, _MOST)
    return [_view(turn) for turn in turns]


def _view(turn: Turn) -> TurnOfConversation:
    said: Any = turn.input["message"]
    return TurnOfConversation(
        id=turn.id,
        turn_no=turn.turn_no,
        message=said,
        status=turn.status,
        agent=turn.agent,
        created_at=turn.created_at,
    )
