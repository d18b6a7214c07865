"""How a turn stands and its events at /api/turns."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel

from agent_server.http.auth import ReaderDep, ServerDep, WriterDep
from agent_server.protocols.base import STREAM_HEADERS, STREAM_TYPE, event_stream, parse_cursor
from agent_server.turns.repository import TurnRepository

router = APIRouter(tags=["chat"])


class TurnView(BaseModel):
    """How a turn stands."""

    id: UUID
    conversation_id: UUID
    status: str
    agent: str | None
    usage: dict[str, Any] | None
    error: dict[str, Any] | None
    attempts: int
    created_at: Any
    finished_at: Any


@router.get("/api/turns/{turn}")
async def read_turn(turn: UUID, caller: ReaderDep, server: ServerDep) -> TurnView:
    """How a turn stands."""
    async with server.database.transaction(caller.id) as session:
        row = await TurnRepository(session, caller).get(turn)
    return TurnView.model_validate(row, from_attributes=True)


@router.post("/api/turns/{turn}/cancel", status_code=202)
async def cancel_turn(turn: UUID, caller: WriterDep, server: ServerDep) -> dict[str, bool]:
    """Stop a turn that runs or waits. `stopped` is False where it had ended."""
    async with server.database.transaction(caller.id) as session:
        row = await TurnRepository(session, caller).get(turn)
    if row.finished_at is None:
        await server.runner.stop_turn(row.owner_id, row.id)
    return {"stopped": row.finished_at is None}


@router.get(
    "/api/turns/{turn}/events", response_class=StreamingResponse, responses={200: {"content": {STREAM_TYPE: {}}}}
)
async def read_events(
    turn: UUID, caller: ReaderDep, server: ServerDep, last_event_id: Annotated[str | None, Header()] = None
) -> Response:
    """The turn's own events from the start or after `Last-Event-ID`. Each has `id: <turn>:<seq>`."""
    async with server.database.transaction(caller.id) as session:
        row = await TurnRepository(session, caller).get(turn)
    cursor = parse_cursor(last_event_id, row.id)
    events = server.hub.follow(row.owner_id, row.id, cursor.seq if cursor else 0)
    return StreamingResponse(event_stream(row.id, events), media_type=STREAM_TYPE, headers=STREAM_HEADERS)
