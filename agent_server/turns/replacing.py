"""Messages that stand in the place of others.

A client that lets its user edit a message sends it once more under the id that it has, and one that asks for another
answer says so. The new turn replaces the one of the message and all that came after it. What was replaced stays in the
conversation, where models are not given it any more and people only when they ask for it.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text

from agent_server.db import Executor, new_id

# A key that begins with the message's own is one of its later versions.
_CURRENT = text("""
    select t.id, t.turn_no, t.input ->> 'message' as message from turn t
    join conversation c on c.owner_id = t.owner_id and c.id = t.conversation_id
    where t.owner_id = :owner_id and t.conversation_id = :conversation_id
      and not jsonb_exists(c.replaced, cast(t.turn_no as text))
      and (t.id = any(cast(:ids as uuid[])) or t.client_key = :key or t.client_key like :key || ':%' or :any)
    order by t.turn_no desc limit 1""")
_KNOWN = text("""
    select true from turn where owner_id = :owner_id and conversation_id = :conversation_id and id = :id""")
_REPLACE = text("""
    update conversation c set replaced = c.replaced || coalesce(
        (select jsonb_object_agg(t.turn_no, cast(:turn_no as int)) from turn t
         where t.owner_id = c.owner_id and t.conversation_id = c.id and t.turn_no >= :first and t.turn_no < :turn_no
           and not jsonb_exists(c.replaced, cast(t.turn_no as text))), '{}'),
        summary = case when cast(c.summary ->> 'until' as int) < :first then c.summary end
    where c.owner_id = :owner_id and c.id = :conversation_id""")
_STOP = text("""
    update turn set cancel = true
    where owner_id = :owner_id and conversation_id = :conversation_id and turn_no >= :first and turn_no < :turn_no
      and status in ('queued', 'running') returning id, status""")


@dataclass(frozen=True, kw_only=True)
class MessageName:
    """What a client calls a message that it may send in other versions.

    `key` is the idempotency key of the message's first version. `ids` are turns of ours that the client names it or its
    answer by. With `again` the user wants another answer than `answer`, and not only where the text is another one.
    """

    key: str | None = None
    ids: tuple[UUID, ...] = ()
    again: bool = False
    answer: UUID | None = None


@dataclass(frozen=True)
class Version:
    """What a message that has a name is. `key` is its idempotency key, `first` the number of the first turn that it
    replaces, and `same` the turn of the message that it repeats."""

    key: str | None
    first: int | None = None
    same: UUID | None = None


async def find_version(
    session: Executor, owner_id: UUID, conversation_id: UUID, message: str, name: MessageName
) -> Version:
    """Which version of its message this one is."""
    values: dict[str, Any] = {
        "owner_id": owner_id,
        "conversation_id": conversation_id,
        "key": name.key,
        "ids": list(name.ids),
    }
    found = (await session.execute(_CURRENT, {**values, "any": False})).one_or_none()
    if name.again:
        known = name.answer and (await session.execute(_KNOWN, {**values, "id": name.answer})).scalar()
        # Under one key for each answer that is replaced: sent twice, it is answered anew once.
        key = f"{name.key or 'turn'}:{name.answer if known else new_id()}"
    elif found is None:
        return Version(name.key)
    elif found.message == message:
        return Version(name.key, same=found.id)
    else:
        key = f"{name.key or 'turn'}:{found.id}"
    if found is None:
        # The client knows no id of ours: it is the last answer that people ask for again.
        found = (await session.execute(_CURRENT, {**values, "any": True})).one_or_none()
    return Version(key, first=found.turn_no if found else None)


async def replace_turns(
    session: Executor, owner_id: UUID, conversation_id: UUID, *, first: int, turn_no: int
) -> UUID | None:
    """Have turn `turn_no` replace those from number `first` on. The conversation's row is locked by the caller.

    Returns the turn among them that runs and was asked to stop.
    """
    values = {"owner_id": owner_id, "conversation_id": conversation_id, "first": first, "turn_no": turn_no}
    stopped = (await session.execute(_STOP, values)).all()
    await session.execute(_REPLACE, values)
    return next((turn.id for turn in stopped if turn.status == "running"), None)
