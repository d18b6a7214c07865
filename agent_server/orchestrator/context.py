"""The context that the run loop hands on."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent_server.calls.call import Runtime
from agent_server.offline.about import About
from agent_server.orchestrator.citations import Citations
from agent_server.turns.attempt import Attempt

CALLS_AT_ONCE = 4
"""How many tool calls of a turn run at the same time."""


@dataclass(frozen=True, kw_only=True)
class Briefing:
    """What an agent is told beside the history.

    `query` is what to look up for it. `emergency` is the advice that the user has been shown before the first call of a
    model, if any, and `summary` what was said before the history. `today` is an ISO date. `about` is what the
    assistant says of itself, where the message is small talk. `inputs` are those of the request.
    """

    query: str
    profile: Mapping[str, Any]
    today: str
    emergency: str | None
    summary: str | None = None
    about: About | None = None
    inputs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TurnContext:
    """The parts of one attempt. `tool_calls` are the tasks of its tools, `places` those that may run at once, `repeats`
    the ids of calls that are not made because the same was made before."""

    attempt: Attempt
    runtime: Runtime
    briefing: Briefing
    citations: Citations
    tool_calls: set[asyncio.Task[Any]] = field(default_factory=set)
    repeats: set[str] = field(default_factory=set)
    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CALLS_AT_ONCE))
