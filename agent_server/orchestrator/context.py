"""The context that the run loop hands on."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent_server.calls.call import Runtime
from agent_server.citing.citations import Citations
from agent_server.knowledge.passages import CitedPassage
from agent_server.offline.about import About
from agent_server.prompts import AgentPrompt
from agent_server.requests.instructions import Told, ToldPassage
from agent_server.turns.attempt import Attempt

CALLS_AT_ONCE = 4
"""How many tool calls of a turn run at the same time."""


@dataclass(frozen=True, kw_only=True)
class Briefing:
    """What an agent is told beside the history.

    `query` is what to look up for it. `emergency` is the advice that the user has been shown before the first call of a
    model, if any, and `summary` what was said before the history. `today` is an ISO date. `about` is what the
    assistant says of itself, where the message is small talk. `inputs` are those of the request, and `earlier` the numbers
    of the turns in the history. `has_own` says whether the caller has documents of its own.
    """

    query: str
    profile: Mapping[str, Any]
    today: str
    emergency: str | None
    summary: str | None = None
    about: About | None = None
    inputs: Mapping[str, Any] = field(default_factory=dict)
    earlier: Sequence[int] = ()
    has_own: bool = False

    def told(self, prompt: AgentPrompt, passages: Sequence[CitedPassage] | None) -> Told:
        """What the agent of `prompt` is told with these passages."""
        found = (
            passages if passages is None else [ToldPassage(c.n, c.passage.heading, c.passage.text) for c in passages]
        )
        return Told(
            today=self.today,
            profile=self.profile,
            inputs=self.inputs,
            summary=self.summary,
            emergency=self.emergency,
            about=self.about.facts() if self.about else None,
            passages=found,
            shape=prompt.output.schema if prompt.output else None,
        )


@dataclass(frozen=True, kw_only=True)
class TurnContext:
    """The parts of one attempt. `tool_calls` are the tasks of its tools, `places` those that may run at once, `repeats`
    the ids of calls that are not made because the same was made before, `told` what each agent was told last."""

    attempt: Attempt
    runtime: Runtime
    briefing: Briefing
    citations: Citations
    tool_calls: set[asyncio.Task[Any]] = field(default_factory=set)
    repeats: set[str] = field(default_factory=set)
    told: dict[str, Told] = field(default_factory=dict)
    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CALLS_AT_ONCE))
