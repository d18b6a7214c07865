"""The ids that a conversation is reached by, on every way to it.

    ours            a UUID, in whichever form it is written: capitals, braces, urn:uuid:
    the client's    what a client calls a conversation that it began (`useChat` makes its ids up)

Both are its owner's alone: the same id of two callers is two conversations.
"""

import re
from dataclasses import dataclass
from uuid import UUID, uuid5

from sqlalchemy import text

from agent_server.db import Executor, storable

LONGEST_ID = 100
CONVERSATION = "conversation://"
"""What the address of a conversation begins with. Its id follows."""
# Not left to UUID(), which also takes signs and digits of other scripts for its own.
_UUID = re.compile(
    r"(?:urn:uuid:)?(\{)?[0-9a-f]{8}(-?)(?:[0-9a-f]{4}\2){3}[0-9a-f]{12}(?(1)\})", re.IGNORECASE | re.ASCII
)


@dataclass(frozen=True)
class ConversationRef:
    """An id as a caller gave it.

    `id` is the conversation's that would begin under it. `client_id` is what that is then called beside; it is None for
    an id that can only be ours. `others` are ids that a conversation begun under it may have instead.
    """

    id: UUID
    client_id: str | None = None
    others: tuple[UUID, ...] = ()


def refer(given: UUID | str, owner: UUID) -> ConversationRef:
    """What `given` refers to for its owner."""
    if isinstance(given, UUID):
        return ConversationRef(given)
    # Nothing is called what cannot be stored.
    written: str = storable(given)
    ours = UUID(written) if _UUID.fullmatch(written) else None
    # Ours are of version 7. One that a client made up becomes the conversation's id and needs no other name.
    if ours is not None and ours.version == 7:
        return ConversationRef(ours)
    name = written if ours is None else str(ours)
    # Made from the owner's id, so that two requests that begin the same conversation at once make one; it stays when the
    # conversation goes from a guest to a user, for whom only `client_id` leads to it.
    id = uuid5(owner, name)
    # Versions without `client_id` made the id from a UUID as it was written.
    others = [] if ours is None else [ours, uuid5(owner, written)]
    return ConversationRef(id, name, tuple(other for other in others if other != id))


RUNS = "agent-server:run/"
"""What the names of conversations begin with that the developer page began. No list has them."""


def run_name(id: UUID) -> str:
    """What a run of the developer page is called by its client."""
    return f"{RUNS}{id}"


# As `ConversationRepository` chooses: ours goes before the client's; of two that go by one name, the one that began under
# this owner.
_FIND = text("""
    select id from conversation
    where owner_id = :owner_id and (id = any(cast(:ids as uuid[])) or client_id = :client_id)
    order by id = any(cast(:others as uuid[])) desc, id = :id desc, updated_at desc limit 1""")


async def find_conversation(session: Executor, owner: UUID, ref: ConversationRef) -> UUID:
    """The id of the conversation, or of the one that would begin."""
    # Most ids are ours, and whether such a one is there is seen when it is used.
    if ref.client_id is None:
        return ref.id
    values = {
        "owner_id": owner,
        "id": ref.id,
        "ids": [ref.id, *ref.others],
        "others": list(ref.others),
        "client_id": ref.client_id,
    }
    found: UUID | None = (await session.execute(_FIND, values)).scalar_one_or_none()
    return found or ref.id


def name_id(given: UUID | str) -> str:
    """An id as an error says it. What is no UUID may be anything, and is not repeated."""
    return str(given) if isinstance(given, UUID) or _UUID.fullmatch(given) else "with this id"
