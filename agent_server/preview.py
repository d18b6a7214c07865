"""The request that an agent's model would be sent now. Nothing is sent, and nothing is stored."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from agent_server.caller import Caller
from agent_server.calls.ledger import Interrupted
from agent_server.conversations.items import NewItem
from agent_server.conversations.models import Conversation
from agent_server.conversations.repository import ConversationRepository
from agent_server.db import new_id
from agent_server.orchestrator.run import Orchestrator
from agent_server.recall import Recalled, recall
from agent_server.requests.rebuild import SentRequest, rebuild_unsent
from agent_server.server import Server
from agent_server.turns.attempt import Attempt
from agent_server.turns.events import Event
from agent_server.turns.requests import Recipe
from agent_server.turns.writer import TurnWriter


class _Known(Interrupted):
    """The request is known, and the turn goes no further."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__("preview")
        self.recipe = recipe


class _DryWriter(TurnWriter):
    """Writes nothing, and ends the attempt where its first request would be sent."""

    async def append(self, *events: Event, items: Sequence[NewItem] = ()) -> None:
        """Emergency advice is shown before the first request."""

    async def flush(self) -> None:
        """There is nothing to write."""

    async def take_steers(self, n: int) -> list[tuple[int, str]]:
        return []

    def note_request(self, recipe: Recipe) -> None:
        raise _Known(recipe)


async def preview_request(
    server: Server,
    orchestrator: Orchestrator,
    caller: Caller,
    message: str,
    *,
    agent: str | None = None,
    conversation: UUID | str | None = None,
    profile: Mapping[str, Any] | None = None,
    inputs: Mapping[str, Any] | None = None,
) -> SentRequest:
    """The first request for a message of the caller's. Without `agent` the message is routed; `profile` stands in place
    of the one that is stored, and `inputs` are those of the request.

    Raises NotFound for a conversation that is not the caller's, and ModelFailed.
    """
    database = server.database
    async with database.transaction(caller.id) as session:
        if conversation is None:
            row = Conversation(id=new_id(), owner_id=caller.id, title="preview")
            session.add(row)
            await session.flush()
        else:
            row = await ConversationRepository(session, caller).get(conversation)
        conversation_id, turn_no = row.id, row.next_turn
        most = server.settings.history_limit
        recalled: Recalled = await recall(session, caller, conversation_id=conversation_id, turn_no=turn_no, most=most)
        await session.rollback()
    writer = _DryWriter(
        database=database,
        hub=server.hub,
        owner_id=caller.id,
        conversation_id=conversation_id,
        turn_id=new_id(),
        turn_no=turn_no,
        epoch=1,
    )
    recalled = recalled if profile is None else replace(recalled, profile=profile)
    attempt = Attempt(
        writer=writer, caller=caller, message=message, agent=agent, number=1, recalled=recalled, inputs=inputs or {}
    )
    try:
        await orchestrator.run(attempt)
    except _Known as known:
        async with database.transaction(caller.id) as session:
            return await rebuild_unsent(
                session, caller.id, conversation_id, writer.turn_id, turn_no, message, known.recipe
            )
    raise AssertionError("a turn has a request")
