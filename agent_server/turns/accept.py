"""Accepting a turn is one transaction that commits before the client is promised anything."""

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import text

from agent_server.caller import Caller, beyond
from agent_server.conversations.ids import find_conversation, name_id, refer
from agent_server.conversations.items import insert_items, items_json, user_message
from agent_server.db import Database, Executor, new_id
from agent_server.errors import Busy, Forbidden, InvalidInput, NotFound, TooMany
from agent_server.identity.credentials import keep_credential
from agent_server.turns.claims import lock_owner
from agent_server.turns.models import TURN_COLUMNS, Turn, turn_of
from agent_server.turns.replacing import MessageName, Version, find_version, replace_turns
from agent_server.turns.replica import ONCE
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
_TURN = text(f"select {TURN_COLUMNS} from turn where owner_id = :owner_id and id = :id")  # noqa: S608  # our own names
# A message that was put into a running turn has no turn of its own; its key is beside it in `steer`.
_SENT = text("""
    select id as turn_id, body_sha from turn where owner_id = :owner_id and client_key = :key
    union all
    select turn_id, body_sha from steer where owner_id = :owner_id and client_key = :key""")
# A counter and not the order of ids: those are only as monotonic as the clocks of the replicas.
# `waiting` is as it was before the lock was waited for, which `latest` tells.
_NUMBER = text("""
    with numbered as (
        update conversation set next_turn = next_turn + 1, updated_at = now()
        where owner_id = :owner_id and id = :id returning next_turn - 1 as turn_no)
    select turn_no,
        (select max(turn_no) from turn where owner_id = :owner_id and conversation_id = :id) as latest,
        (select array_agg(id order by turn_no) from turn
         where owner_id = :owner_id and conversation_id = :id and status in ('queued', 'running')) as waiting
    from numbered""")
_WAITING = text("""
    select id from turn
    where owner_id = :owner_id and conversation_id = :id and status in ('queued', 'running') order by turn_no""")
_EARLIER = text("""
    select distinct input -> 'caller' -> 'scopes' from turn where owner_id = :owner_id and conversation_id = :id""")
_NEW_CONVERSATION = text("""
    insert into conversation (owner_id, id, title, next_turn, client_id, replaced, created_at, updated_at)
    values (:owner_id, :id, :title, 2, :client_id, '{}', now(), now())
    on conflict do nothing returning 1""")
# By the database's clock: the sweep compares `followed_at` with that.
_INSERT = text(f"""
    with running as (select count(*) as n from turn where owner_id = :owner_id and status = 'running'),
    may as (select :can_run and (cast(:at_once as int) is null or n < :at_once) as run from running),
    new as (
        insert into turn (owner_id, id, conversation_id, turn_no, client_key, body_sha, status, owner, epoch, attempts,
                          last_event, last_item, cancel, at_once, leave_after, followed_at, input, created_at)
        select :owner_id, :id, :conversation_id, :turn_no, :client_key, :body_sha,
               case when run then 'running' else 'queued' end, case when run then cast(:replica as uuid) end, 1,
               run::int, 0, 1, false, :at_once, :leave_after,
               case when cast(:leave_after as float) is not null then now() end, cast(:input as jsonb), :created_at
        from may
        returning owner_id, id, conversation_id, turn_no, last_item, status),
    item as ({insert_items("new")})
    select status from new""")  # noqa: S608  # SQL of our own


@dataclass(frozen=True)
class Accepted:
    """The stored turn. `fresh` is False where it was there before: the same request had been accepted, or the message
    was put into the running turn. `interrupted` is the turn that this one asked to stop, `recalled` what was read for
    it. One that is `behind_own` waits for nothing but others of its owner."""

    turn: Turn
    fresh: bool
    behind_own: bool = False
    interrupted: UUID | None = None
    recalled: Any = None


