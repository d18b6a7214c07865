"""Accepting a turn: one transaction that commits before the client is promised anything."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import func, insert, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from agent_server.conversations.models import Conversation, Item
from agent_server.conversations.repository import ConversationRepository
from agent_server.db import Database, new_id, now
from agent_server.errors import Conflict, InvalidInput, NotFound, TooMany
from agent_server.identity import Caller
from agent_server.turns.models import Turn

OnBusy = Literal["queue", "reject"]
TITLE_LENGTH = 60


@dataclass(frozen=True)
class Accepted:
    """`turn` is stored; `fresh` is False where the same request had been accepted before."""

    turn: Turn
    fresh: bool


@dataclass(frozen=True, kw_only=True)
class Message:
    """What a client sends: `text`, in a conversation of the caller's or a new one; `create` where a conversation that
    is not there yet is to be made with that id; `agent` where it names who answers."""

    text: str
    conversation_id: UUID | None = None
    create: bool = False
    client_key: str | None = None
    agent: str | None = None
    on_busy: OnBusy = "queue"


async def accept(
    database: Database, caller: Caller, message: Message, *, replica: UUID, queue_limit: int, can_run: bool
) -> Accepted:
    """Store the message and its turn; running and owned by `replica` if the conversation is idle and it `can_run`.

    The same `client_key` with the same body is the same turn; with another body it is refused. Raises NotFound for a
    conversation that is not the caller's, InvalidInput, Conflict (`on_busy` reject) and TooMany (the queue is full).
    """
    sha = hashlib.sha256(json.dumps([str(message.conversation_id), message.text, message.agent]).encode()).digest()
    async with database.transaction() as session:
        if message.client_key is not None and (turn := await _sent_before(session, caller, message.client_key)):
            if turn.body_sha != sha:
                raise InvalidInput("This Idempotency-Key was used for another message; use a new key for a new message")
            return Accepted(turn, fresh=False)
        conversation, turn_no = await _conversation(session, caller, message)
        waiting = await _waiting(session, caller, conversation) if turn_no > 1 else 0
        if waiting and message.on_busy == "reject":
            raise Conflict("This conversation is still answering; wait, stop it, or send with on_busy: queue")
        if waiting > queue_limit:
            raise TooMany(f"{waiting} messages wait in this conversation already; wait for an answer first")
        running = can_run and not waiting
        turn = Turn(
            owner_id=caller.id,
            id=new_id(),
            conversation_id=conversation,
            turn_no=turn_no,
            client_key=message.client_key,
            body_sha=sha,
            status="running" if running else "queued",
            owner=replica if running else None,
            attempts=1 if running else 0,
            last_item=1,
            input={
                "message": message.text,
                "agent": message.agent,
                "caller": {"kind": caller.kind, "scopes": sorted(caller.scopes)},
            },
        )
        session.add(turn)
        await session.flush()
        await session.execute(insert(Item), [_user_item(turn, message.text)])
        return Accepted(turn, fresh=True)


async def _sent_before(session: AsyncSession, caller: Caller, key: str) -> Turn | None:
    # Two copies of one request may arrive together; the second waits here until the first has committed.
    await session.execute(
        text("select pg_advisory_xact_lock(hashtextextended(:key, 0))"), {"key": f"{caller.id}:{key}"}
    )
    statement = select(Turn).where(col(Turn.owner_id) == caller.id, col(Turn.client_key) == key)
    return (await session.execute(statement)).scalar_one_or_none()


async def _conversation(session: AsyncSession, caller: Caller, message: Message) -> tuple[UUID, int]:
    """The conversation and the number of its new turn; locks the conversation's row until the commit."""
    repository = ConversationRepository(session, caller)
    row = None if message.conversation_id is None else await repository.find(message.conversation_id, lock=True)
    if row is None and (message.conversation_id is None or message.create):
        id = message.conversation_id or new_id()
        new = Conversation(owner_id=caller.id, id=id, title=_title(message.text), next_turn=2)
        made = postgresql.insert(Conversation).values(new.model_dump()).on_conflict_do_nothing()
        if (await session.execute(made.returning(col(Conversation.id)))).one_or_none():
            return id, 1
        row = await repository.get(id, lock=True)  # another message began the same conversation in this instant
    if row is None:
        raise NotFound(f"There is no conversation {message.conversation_id}; leave `id` out to begin one")
    number, row.next_turn, row.updated_at = row.next_turn, row.next_turn + 1, now()
    return row.id, number


def _title(message: str) -> str:
    title = " ".join(message.split())
    return title if len(title) <= TITLE_LENGTH else title[: TITLE_LENGTH - 1].rsplit(" ", 1)[0] + "…"


async def _waiting(session: AsyncSession, caller: Caller, conversation_id: UUID) -> int:
    statement = (
        select(func.count())
        .select_from(Turn)
        .where(
            col(Turn.owner_id) == caller.id,
            col(Turn.conversation_id) == conversation_id,
            col(Turn.status).in_(("queued", "running")),
        )
    )
    return (await session.execute(statement)).scalar_one()


def _user_item(turn: Turn, message: str) -> dict[str, Any]:
    return {
        "owner_id": turn.owner_id,
        "conversation_id": turn.conversation_id,
        "turn_no": turn.turn_no,
        "k": 1,
        "turn_id": turn.id,
        "role": "user",
        "text": message,
        "body": {"role": "user", "content": message},
        "sources": [],
        "created_at": now(),
    }
