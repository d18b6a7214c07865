"""One message through the server, as it was answered."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from agent_server.caller import Caller
from agent_server.evals.answer import Answer, collect
from agent_server.server import Server
from agent_server.turns.accept import Message
from agent_server.turns.events import AgentChosen, Done, Failed


@dataclass(frozen=True, kw_only=True)
class Reply:
    """The answer to a message. `failure` is `code: message` of a turn that could not be answered; `finish` as in `Done`."""

    message: str
    answer: Answer
    usage: Mapping[str, Any] = field(default_factory=dict)
    finish: str = "stop"
    failure: str | None = None
    seconds: float = 0.0

    @property
    def agents(self) -> list[str]:
        """The agents that had the conversation, in their order."""
        return [event.name for event in self.answer.events if isinstance(event, AgentChosen)]

    @property
    def tokens(self) -> int:
        return int(self.usage.get("total_tokens") or 0)


async def ask(
    server: Server, caller: Caller, message: str, *, conversation: UUID | None = None, agent: str | None = None
) -> Reply:
    """Send a message and wait for the whole answer."""
    began = time.monotonic()
    accepted = await server.accept(caller, Message(text=message, conversation_id=conversation, agent=agent))
    followed = server.hub.follow(caller.id, accepted.turn.id)
    # None says only that nothing has come for a while.
    events = [numbered.event async for numbered in followed if numbered is not None]
    return read_reply(message, accepted.turn.conversation_id, events, seconds=time.monotonic() - began)


def read_reply(message: str, conversation: UUID, events: list[Any], *, seconds: float = 0.0) -> Reply:
    """The reply that these events tell."""
    answer = collect(conversation, events)
    for event in reversed(events):
        if isinstance(event, Failed):
            return Reply(message=message, answer=answer, failure=f"{event.code}: {event.message}", seconds=seconds)
        if isinstance(event, Done):
            return Reply(message=message, answer=answer, usage=event.usage, finish=event.finish, seconds=seconds)
    return Reply(message=message, answer=answer, failure="cancelled: the turn was stopped", seconds=seconds)
