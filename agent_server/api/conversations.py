"""The caller's conversations at /api/conversations."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field, field_validator

from agent_server.api.parameters import Limit
from agent_server.bodies import refuse_unstorable
from agent_server.conversations.repository import ConversationRepository
from agent_server.http.auth import ReaderDep, ServerDep, WriterDep
from agent_server.turns.repository import TurnRepository

router = APIRouter(tags=["conversations"])


class ConversationView(BaseModel):
    """A conversation. `agent` is the specialist that answered last, `summary` what models are told of its first turns."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    title: str
    agent: str | None
    summary: str | None
    created_at: datetime
    updated_at: datetime

    @field_validator("summary", mode="before")
    @classmethod
    def _text_of(cls, stored: Any) -> Any:
        return stored.get("text") if isinstance(stored, dict) else stored


class ConversationPage(BaseModel):
    """Conversations with the latest activity first."""

    items: list[ConversationView]
    next_cursor: str | None


class Rename(BaseModel):
    """A new title."""

    model_config = ConfigDict(extra="forbid")

    title: str = Field(min_length=1, max_length=200)


@router.get("/api/conversations")
async def list_conversations(
    caller: ReaderDep,
    server: ServerDep,
    limit: Limit = 50,
    cursor: str | None = None,
    q: Annotated[str | None, Query(max_length=200, description="Words in the title or in a message.")] = None,
) -> ConversationPage:
    """The caller's conversations with the latest first. With `q` they are those that hold it."""
    # Postgres takes no NUL and no half a character, also not in a text to look for.
    refuse_unstorable(q or "", ("q",))
    async with server.database.transaction(caller.id) as session:
        page = await ConversationRepository(session, caller).page_recent(limit, cursor, q)
    return ConversationPage.model_validate(page, from_attributes=True)


@router.get("/api/conversations/{conversation:path}")
async def read_conversation(conversation: str, caller: ReaderDep, server: ServerDep) -> ConversationView:
    """One conversation."""
    async with server.database.transaction(caller.id) as session:
        row = await ConversationRepository(session, caller).get(conversation)
    return ConversationView.model_validate(row)


@router.patch("/api/conversations/{conversation:path}")
async def rename_conversation(
    conversation: str, body: Rename, caller: WriterDep, server: ServerDep
) -> ConversationView:
    """Give it another title."""
    refuse_unstorable(body.title, ("title",))
    async with server.database.transaction(caller.id) as session:
        row = await ConversationRepository(session, caller).get(conversation, lock=True)
        row.title = body.title
    return ConversationView.model_validate(row)


@router.delete("/api/conversations/{conversation:path}", status_code=204)
async def delete_conversation(conversation: str, caller: WriterDep, server: ServerDep) -> None:
    """Delete it with all its messages. An answer that is being written is stopped."""
    async with server.database.transaction(caller.id) as session:
        row = await ConversationRepository(session, caller).get(conversation)
        open_turns = await TurnRepository(session, caller).find_open(row.id)
    # Between two transactions: a turn that ends locks its row and then its conversation's. To hold the conversation here
    # and wait for the turn would be a deadlock.
    for turn in reversed(open_turns):
        await server.runner.stop_turn(turn.owner_id, turn.id)
    async with server.database.transaction(caller.id) as session:
        conversations = ConversationRepository(session, caller)
        await conversations.remove(await conversations.get(row.id))
