"""What one attempt of a turn knows and keeps."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent_server.calls.call import Runtime
from agent_server.knowledge.passages import CitedPassage, Passage, passage_of
from agent_server.routing import Decision
from agent_server.tool import Tool
from agent_server.turns.events import Event, PassagesFound
from agent_server.turns.models import ModelCall
from agent_server.turns.runner import Attempt
from agent_server.workspace import Workspace


@dataclass
class TurnContext:
    """The state of one attempt, rebuilt from the log alone: `journaled` are the model responses an earlier attempt
    committed, `cited` the passages by number. `calls` counts the model calls of this attempt, `tool_calls` are the
    tasks of its tools, `input_lengths` has how many items each model call was given, `model` is the one that answered
    last. `pending` are events that travel with the next write. `ends` is when the turn is out of time
    (`time.monotonic`)."""

    attempt: Attempt
    runtime: Runtime
    workspace: Workspace
    decision: Decision
    query: str
    profile: Mapping[str, Any]
    journaled: Mapping[int, ModelCall]
    announced: str | None
    urgent: str | None
    ends: float
    calls: int = 0
    tool_calls: set[asyncio.Task[Any]] = field(default_factory=set)
    agent: str = ""
    model: str | None = None
    input_lengths: dict[int, int] = field(default_factory=dict)
    pending: list[Event] = field(default_factory=list)
    cited: dict[str, CitedPassage] = field(default_factory=dict)
    by_agent: dict[str, list[CitedPassage]] = field(default_factory=dict)

    @property
    def message(self) -> str:
        return self.attempt.message

    @property
    def tools(self) -> Mapping[str, Tool[..., Any]]:
        return self.workspace.tools

    @property
    def ranked_agents(self) -> Sequence[str]:
        return [ranked.name for ranked in self.decision.ranked]

    @property
    def passages(self) -> Sequence[CitedPassage]:
        """What was looked up for the agent that now runs."""
        return self.by_agent.get(self.agent, [])

    def number(self, passages: Sequence[Passage]) -> list[CitedPassage]:
        """`passages` with their numbers: the ones they have, else the next ones."""
        for passage in passages:
            if passage.id not in self.cited:
                self.cited[passage.id] = CitedPassage(len(self.cited) + 1, passage)
        return [self.cited[passage.id] for passage in passages]

    def found(self, event: PassagesFound) -> None:
        """Take up what an earlier attempt, or this one, has put into the log."""
        cited = [CitedPassage(p["n"], passage_of(p)) for p in event.passages]
        self.cited.update({c.passage.id: c for c in cited})
        if event.agent is not None:
            self.by_agent[event.agent] = cited