Recall = Callable[[Executor, Caller, UUID, int], Awaitable[Any]]
"""Reads in a transaction what a caller's turn starts from, which has this number in its conversation."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """What a client sends. `conversation_id` is ours or the client's own; `create` says that a conversation with an
    unknown id is to be made; `agent` names who answers; the turn is cancelled when nobody has followed it for
    `leave_after` seconds. `inputs` are values for variables of prompts. A message with a `name` may be a version of another one, which it then replaces."""

    text: str
    conversation_id: UUID | str | None = None
    name: MessageName | None = None
    create: bool = False
    client_key: str | None = None
    agent: str | None = None
    on_busy: OnBusy = "queue"
    leave_after: float | None = None
    inputs: Mapping[str, Any] = field(default_factory=dict)


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
    recall: Recall | None = None,
    format: int = 1,
) -> Accepted:
    """Store the message and its turn. `replica` owns it and it is running if the conversation is idle, it `can_run` and
    fewer than `at_once` of the caller's run (None: any number); else it is queued. `turn_id` is the id of a new turn, and `recall` reads what it starts from where
    it may run. `format` is the newest form of rows that all replicas read.

    The same `client_key` with the same body is the same turn; with another body it is refused. Raises NotFound for a
    conversation that is not the caller's, InvalidInput, Busy (`on_busy` reject) and TooMany (the queue is full).
    """
    async with database.quick(caller.id) as session:
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
            return Accepted(await _get_turn(session, caller, running), fresh=False)
        conversation, turn_no, waiting = await _take_number(session, caller, message, id, client_id)
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
        can_run = can_run and not waiting
        recalled = await recall(session, caller, conversation, turn_no) if can_run and recall else None
        turn = _make_turn(caller, message, turn_id or new_id(), conversation, turn_no, version.key, sha, at_once)
        if can_run and at_once is not None:
            # Last, because all that this caller sends waits for it.
            await lock_owner(session, caller.id)
        await _insert(session, turn, replica=replica, can_run=can_run, format=format)
        behind_own = can_run and turn.status == "queued"
        return Accepted(turn, fresh=True, behind_own=behind_own, interrupted=running, recalled=recalled)


async def find_accepted(database: Database, caller: Caller, message: Message) -> Accepted | None:
    """Find the turn of a message that was accepted before. Raises InvalidInput and Forbidden as `accept`."""
    if message.client_key is None and message.name is None:
        return None
    async with database.quick(caller.id) as session:
        id, _ = await _find_conversation(session, caller, message)
        version = await _find_version(session, caller, message, id)
        sent = await _find_sent(session, caller, version, _hash_body(message, id))
        return None if sent is None else Accepted(sent, fresh=False)


def _hash_body(message: Message, id: UUID | None) -> bytes:
    # By our id: a message is the same one by whichever id its conversation is named.
    whole = [str(id), message.text, message.agent, *([message.inputs] if message.inputs else [])]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).digest()


def _make_turn(
    caller: Caller,
    message: Message,
    id: UUID,
    conversation: UUID,
    turn_no: int,
    key: str | None,
    sha: bytes,
    at_once: int | None,
) -> Turn:
    return Turn(
        owner_id=caller.id,
        id=id,
        conversation_id=conversation,
        turn_no=turn_no,
        client_key=key,
        body_sha=sha,
        status="queued",
        last_item=1,
        at_once=at_once,
        leave_after=message.leave_after,
        input={
            "message": message.text,
            "agent": message.agent,
            "caller": sender_json(caller),
            **({"inputs": dict(message.inputs)} if message.inputs else {}),
        },
    )


async def _insert(session: Executor, turn: Turn, *, replica: UUID, can_run: bool, format: int) -> None:
    """Store the turn with its message, the first item. It is this replica's and runs where it may."""
    # From its first commit: it waits for no sweep, and nobody else claims it.
    values = {
        "owner_id": turn.owner_id,
        "id": turn.id,
        "conversation_id": turn.conversation_id,
        "turn_no": turn.turn_no,
        "client_key": turn.client_key,
        "body_sha": turn.body_sha,
        "at_once": turn.at_once,
        "leave_after": turn.leave_after,
        "input": json.dumps(turn.input),
        "created_at": turn.created_at,
        "replica": replica,
        "can_run": can_run,
        "new_items": items_json([user_message(turn.input["message"])], once=format >= ONCE),
    }
    turn.status = (await session.execute(_INSERT, values)).scalar_one()
    if turn.status == "running":
        turn.owner, turn.attempts = replica, 1


async def _find_conversation(session: Executor, caller: Caller, message: Message) -> tuple[UUID | None, str | None]:
    """The id of the conversation that the message names, also of one to be made. Beside it: what its client calls it."""
    if message.conversation_id is None:
        return None, None
    ref = refer(message.conversation_id, caller.id)
    return await find_conversation(session, caller.id, ref), ref.client_id


