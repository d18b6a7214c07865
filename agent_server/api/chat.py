"""A message and its answer at /api/chat."""

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel

from agent_server.api.messages import ToolUse, messages_of
from agent_server.caller import Caller
from agent_server.conversations.notes import Finish
from agent_server.conversations.repository import ConversationRepository
from agent_server.db import be_patient
from agent_server.errors import Unavailable
from agent_server.http.auth import ReaderDep, ServerDep, SpeakerDep, WriterDep
from agent_server.protocols.ai_sdk.request import KEY_LENGTH, ChatRequest, read_message
from agent_server.protocols.ai_sdk.stream import HEADERS, UIMessageEncoder, ui_message_stream
from agent_server.protocols.base import STREAM_TYPE, Cursor, parse_cursor
from agent_server.server import Server
from agent_server.turns.hub import Moved
from agent_server.turns.models import Turn
from agent_server.turns.repository import TurnRepository

router = APIRouter(tags=["chat"])

EVENT_STREAM: dict[str, Any] = {"content": {STREAM_TYPE: {}}}


class Answer(BaseModel):
    """A finished turn. `tools` are its calls; `error` is what it failed with; `finish_reason` says why the answer ends, and
    `notes` what its reader should know. `output` is the answer as data, where its agent answers with that; `prompt_sha` and
    `prompt_version` say which prompt made it."""

    conversation_id: UUID
    turn_id: UUID
    status: str
    agent: str | None
    text: str
    sources: list[dict[str, Any]]
    tools: list[ToolUse]
    reasoning: str
    notes: list[dict[str, str]]
    finish_reason: Finish
    output: Any = None
    prompt_sha: str | None = None
    prompt_version: str | None = None
    usage: dict[str, Any] | None
    error: dict[str, Any] | None


async def check_room(request: Request, server: ServerDep) -> None:
    """Refuse a new message of a full server before anything is asked of the database. Raises Unavailable."""
    # It may have been accepted before, which only the database knows; what was accepted is not refused.
    if "idempotency-key" in request.headers and "authorization" in request.headers:
        be_patient()
    else:
        server.runner.check_room()


@router.post(
    "/api/chat",
    dependencies=[Depends(check_room)],
    response_class=StreamingResponse,
    responses={
        200: {
            "model": Answer,
            **EVENT_STREAM,
            "description": "An AI SDK UI message stream; with `stream` false, the answer",
        },
        404: {},
        409: {},
    },
)
async def chat(
    body: ChatRequest,
    caller: SpeakerDep,
    server: ServerDep,
    idempotency_key: Annotated[str | None, Header(max_length=KEY_LENGTH)] = None,
    last_event_id: Annotated[str | None, Header()] = None,
    x_render: Annotated[Literal["html"] | None, Header()] = None,
) -> Response:
    """Answer a message. The turn is stored before the first byte and goes on when the connection drops."""
    turn = (await server.accept(caller, read_message(body, idempotency_key))).turn
    # A request that is sent again, with the same key, is the same turn, and its client may have read some of it.
    cursor = parse_cursor(last_event_id, turn.id)
    if not body.stream:
        return JSONResponse((await _wait(server, caller, turn)).model_dump(mode="json"), headers=_headers(turn))
    return _stream(server, turn, cursor, html=x_render == "html")


def _headers(turn: Turn) -> dict[str, str]:
    return {"X-Conversation-Id": str(turn.conversation_id), "X-Turn-Id": str(turn.id)}


def _stream(server: Server, turn: Turn, cursor: Cursor | None, *, html: bool) -> StreamingResponse:
    events = server.hub.follow(turn.owner_id, turn.id)
    encoder = UIMessageEncoder(turn.id, turn.conversation_id, server.workspace.tools, html=html)
    frames = ui_message_stream(events, encoder, cursor)
    return StreamingResponse(frames, media_type=STREAM_TYPE, headers={**HEADERS, **_headers(turn)})


async def _wait(server: Server, caller: Caller, turn: Turn) -> Answer:
    """The finished turn as one document. Raises Unavailable when this process ends before the turn does."""
    try:
        async for _ in server.hub.follow(turn.owner_id, turn.id):
            pass
    except Moved:
        raise Unavailable(f"This server is stopping; turn {turn.id} goes on: send the same request again") from None
    async with server.database.transaction(caller.id) as session:
        turn = await TurnRepository(session, caller).get(turn.id)
        items = await TurnRepository(session, caller).items(turn)
    messages = messages_of(items, {turn.id: turn}, server.workspace.tools)
    answer = next((m for m in messages if m.role == "assistant"), None)
    return Answer(
        conversation_id=turn.conversation_id,
        turn_id=turn.id,
        status=turn.status,
        agent=turn.agent,
        text=answer.text if answer else "",
        sources=answer.sources if answer else [],
        tools=answer.tools if answer else [],
        reasoning=answer.reasoning if answer else "",
        notes=answer.notes if answer else [],
        finish_reason=answer.finish_reason if answer else "stop",
        output=answer.output if answer else None,
        prompt_sha=answer.prompt_sha if answer else None,
        prompt_version=answer.prompt_version if answer else None,
        usage=turn.usage,
        error=turn.error,
    )


@router.get(
    "/api/chat/{conversation:path}/stream",
    response_class=StreamingResponse,
    responses={200: EVENT_STREAM, 204: {"description": "Nothing is running"}},
)
async def resume(
    conversation: str,
    caller: ReaderDep,
    server: ServerDep,
    last_event_id: Annotated[str | None, Header()] = None,
    x_render: Annotated[Literal["html"] | None, Header()] = None,
) -> Response:
    """The running turn from its start or what comes after `Last-Event-ID`.

    That may be of a turn that has ended since.
    """
    async with server.database.transaction(caller.id) as session:
        row = await ConversationRepository(session, caller).get(conversation)
        turns = TurnRepository(session, caller)
        turn: Turn | None
        if last_event_id:
            # The turn may have ended, and another may be running: the client reads on in the one that it was in.
            turn = await turns.get_by_cursor(last_event_id, row.id)
        else:
            turn = await turns.find_running(row.id)
    if turn is None:
        # `useChat` takes a 204 for nothing to resume.
        return Response(status_code=204)
    return _stream(server, turn, parse_cursor(last_event_id, turn.id), html=x_render == "html")


@router.post("/api/chat/{conversation:path}/stop", status_code=202)
async def stop(conversation: str, caller: WriterDep, server: ServerDep) -> dict[str, bool]:
    """Stop the running turn of a conversation and what waits behind it. `stopped` says whether there was one."""
    async with server.database.transaction(caller.id) as session:
        row = await ConversationRepository(session, caller).get(conversation)
        open_turns = await TurnRepository(session, caller).find_open(row.id)
    # What waits comes first, so that none of it starts when the running one ends.
    for turn in reversed(open_turns):
        await server.runner.stop_turn(turn.owner_id, turn.id)
    return {"stopped": bool(open_turns)}
