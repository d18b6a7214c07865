"""What an agent answered."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from agent_server.turns.events import (
    AgentChosen,
    Cited,
    Event,
    PassagesFound,
    Reset,
    TextDelta,
    ToolCalled,
    ToolReturned,
)


class TurnFailed(Exception):
    """An agent could not answer; `code` is one of docs/http.md."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


@dataclass(frozen=True)
class ToolCall:
    """A call that an agent made. `error` is None or `code: message`."""

    name: str
    arguments: Any
    output: Any = None
    error: str | None = None


@dataclass(frozen=True)
class Citation:
    """A passage of the content that the answer cites as `[n]`; `document` is its path under `content/`."""

    n: int
    document: str
    heading: str
    text: str


@dataclass(frozen=True)
class Answer:
    """What one message was answered with. `events` is all that a client was sent, in order."""

    text: str
    agent: str | None
    citations: Sequence[Citation]
    calls: Sequence[ToolCall]
    conversation: UUID
    events: Sequence[Event]


def collect(conversation: UUID, events: Sequence[Event]) -> Answer:
    """The answer that these events tell."""
    texts: dict[int, str] = {}
    passages: dict[int, Citation] = {}
    cited: dict[int, Citation] = {}
    calls: dict[str, ToolCall] = {}
    agent: str | None = None
    for event in events:
        match event:
            case AgentChosen(name=name):
                agent = name
            case PassagesFound(passages=found):
                passages |= {p["n"]: Citation(p["n"], p["document"], p["heading"], p["text"]) for p in found}
            case Cited(n=n):
                # By number: a passage that is cited twice is one citation.
                cited[n] = passages[n]
            case TextDelta(call=call, text=text):
                texts[call] = texts.get(call, "") + text
            case Reset(call=call):
                # The call starts over, and its text comes once more.
                texts.pop(call, None)
            case ToolCalled(call_id=id, name=tool, input=input):
                calls[id] = ToolCall(tool, input)
            case ToolReturned(call_id=id, output=output, error=error):
                calls[id] = replace(calls[id], output=output, error=error)
    text = "".join(texts.values())
    return Answer(text, agent, tuple(cited.values()), tuple(calls.values()), conversation, events)
