"""The context that the run loop hands on."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agent_server.calls.call import Runtime
from agent_server.knowledge.search import Passage
from agent_server.offline.pieces import CitedPassage
from agent_server.turns.attempt import Attempt

if TYPE_CHECKING:
    from agent_server.orchestrator.citations import Citations


@dataclass(frozen=True, kw_only=True)
class Briefing:
    """What an agent is told beside the history.

    `query` is what to look up for it. `emergency` is the advice that the user has been shown before the first call of a
    model, if any. `today` is an ISO date.
    """

    query: str
    profile: Mapping[str, Any]
    today: str
    emergency: str | None


@dataclass(frozen=True, kw_only=True)
class TurnContext:
    """The parts of one attempt. `tool_calls` are the tasks of its tools."""

    attempt: Attempt
    runtime: Runtime
    briefing: Briefing
    citations: "Citations"
    tool_calls: set[asyncio.Task[Any]] = field(default_factory=set)


def passage_body(cited: CitedPassage) -> dict[str, Any]:
    """A cited passage as events and messages keep it: the text as it was when it was cited."""
    p = cited.passage
    return {
        "n": cited.n,
        "passage": p.id,
        "document": p.document,
        "collection": p.collection,
        "title": p.title,
        "heading": p.heading,
        "text": p.text,
        "start": p.start,
        "end": p.end,
        "score": round(p.score, 4),
    }


def passage_of(body: Mapping[str, Any]) -> Passage:
    names = ("document", "collection", "title", "heading", "text", "start", "end", "score")
    return Passage(id=body["passage"], **{name: body[name] for name in names})