async def _find_running(session: Executor, caller: Caller, message: Message, id: UUID | None) -> UUID | None:
    """Find the running turn that the message is to be put into or to stop. None where the message is not for that."""
    if id is None or message.on_busy not in ("steer", "interrupt"):
        return None
    running = await find_running(session, caller.id, id)
    # A turn with scopes that the sender lacks would act for it with them: the message waits behind it.
    if running is None or (message.on_busy == "steer" and not running.may_be_steered_by(caller)):
        return None
    return running.id


async def _find_version(session: Executor, caller: Caller, message: Message, id: UUID | None) -> Version:
    """Which version of its message this is. One with an Idempotency-Key is known by that when it is sent again."""
    if message.name is None or id is None:
        return Version(message.client_key or (message.name.key if message.name else None))
    version = await find_version(session, caller.id, id, message.text, message.name)
    return version if message.client_key is None else replace(version, key=message.client_key, same=None)


async def _find_sent(session: Executor, caller: Caller, version: Version, sha: bytes) -> Turn | None:
    """Find the turn that the message began or was put into when it was sent before. None of one without a key.

    Raises InvalidInput where it was a message with another hash than `sha`, and Forbidden for a caller who may neither
    read conversations nor all that the turn may.
    """
    if version.same is not None:
        same = await _get_turn(session, caller, version.same)
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
    turn = await _get_turn(session, caller, sent.turn_id)
    _check_sender(turn, caller)
    if sent.body_sha != sha:
        raise InvalidInput("This Idempotency-Key was used for another message; use a new key for a new message")
    return turn


async def _get_turn(session: Executor, caller: Caller, id: UUID) -> Turn:
    return turn_of((await session.execute(_TURN, {"owner_id": caller.id, "id": id})).one())


def _check_sender(turn: Turn, caller: Caller) -> None:
    # Its answer may hold what another credential of this owner was given.
    if beyond(turn.input["caller"]["scopes"], caller.scopes) and not caller.may(_READ):
        raise Forbidden(
            f"Another credential used this Idempotency-Key; reading its answer needs the scope {_READ}", _READ
        )


async def _take_number(
    session: Executor, caller: Caller, message: Message, known: UUID | None, client_id: str | None
) -> tuple[UUID, int, Sequence[UUID]]:
    """The conversation, the number of its new turn, and those that run or wait before it. The conversation's row is
    locked until the commit.

    `known` is the conversation's id where the message names one, and `client_id` what its client calls it.

    Raises NotFound, Unauthorized for a caller who is erased in this instant, and Forbidden for one who may not read what
    was said in the conversation.
    """
    id = known or new_id()
    key = {"owner_id": caller.id, "id": id}
    numbered = None if known is None else (await session.execute(_NUMBER, key)).one_or_none()
    if numbered is None and (known is None or message.create):
        await keep_credential(session, caller)
        new = {**key, "title": _title(message.text), "client_id": client_id}
        if (await session.execute(_NEW_CONVERSATION, new)).one_or_none():
            return id, 1, ()
        # another message began the same conversation in this instant
        numbered = (await session.execute(_NUMBER, key)).one_or_none()
    if numbered is None:
        raise NotFound(
            f"There is no conversation {name_id(message.conversation_id or id)}; leave the id out to begin one"
        )
    if not caller.may(_READ):
        await _check_earlier(session, caller, key)
    if numbered.turn_no > 1 and numbered.latest != numbered.turn_no - 1:
        return id, numbered.turn_no, (await session.execute(_WAITING, key)).scalars().all()
    return id, numbered.turn_no, numbered.waiting or ()


async def _check_earlier(session: Executor, caller: Caller, conversation: dict[str, UUID]) -> None:
    """Raises Forbidden where the conversation holds what another credential of this owner was given."""
    # Its model reads all of it, and may repeat it.
    earlier = (await session.execute(_EARLIER, conversation)).scalars()
    if beyond(frozenset().union(*earlier), caller.scopes):
        raise Forbidden(f"Another credential began this conversation; going on with it needs the scope {_READ}", _READ)


def _title(message: str) -> str:
    title = " ".join(message.split())
    return title if len(title) <= TITLE_LENGTH else title[: TITLE_LENGTH - 1].rsplit(" ", 1)[0] + "…"
