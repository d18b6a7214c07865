"""/api/conversations: list, read, rename, delete, search; /api/passages: what a citation opens."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from agent_server.api.chat import client_conversation_id
from agent_server.api.messages import ReadMessage, messages_of
from agent_server.conversations.repository import ConversationRepository, ItemRepository
from agent_server.http.scopes import ReaderDep, WriterDep
from agent_server.knowledge.search import get_passage
from agent_server.server import ServerDep
from agent_server.tool import refuse_unstorable
from agent_server.turns.repository import TurnRepository
from agent_server.web.render import render_blocks

router = APIRouter(tags=["conversations"])


class ConversationView(BaseModel):
    """A conversation; `agent` is the specialist that answered last."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    title: str
    agent: str | None
    created_at: datetime
    updated_at: datetime


class ConversationPage(BaseModel):
    """Conversations, latest activity first."""

    items: list[ConversationView]
    next_cursor: str | None


class Rename(BaseModel):
    """A new title."""

    model_config = ConfigDict(extra="forbid")

    title: str = Field(min_length=1, max_length=200)


class MessagePage(BaseModel):
    """Messages, oldest first."""

    items: list[dict[str, Any]]
    next_cursor: str | None


Limit = Annotated[int, Query(ge=1, le=200)]


@router.get("/api/conversations")
async def list_conversations(
    caller: ReaderDep,
    server: ServerDep,
    limit: Limit = 50,
    cursor: str | None = None,
    q: Annotated[str | None, Query(max_length=200, description="Words in the title or in a message.")] = None,
) -> ConversationPage:
    """The caller's conversations, latest first; with `q`, those that hold it."""
    refuse_unstorable(q or "", ("q",))
    async with server.database.transaction(caller.id) as session:
        page = await ConversationRepository(session, caller).page_recent(limit, cursor, q)
    return ConversationPage.model_validate(page, from_attributes=True)


@router.get("/api/conversations/{conversation}")
async def read_conversation(conversation: str, caller: ReaderDep, server: ServerDep) -> ConversationView:
    """One conversation."""
    async with server.database.transaction(caller.id) as session:
        row = await ConversationRepository(session, caller).get(client_conversation_id(conversation, caller))
    return ConversationView.model_validate(row)


@router.patch("/api/conversations/{conversation}")
async def rename_conversation(
    conversation: str, body: Rename, caller: WriterDep, server: ServerDep
) -> ConversationView:
    """Give it another title."""
    refuse_unstorable(body.title, ("title",))
    async with server.database.transaction(caller.id) as session:
        row = await ConversationRepository(session, caller).get(client_conversation_id(conversation, caller), lock=True)
        row.title = body.title
    return ConversationView.model_validate(row)


@router.delete("/api/conversations/{conversation}", status_code=204)
async def delete_conversation(conversation: str, caller: WriterDep, server: ServerDep) -> None:
    """Delete it with all its messages; an answer that is being written is stopped."""
    async with server.database.transaction(caller.id) as session:
        row = await ConversationRepository(session, caller).get(client_conversation_id(conversation, caller))
        open_turns = await TurnRepository(session, caller).find_open(row.id)
    for turn in reversed(open_turns):
        await server.runner.stop_turn(turn.owner_id, turn.id)
    async with server.database.transaction(caller.id) as session:
        conversations = ConversationRepository(session, caller)
        await conversations.remove(await conversations.get(row.id))


@router.get("/api/conversations/{conversation}/messages")
async def list_messages(
    conversation: str,
    caller: ReaderDep,
    server: ServerDep,
    limit: Limit = 100,
    cursor: str | None = None,
    render: Literal["html"] | None = None,
) -> MessagePage:
    """The messages, oldest first; with `render=html`, answers also as sanitised HTML blocks."""
    async with server.database.transaction(caller.id) as session:
        conversations = ConversationRepository(session, caller)
        row = await conversations.get(client_conversation_id(conversation, caller))
        page = await ItemRepository(conversations, row.id).page(limit, cursor)
        numbers = sorted({item.turn_no for item in page.items})
        turns = {turn.id: turn for turn in await TurnRepository(session, caller).list_by_number(row.id, numbers)}
    items = [_view(message, html=render == "html") for message in messages_of(page.items, turns)]
    return MessagePage(items=items, next_cursor=page.next_cursor)


def _view(message: ReadMessage, *, html: bool) -> dict[str, Any]:
    view = {**vars(message), "tools": [vars(tool) for tool in message.tools]}
    if html and message.role == "assistant":
        view["html"] = render_blocks(message.text, [source["n"] for source in message.sources])
    return view


class PassageView(BaseModel):
    """A passage of the content as it now is; `start` and `end` are character offsets in the document's file."""

    id: str
    document: str
    title: str
    heading: str
    text: str
    html: str
    start: int
    end: int


@router.get("/api/passages/{passage}")
async def read_passage(passage: Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")], server: ServerDep) -> PassageView:
    """The passage that a citation names."""
    async with server.database.transaction() as session:
        found = await get_passage(session, passage)
    html = "".join(render_blocks(found.text))
    return PassageView(
        id=found.id,
        document=found.document,
        title=found.title,
        heading=found.heading,
        text=found.text,
        html=html,
        start=found.start,
        end=found.end,
    )
