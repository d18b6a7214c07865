"""What a turn starts from beside its message, read in one go."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from agent_server.caller import Caller
from agent_server.conversations.history import ALL_OF_LATEST, Entry, conversation_statement, cut_latest
from agent_server.db import Executor
from agent_server.documents.search import HAS_OWN
from agent_server.errors import NotFound
from agent_server.identity.profiles import PROFILE
from agent_server.knowledge.search import URGENT_PAGES, UrgentPages
from agent_server.knowledge.tools import KNOWLEDGE

# A shorter message is mostly a follow-up, and the one before it names what it is about.
SHORT_MESSAGE_WORDS = 6
_RECALL = conversation_statement(profile=PROFILE, urgent=URGENT_PAGES, has_own=HAS_OWN)


@dataclass(frozen=True, kw_only=True)
class Recalled:
    """What is stored of a conversation before a turn. `agent` answered last, `items` are the latest in their order and
    `summary` what was said before them. `profile` is what is known of the caller, `urgent` are the pages that are written
    for emergencies, if the caller may read them, and `has_own` says whether the caller has documents of its own."""

    agent: str | None
    items: Sequence[Entry]
    summary: str | None = None
    profile: Mapping[str, Any] = field(default_factory=dict)
    urgent: UrgentPages = ()
    has_own: bool = True


async def recall(session: Executor, caller: Caller, *, conversation_id: UUID, turn_no: int, most: int) -> Recalled:
    """Read what the turn with this number starts from, with at most so many items. Raises NotFound."""
    values = {"owner_id": caller.id, "id": conversation_id, "before": turn_no, "most": most}
    found = (await session.execute(_RECALL, values)).one_or_none()
    if found is None:
        raise NotFound("The conversation of this turn was deleted")
    items = cut_latest(found.latest or (), most)
    if items is None:  # the last turn is there however long it is
        first = found.latest[0][0]
        rows = await session.execute(ALL_OF_LATEST, {**values, "first": first})
        items = [Entry(row.turn_no, row.body) for row in rows][::-1]
    return Recalled(
        agent=found.agent,
        items=items,
        summary=(found.summary or {}).get("text"),
        profile=found.profile or {},
        # They are passages like any other.
        urgent=(found.urgent or ()) if caller.may(KNOWLEDGE) else (),
        has_own=found.has_own,
    )


def find_query(message: str, earlier: Sequence[Entry]) -> str:
    """What to look up for a message. A short follow-up is looked up together with what it follows."""
    if len(message.split()) >= SHORT_MESSAGE_WORDS:
        return message
    said = [item.body["content"] for item in earlier if item.body.get("role") == "user" and item.body["content"]]
    return f"{said[-1]} {message}" if said else message
