"""POST /api/chat and the streams that follow a turn."""

import hashlib
from typing import Annotated, Any, Literal
from uuid import UUID, uuid5

from fastapi import APIRouter, Header, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from agent_server.api.messages import ToolUse, messages_of
from agent_server.caller import Caller
from agent_server.conversations.repository import ConversationRepository
from agent_server.errors import InvalidInput, Unavailable
from agent_server.http.scopes import ReaderDep, SpeakerDep, WriterDep
from agent_server.protocols.ai_sdk.stream import Cursor, UIMessageEncoder, event_stream, parse_cursor, ui_message_stream
from agent_server.server import Server, ServerDep
from agent_server.turns.accept import Accepted, Message, OnBusy
from agent_server.turns.hub import Moved
from agent_server.turns.models import Turn
from agent_server.turns.repository import TurnRepository

router = APIRouter(tags=["chat"])

KEY_LENGTH = 200
STREAM_HEADERS = {
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",
    "x-vercel-ai-ui-message-stream": "v1",
}

EVENT_STREAM: dict[str, Any] = {"content": {"text/event-stream": {}}}


class UIPart(BaseModel):
    """One part of an AI SDK message; only `text` parts are read."""

    model_config = ConfigDict(extra="allow")

    type: str
    text: str | None = None


class UIMessage(BaseModel):
    """A message as `useChat` sends it."""

    model_config = ConfigDict(extra="allow")

    id: str | None = None
    role: Literal["user", "assistant", "system"]
    parts: list[UIPart] = Field(default_factory=list)


_ONLY_MESSAGE: JsonDict = {
    "required": ["message"],
    "properties": {"message": {"type": "string"}, "messages": {"type": "null"}},
}
_ONLY_MESSAGES: JsonDict = {
    "required": ["messages"],
    "properties": {"messages": {"type": "array"}, "message": {"type": "null"}},
}


class ChatRequest(BaseModel):
    """A message to answer: `message`, or the AI SDK's `messages`, of which the last one is answered."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"oneOf": [_ONLY_MESSAGE, _ONLY_MESSAGES]})

    id: str | None = Field(None, max_length=100, description="The conversation; absent for a new one.")
    message: str | None = Field(None, description="What the user says.")
    messages: list[UIMessage] | None = Field(None, description="As `useChat` sends them; earlier ones are not read.")
    agent: str | None = Field(None, description="Who answers, where it is not for the server to decide.")
    on_busy: OnBusy = Field(
        "queue",
        description="While an answer is being written: wait behind it, be refused, be put into it, or stop it.",
    )
    cancel_on_disconnect: float | None = Field(
        None, ge=2, le=3600, description="Cancel the turn when nobody has followed it for so many seconds."
    )
    stream: bool = Field(True, description="False: one JSON document when the answer is complete.")
    trigger: Literal["submit-message", "regenerate-message"] = "submit-message"
    messageId: str | None = Field(None, max_length=KEY_LENGTH)

    @model_validator(mode="after")
    def _one_form(self) -> "ChatRequest":
        if (self.message is None) == (self.messages is None):
            raise ValueError("send either `message` (a text) or `messages` (AI SDK)")
        return self

    @property
    def text(self) -> str:
        if self.message is not None:
            return self.message
        last = self._last
        if any(part.type == "file" for part in last.parts):
            raise InvalidInput("messages: files cannot be read; send text")
        return "".join(part.text or "" for part in last.parts if part.type == "text")

    @property
    def client_key(self) -> str | None:
        """The AI SDK's id of the message, where a repeat of it is the same send."""
        if self.messages is None or self.trigger != "submit-message" or self._last.id is None:
            return None
        return f"message:{hashlib.sha256(f'{self.id}:{self._last.id}'.encode()).hexdigest()}"

    @property
    def _last(self) -> UIMessage:
        said = [message for message in self.messages or () if message.role == "user"]
        if not said:
            raise InvalidInput("messages: there is no message of the user's")
        return said[-1]


class Answer(BaseModel):
    """A finished turn. `tools` are its calls; `error` is what it failed with."""

    conversation_id: UUID
    turn_id: UUID
    status: str
    agent: str | None
    text: str
    sources: list[dict[str, Any]]
    tools: list[ToolUse]
    usage: dict[str, Any] | None
    error: dict[str, Any] | None


