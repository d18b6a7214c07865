"""Messages that are put into a running turn. Each is stored beside it, given to its next model call, and never lost.

The turn goes on with its own scopes. So a message is put into it only where its sender holds all of them, and one that
becomes a turn of its own has no more than its sender.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text

from agent_server.caller import Caller, beyond
from agent_server.conversations.items import insert_items, items_json, user_message
from agent_server.db import Executor, new_id
from agent_server.errors import TooMany

# Not one that is to stop: it calls no model any more, so nobody would answer the message.
_RUNNING = text("""
    select id, input -> 'caller' ->> 'kind' as kind, input -> 'caller' -> 'scopes' as scopes from turn
    where owner_id = :owner_id and conversation_id = :conversation_id and status = 'running' and not cancel
    for update""")

MOST_WAITING = 20
"""Messages put into a turn that no model call has been given yet."""

_ADD = text("""
    with of_turn as (
        update turn set steers = steers + 1 where owner_id = :owner_id and id = :id and status = 'running'
        returning steers)
    insert into steer (owner_id, turn_id, i, client_key, body_sha, text, created_at)
    select :owner_id, :id, steers, :client_key, :body_sha, :text, now() from of_turn""")

_WAITING = text("""
    select count(*) from steer where owner_id = :owner_id and turn_id = :id and consumed_n is null""")

# Deleted, because their keys go over to the turns that are made of them.
_LEFT = text("""
    delete from steer where owner_id = :owner_id and turn_id = :id and consumed_n is null
    returning i, client_key, body_sha, text""")
# Kept, because a message that is sent again must still be found by its key.
_DROP = text("""
    update steer set consumed_n = 0 where owner_id = :owner_id and turn_id = :id and consumed_n is null
    returning i, client_key, body_sha, text""")

_NUMBER = text("""
    update conversation set next_turn = next_turn + 1
    where owner_id = :owner_id and id = (select conversation_id from turn where owner_id = :owner_id and id = :id)
    returning next_turn - 1""")

# Queued: the turn that ends is the running one until this transaction commits.
_NEXT = text(f"""
    with next as (
        insert into turn (owner_id, id, conversation_id, turn_no, client_key, body_sha, status, epoch, attempts,
                          last_event, last_item, cancel, at_once, input, created_at)
        select owner_id, :new_id, conversation_id, :turn_no, :client_key, :body_sha, 'queued', 1, 0, 0, 1, false, at_once,
               jsonb_build_object('message', cast(:text as text), 'agent', null, 'caller', input -> 'caller')
               || case when input -> 'inputs' is null then '{{}}' else jsonb_build_object('inputs', input -> 'inputs') end,
               now()
        from turn where owner_id = :owner_id and id = :id
        returning owner_id, id, conversation_id, turn_no, last_item)
    {insert_items("next")}""")  # noqa: S608  # SQL of our own

_KEEP = text(f"""
    with of_turn as (
        update turn set last_item = last_item + 1 where owner_id = :owner_id and id = :id
        returning owner_id, id, conversation_id, turn_no, last_item)
    {insert_items("of_turn")}""")  # noqa: S608  # SQL of our own


@dataclass(frozen=True)
class Running:
    """A running turn with the kind and the scopes of who began it."""

    id: UUID
    kind: str
    scopes: frozenset[str]

    def may_be_steered_by(self, caller: Caller) -> bool:
        """Whether the caller holds all that the turn does."""
        return caller.kind == self.kind and not beyond(self.scopes, caller.scopes)


async def find_running(session: Executor, owner_id: UUID, conversation_id: UUID) -> Running | None:
    """The running turn of a conversation. It is locked until the transaction ends."""
    values = {"owner_id": owner_id, "conversation_id": conversation_id}
    row = (await session.execute(_RUNNING, values)).one_or_none()
    return None if row is None else Running(row.id, row.kind, frozenset(row.scopes))


async def add_steer(
    session: Executor, owner_id: UUID, turn_id: UUID, *, message: str, client_key: str | None, body_sha: bytes
) -> None:
    """Put a message into a running turn that this transaction has locked. Raises TooMany where many wait already."""
    # Where the turn ends first, each is a turn of its own.
    if (await session.execute(_WAITING, {"owner_id": owner_id, "id": turn_id})).scalar_one() >= MOST_WAITING:
        raise TooMany(f"{MOST_WAITING} messages wait to be put into this answer already; wait for the answer")
    values: dict[str, Any] = {"client_key": client_key, "body_sha": body_sha, "text": message}
    await session.execute(_ADD, {"owner_id": owner_id, "id": turn_id, **values})


async def release_steers(session: Executor, owner_id: UUID, turn_id: UUID, *, answer: bool) -> bool:
    """Release what no model call of an ending turn was given. With `answer` these are turns that wait to be answered,
    else messages that stay in the conversation. Returns whether there are turns to run."""
    key = {"owner_id": owner_id, "id": turn_id}
    # `returning` promises no order.
    left = sorted((await session.execute(_LEFT if answer else _DROP, key)).all(), key=lambda row: int(row.i))
    for row in left:
        new_items = items_json([user_message(row.text)])
        if not answer:
            await session.execute(_KEEP, {**key, "new_items": new_items})
            continue
        number = (await session.execute(_NUMBER, key)).scalar_one()
        values = {"client_key": row.client_key, "body_sha": row.body_sha, "text": row.text}
        await session.execute(_NEXT, {**key, **values, "new_items": new_items, "turn_no": number, "new_id": new_id()})
    return answer and bool(left)
