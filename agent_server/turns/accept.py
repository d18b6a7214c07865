"""Accepting a turn is one transaction that commits before the client is promised anything."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal
from uuid import UUID

from sqlalchemy import insert, literal, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import SQLModel

from agent_server.caller import Caller, beyond
from agent_server.conversations.ids import name_id, refer
from agent_server.conversations.items import insert_items, items_json, user_message
from agent_server.conversations.models import Conversation
from agent_server.conversations.repository import ConversationRepository
from agent_server.db import Database, new_id
from agent_server.errors import Busy, Forbidden, InvalidInput, NotFound, TooMany
from agent_server.identity.credentials import keep_credential
from agent_server.turns.claims import may_begin
from agent_server.turns.models import Turn
from agent_server.turns.replacing import MessageName, Version, find_version, replace_turns
from agent_server.turns.sender import sender_json
from agent_server.turns.steering import add_steer, find_running
from agent_server.wording import count

OnBusy = Literal["queue", "reject", "steer", "interrupt"]
"""What becomes of a message to a conversation that is still answering: it waits its turn, is refused, is put into the
running turn (where its sender holds all that the turn does; else it waits), or stops the running turn and waits only for that."""
TITLE_LENGTH = 60
_READ = "conversations:read"

_INTERRUPT = text("""
    update turn set cancel = true where owner_id = :owner_id and id = :id and status = 'running'""")
# A message that was put into a running turn has no turn of its own; its key is beside it in `steer`.
_SENT = text("""
    select id as turn_id, body_sha from turn where owner_id = :owner_id and client_key = :key
    union all
    select turn_id, body_sha from steer where owner_id = :owner_id and client_key = :key""")
# A counter and not the order of ids: those are only as monotonic as the clocks of the replicas.
_NUMBER = text("""
    update conversation set next_turn = next_turn + 1, updated_at = now()
    where owner_id = :owner_id and id = :id returning next_turn - 1""")
_WAITING = text("""
    select id from turn
    where owner_id = :owner_id and conversation_id = :id and status in ('queued', 'running') order by turn_no""")
_EARLIER = text("""
    select distinct input -> 'caller' -> 'scopes' from turn where owner_id = :owner_id and conversation_id = :id""")
# By table, not by entity: the session has no more to do with what is only stored.
_NEW_CONVERSATION = (
    postgresql.insert(SQLModel.metadata.tables["conversation"]).on_conflict_do_nothing().returning(literal(1))
)
_NEW_TURN = insert(SQLModel.metadata.tables["turn"])
_FIRST_ITEM = text(insert_items("(select * from turn where owner_id = :owner_id and id = :id)"))
# By the database's clock: the sweep compares it with that.
_FOLLOWED = text("update turn set followed_at = now() where owner_id = :owner_id and id = :id")


@dataclass(frozen=True)
class Accepted:
    """The stored turn. `fresh` is False where it was there before: the same request had been accepted, or the message
    was put into the running turn. `interrupted` is the turn that this one asked to stop."""

    turn: Turn
    fresh: bool
    interrupted: UUID | None = None


@dataclass(frozen=True, kw_only=True)
class Message:
    """What a client sends. `conversation_id` is ours or the client's own; `create` says that a conversation with an
    unknown id is to be made; `agent` names who answers; the turn is cancelled when nobody has followed it for
    `leave_after` seconds. A message with a `name` may be a version of another one, which it then replaces."""

    text: str
    conversation_id: UUID | str | None = None
    name: MessageName | None = None
    create: bool = False
    client_key: str | None = None
    agent: str | None = None
    on_busy: OnBusy = "queue"
    leave_after: float | None = None


async def accept(
    database: Database,
    caller: Caller,
    message: Message,
    *,
    replica: UUID,
    queue_limit: int,
    can_run: bool,
    at_once: int | None = None,
    turn_id: UUID | None = None,
) -> Accepted:
    """Store the message and its turn. `replica` owns it and it is running if the conversation is idle, it `can_run` and
    fewer than `at_once` of the caller's run (None: any number); else it is queued. `turn_id` is the id of a new turn.

    The same `client_key` with the same body is the same turn; with another body it is refused. Raises NotFound for a
    conversation that is not the caller's, InvalidInput, Busy (`on_busy` reject) and TooMany (the queue is full).
    """
    async with database.transaction(caller.id) as session:
        id, client_id = await _find_conversation(session, caller, message)
        sha = _hash_body(message, id)
        version = await _find_version(session, caller, message, id)
        # First: a message that is sent again finds its turn also where the queue is full by now.
        if sent := await _find_sent(session, caller, version, sha):
            return Accepted(sent, fresh=False)
        # Before the conversation is locked: the write that ends a turn locks the two in this order.
        running = None if version.first else await _find_running(session, caller, message, id)
        if running is not None and message.on_busy == "steer":
            await add_steer(session, caller.id, running, message=message.text, client_key=version.key, body_sha=sha)
            return Accepted(await session.get_one(Turn, (caller.id, running)), fresh=False)
        conversation, turn_no = await _take_number(session, caller, message, id, client_id)
        waiting = await _find_waiting(session, caller, conversation) if turn_no > 1 else []
        # A refusal rolls the new number back, so the numbers of turns have no gap.
        if version.first is not None:
            running = await replace_turns(session, caller.id, conversation, first=version.first, turn_no=turn_no)
        elif waiting and message.on_busy == "reject":
            raise Busy(
                "This conversation is still being answered; wait, stop the answer, or send with on_busy: queue",
                waiting[0],
            )
        if len(waiting) > queue_limit:
            there = count(len(waiting), "message", ("waits", "wait"))
            raise TooMany(f"{there} in this conversation already; wait for an answer first")
        if running is not None and version.first is None:
            await session.execute(_INTERRUPT, {"owner_id": caller.id, "id": running})
        # It is this replica's from its first commit: it waits for no sweep, and nobody else claims it.
        runs = can_run and not waiting and await may_begin(session, caller.id, at_once)
        turn = Turn(
            owner_id=caller.id,
            id=turn_id or new_id(),
            conversation_id=conversation,
            turn_no=turn_no,
            client_key=version.key,
            body_sha=sha,
            status="running" if runs else "queued",
            owner=replica if runs else None,
            attempts=1 if runs else 0,
            last_item=1,
            at_once=at_once,
            leave_after=message.leave_after,
            input={"message": message.text, "agent": message.agent, "caller": sender_json(caller)},
        )
        await _insert(session, turn, message)
        return Accepted(turn, fresh=True, interrupted=running)


async def find_accepted(database: Database, caller: Caller, message: Message) -> Accepted | None:
    """Find the turn of a message that was accepted before. Raises InvalidInput and Forbidden as `accept`."""
    if message.client_key is None and message.name is None:
        return None
    async with database.transaction(caller.id) as session:
        id, _ = await _find_conversation(session, caller, message)
        version = await _find_version(session, caller, message, id)
        sent = await _find_sent(session, caller, version, _hash_body(message, id))
        return None if sent is None else Accepted(sent, fresh=False)


def _hash_body(message: Message, id: UUID | None) -> bytes:
    # By our id: a message is the same one by whichever id its conversation is named.
    return hashlib.sha256(json.dumps([str(id), message.text, message.agent]).encode()).digest()


async def _insert(session: AsyncSession, turn: Turn, message: Message) -> None:
    """Store the turn with its message, the first item."""
    key = {"owner_id": turn.owner_id, "id": turn.id}
    await session.execute(_NEW_TURN, turn.model_dump())
    await session.execute(_FIRST_ITEM, {**key, "new_items": items_json([user_message(message.text)])})
    if message.leave_after is not None:
        await session.execute(_FOLLOWED, key)


async def _find_conversation(session: AsyncSession, caller: Caller, message: Message) -> tuple[UUID | None, str | None]:
    """The id of the conversation that the message names, also of one to be made. Beside it: what its client calls it."""
    if message.conversation_id is None:
        return None, None
    ref = refer(message.conversation_id, caller.id)
    return await ConversationRepository(session, caller).find_id(ref), ref.client_id


async def _find_running(session: AsyncSession, caller: Caller, message: Message, id: UUID | None) -> UUID | None:
    """Find the running turn that the message is to be put into or to stop. None where the message is not for that."""
    if id is None or message.on_busy not in ("steer", "interrupt"):
        return None
    running = await find_running(session, caller.id, id)
    # A turn with scopes that the sender lacks would act for it with them: the message waits behind it.
    if running is None or (message.on_busy == "steer" and not running.may_be_steered_by(caller)):
        return None
    return running.id


async def _find_version(session: AsyncSession, caller: Caller, message: Message, id: UUID | None) -> Version:
    """Which version of its message this is. One with an Idempotency-Key is known by that when it is sent again."""
    if message.name is None or id is None:
        return Version(message.client_key or (message.name.key if message.name else None))
    version = await find_version(session, caller.id, id, message.text, message.name)
    return version if message.client_key is None else replace(version, key=message.client_key, same=None)


async def _find_sent(session: AsyncSession, caller: Caller, version: Version, sha: bytes) -> Turn | None:
    """Find the turn that the message began or was put into when it was sent before. None of one without a key.

    Raises InvalidInput where it was a message with another hash than `sha`, and Forbidden for a caller who may neither
    read conversations nor all that the turn may.
    """
    if version.same is not None:
        same = await session.get_one(Turn, (caller.id, version.same))
        _check_sender(same, caller)
        return same
    key = version.key
    if key is None:
        return None
    # Two copies of one request may arrive together; the second waits here until the first has committed.
    await session.execute(
        text("select pg_advisory_xact_lock(hashtextextended(:key, 0))"), {"key": f"{caller.id}:{key}"}
    )
    sent = (await session.execute(_SENT, {"owner_id": caller.id, "key": key})).one_or_none()
    if sent is None:
        return None
    turn = await session.get_one(Turn, (caller.id, sent.turn_id))
    _check_sender(turn, caller)
    if sent.body_sha != sha:
        raise InvalidInput("This Idempotency-Key was used for another message; use a new key for a new message")
    return turn


def _check_sender(turn: Turn, caller: Caller) -> None:
    # Its answer may hold what another credential of this owner was given.
    if beyond(turn.input["caller"]["scopes"], caller.scopes) and not caller.may(_READ):
        raise Forbidden(
            f"Another credential used this Idempotency-Key; reading its answer needs the scope {_READ}", _READ
        )


async def _take_number(
    session: AsyncSession, caller: Caller, message: Message, known: UUID | None, client_id: str | None
) -> tuple[UUID, int]:
    """The conversation and the number of its new turn. The conversation's row is locked until the commit.

    `known` is the conversation's id where the message names one, and `client_id` what its client calls it.

    Raises NotFound, Unauthorized for a caller who is erased in this instant, and Forbidden for one who may not read what
    was said in the conversation.
    """
    id = known or new_id()
    key = {"owner_id": caller.id, "id": id}
    number = None if known is None else (await session.execute(_NUMBER, key)).scalar()
    if number is None and (known is None or message.create):
        await keep_credential(session, caller)
        new = Conversation(owner_id=caller.id, id=id, title=_title(message.text), next_turn=2, client_id=client_id)
        if (await session.execute(_NEW_CONVERSATION, new.model_dump())).one_or_none():
            return id, 1
        # another message began the same conversation in this instant
        number = (await session.execute(_NUMBER, key)).scalar()
    if number is None:
        raise NotFound(
            f"There is no conversation {name_id(message.conversation_id or id)}; leave the id out to begin one"
        )
    if not caller.may(_READ):
        await _check_earlier(session, caller, key)
    return id, number


async def _check_earlier(session: AsyncSession, caller: Caller, conversation: dict[str, UUID]) -> None:
    """Raises Forbidden where the conversation holds what another credential of this owner was given."""
    # Its model reads all of it, and may repeat it.
    earlier = (await session.execute(_EARLIER, conversation)).scalars()
    if beyond(frozenset().union(*earlier), caller.scopes):
        raise Forbidden(f"Another credential began this conversation; going on with it needs the scope {_READ}", _READ)


def _title(message: str) -> str:
    title = " ".join(message.split())
    return title if len(title) <= TITLE_LENGTH else title[: TITLE_LENGTH - 1].rsplit(" ", 1)[0] + "…"


async def _find_waiting(session: AsyncSession, caller: Caller, conversation_id: UUID) -> Sequence[UUID]:
    """The turn that runs in a conversation and those that wait behind it. They are in order."""
    return (await session.execute(_WAITING, {"owner_id": caller.id, "id": conversation_id})).scalars().all()