@router.post(
    "/api/chat",
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
    turn = (await _accept(server, caller, body, idempotency_key)).turn
    cursor = parse_cursor(last_event_id, turn.id)
    headers = {"X-Conversation-Id": str(turn.conversation_id), "X-Turn-Id": str(turn.id)}
    if not body.stream:
        return JSONResponse((await _whole(server, caller, turn)).model_dump(mode="json"), headers=headers)
    return _streamed(server, turn, cursor, html=x_render == "html", headers=headers)


async def _accept(server: Server, caller: Caller, body: ChatRequest, idempotency_key: str | None) -> Accepted:
    conversation_id, create = _conversation_id(body, caller)
    message = Message(
        text=body.text,
        conversation_id=conversation_id,
        create=create,
        client_key=idempotency_key or body.client_key,
        agent=body.agent,
        on_busy=body.on_busy,
        leave_after=body.cancel_on_disconnect,
    )
    return await server.accept(caller, message)


def _conversation_id(body: ChatRequest, caller: Caller) -> tuple[UUID | None, bool]:
    """The conversation that is meant, and whether it comes into being if it is not there.

    `useChat` makes up its chat ids; each stands for one conversation of this caller's.
    """
    if body.id is None:
        return None, True
    if body.messages is not None:
        return client_conversation_id(body.id, caller), True
    return parse_id(body.id), False


def client_conversation_id(id: str, caller: Caller) -> UUID:
    """Our id of the conversation that this caller's client calls `id`; our own ids stand for themselves."""
    try:
        own = UUID(id)
    except ValueError:
        return uuid5(caller.id, id)
    return own if own.version == 7 else uuid5(caller.id, id)


def parse_id(id: str) -> UUID:
    try:
        return UUID(id)
    except ValueError:
        raise InvalidInput("id: not a conversation's id; leave it out to begin a new one") from None


def _streamed(
    server: Server, turn: Turn, cursor: Cursor | None, *, html: bool, headers: dict[str, str] | None = None
) -> StreamingResponse:
    events = server.hub.follow(turn.owner_id, turn.id)
    frames = ui_message_stream(events, UIMessageEncoder(turn.id, turn.conversation_id, html=html), cursor)
    return StreamingResponse(frames, media_type="text/event-stream", headers={**STREAM_HEADERS, **(headers or {})})


async def _whole(server: Server, caller: Caller, turn: Turn) -> Answer:
    """The finished turn as one document. Raises Unavailable when this process ends before the turn does."""
    try:
        async for _ in server.hub.follow(turn.owner_id, turn.id):
            pass
    except Moved:
        raise Unavailable(f"This server is stopping; turn {turn.id} goes on: send the same request again") from None
    async with server.database.transaction(caller.id) as session:
        turn = await TurnRepository(session, caller).get(turn.id)
        items = await TurnRepository(session, caller).items(turn)
    answer = next((m for m in messages_of(items, {turn.id: turn}) if m.role == "assistant"), None)
    return Answer(
        conversation_id=turn.conversation_id,
        turn_id=turn.id,
        status=turn.status,
        agent=turn.agent,
        text=answer.text if answer else "",
        sources=answer.sources if answer else [],
        tools=answer.tools if answer else [],
        usage=turn.usage,
        error=turn.error,
    )


@router.get(
    "/api/chat/{conversation}/stream",
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
    """The running turn from its start, or what comes after `Last-Event-ID`, also of a turn that has ended since."""
    async with server.database.transaction(caller.id) as session:
        row = await ConversationRepository(session, caller).get(client_conversation_id(conversation, caller))
        turns = TurnRepository(session, caller)
        turn: Turn | None
        if last_event_id:
            turn = await turns.get_by_cursor(last_event_id, row.id)
        else:
            turn = await turns.find_running(row.id)
    if turn is None:
        return Response(status_code=204)
    headers = {"X-Conversation-Id": str(turn.conversation_id), "X-Turn-Id": str(turn.id)}
    return _streamed(server, turn, parse_cursor(last_event_id, turn.id), html=x_render == "html", headers=headers)


@router.post("/api/chat/{conversation}/stop", status_code=202)
async def stop(conversation: str, caller: WriterDep, server: ServerDep) -> dict[str, bool]:
    """Stop the running turn of a conversation and what waits behind it; `stopped` says whether there was one."""
    async with server.database.transaction(caller.id) as session:
        row = await ConversationRepository(session, caller).get(client_conversation_id(conversation, caller))
        open_turns = await TurnRepository(session, caller).find_open(row.id)
    for turn in reversed(open_turns):  # what waits first, so that none of it starts when the running one ends
        await server.runner.stop_turn(turn.owner_id, turn.id)
    return {"stopped": bool(open_turns)}


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
    """Status, agent, usage and error of a turn."""
    async with server.database.transaction(caller.id) as session:
        row = await TurnRepository(session, caller).get(turn)
    return TurnView.model_validate(row, from_attributes=True)


@router.post("/api/turns/{turn}/cancel", status_code=202)
async def cancel_turn(turn: UUID, caller: WriterDep, server: ServerDep) -> dict[str, bool]:
    """Stop a turn, running or waiting; `stopped` is False where it had ended."""
    async with server.database.transaction(caller.id) as session:
        row = await TurnRepository(session, caller).get(turn)
    if row.finished_at is None:
        await server.runner.stop_turn(row.owner_id, row.id)
    return {"stopped": row.finished_at is None}


@router.get("/api/turns/{turn}/events", response_class=StreamingResponse, responses={200: EVENT_STREAM})
async def read_events(
    turn: UUID, caller: ReaderDep, server: ServerDep, last_event_id: Annotated[str | None, Header()] = None
) -> Response:
    """The turn's own events, `id: <turn>:<seq>`, from the start or after `Last-Event-ID`, to the last."""
    async with server.database.transaction(caller.id) as session:
        row = await TurnRepository(session, caller).get(turn)
    cursor = parse_cursor(last_event_id, row.id)
    events = server.hub.follow(row.owner_id, row.id, cursor.seq if cursor else 0)
    return StreamingResponse(event_stream(row.id, events), media_type="text/event-stream", headers=STREAM_HEADERS)
