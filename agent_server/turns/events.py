"""What happens in a turn as clients may know it. Events are one closed union, numbered per turn; every encoder renders
them. `kind` and the fields are what `GET /api/turns/{turn}/events` sends."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from agent_server.db import storable
from agent_server.turns.references import refer, restore


@dataclass(frozen=True)
class AgentChosen:
    """An agent answers from here on. `decided_by` is `meaning`, `sticky`, `model`, `only` or `request`. `prompt_version` is
    that of its prompt, where the file has one."""

    kind: ClassVar[str] = "agent"
    name: str
    decided_by: str
    confidence: float
    prompt_version: str | None = None


@dataclass(frozen=True)
class PassagesFound:
    """Passages that the answer may cite by their number `n`. `agent` is whom they were looked up for, None where a tool
    found them."""

    kind: ClassVar[str] = "passages"
    passages: list[dict[str, Any]]
    agent: str | None = None


@dataclass(frozen=True)
class Cited:
    """The text that follows cites passage `n`."""

    kind: ClassVar[str] = "cited"
    n: int


@dataclass(frozen=True)
class TextDelta:
    """More text of model call `call`. It is provisional until `text_done`, and dropped by `reset`."""

    kind: ClassVar[str] = "text"
    call: int
    text: str


@dataclass(frozen=True)
class TextDone:
    """The text of `call` is complete and stored."""

    kind: ClassVar[str] = "text_done"
    call: int


@dataclass(frozen=True)
class ThoughtDelta:
    """More of what the model thinks in model call `call` before it speaks. It is dropped by `reset`."""

    kind: ClassVar[str] = "thought"
    call: int
    text: str


@dataclass(frozen=True)
class Note:
    """Something about the answer that its reader should know. `code` is one of docs/http.md."""

    kind: ClassVar[str] = "note"
    code: str
    text: str


@dataclass(frozen=True)
class Reset:
    """The text of `call` so far is void. The call starts over."""

    kind: ClassVar[str] = "reset"
    call: int


@dataclass(frozen=True)
class ToolCalled:
    """The model asked for a tool. Its effect has not happened yet."""

    kind: ClassVar[str] = "tool"
    call_id: str
    name: str
    input: Any


@dataclass(frozen=True)
class ToolProgress:
    """How far a call is, as its tool says: `done` of `total`, where it counts, and what it does. It may come twice, after a
    takeover, and after the call has returned."""

    kind: ClassVar[str] = "progress"
    call_id: str
    done: float | None = None
    total: float | None = None
    message: str | None = None


@dataclass(frozen=True)
class ToolReturned:
    """The tool's effect and this event are one transaction. `error` is None or `code: message`."""

    kind: ClassVar[str] = "tool_done"
    call_id: str
    name: str
    output: Any
    error: str | None = None


@dataclass(frozen=True)
class ConfirmationAsked:
    """The call was not made and the user is asked first. The answer is `POST /api/confirmations/{id}`, until
    `expires_at`."""

    kind: ClassVar[str] = "confirmation"
    call_id: str
    id: str
    tool: str
    title: str
    arguments: dict[str, Any]
    question: str
    expires_at: str


@dataclass(frozen=True)
class Steered:
    """A message of the user's that was put into the turn while it ran. The model has it from its next call on."""

    kind: ClassVar[str] = "steered"
    text: str


@dataclass(frozen=True)
class Snapshot:
    """What is left of a turn whose events are past retention. Its messages stand in place of all that came before."""

    kind: ClassVar[str] = "snapshot"
    messages: list[dict[str, Any]]


@dataclass(frozen=True)
class Other:
    """An event that a newer version of the server wrote. It is handed on as it is."""

    kind: str
    body: dict[str, Any]


@dataclass(frozen=True)
class Done:
    """The last event of a turn that was answered. `finish` says why the answer ends: `stop`, `length` or
    `content_filter`."""

    kind: ClassVar[str] = "done"
    agent: str | None = None
    usage: dict[str, Any] = field(default_factory=dict)
    finish: str = "stop"


@dataclass(frozen=True)
class Failed:
    """The last event of a turn that could not be answered."""

    kind: ClassVar[str] = "failed"
    code: str
    message: str


@dataclass(frozen=True)
class Cancelled:
    """The last event of a turn that was stopped."""

    kind: ClassVar[str] = "cancelled"


Event = (
    AgentChosen
    | PassagesFound
    | Cited
    | TextDelta
    | TextDone
    | ThoughtDelta
    | Note
    | Reset
    | ToolCalled
    | ToolProgress
    | ToolReturned
    | ConfirmationAsked
    | Steered
    | Snapshot
    | Other
    | Done
    | Failed
    | Cancelled
)
LAST = (Done, Failed, Cancelled)

# Without `Other`, which stands for every kind that is not here.
_KINDS: dict[str, type[Any]] = {
    cls.kind: cls
    for cls in (
        AgentChosen,
        PassagesFound,
        Cited,
        TextDelta,
        TextDone,
        ThoughtDelta,
        Note,
        Reset,
        ToolCalled,
        ToolProgress,
        ToolReturned,
        ConfirmationAsked,
        Steered,
        Snapshot,
        Done,
        Failed,
        Cancelled,
    )
}


@dataclass(frozen=True)
class Numbered:
    """An event with its place in the turn's log. Places count from 1 without gaps."""

    seq: int
    event: Event


def from_row(kind: str, body: dict[str, Any]) -> Event:
    # A replica of a newer version may write into the same log. Neither its events nor their fields must break a stream.
    if kind not in _KINDS:
        return Other(kind, body)
    known = {field.name for field in fields(_KINDS[kind])}
    event: Event = _KINDS[kind](**{name: value for name, value in body.items() if name in known})
    return event


def body_of(event: Event) -> dict[str, Any]:
    """The fields of `event` as JSON-ready data."""
    return event.body if isinstance(event, Other) else dict(vars(event))


BATCH = "batch"
"""The kind of a row with several events, a list of kind and body each. Its number is that of the last one."""


TOLD = "told"
"""The kind of such a row whose events refer to items (`references`): those after the `after`th of the turn."""


def fold_json(events: Sequence[Event], *, batch: bool, texts: Sequence[str] = ()) -> str:
    """The rows of events that are written together, each with the place of its `last` event among them. They refer to
    `texts`, where there are any."""
    rows = storable([[event.kind, body_of(event)] for event in events])
    told = [refer(kind, body, texts) for kind, body in rows] if texts else ()
    if any(len(event) > 2 for event in told):
        return json.dumps([{"kind": TOLD, "body": {"events": told}, "last": len(rows)}])
    if batch and len(rows) > 1:
        return json.dumps([{"kind": BATCH, "body": rows, "last": len(rows)}])
    return json.dumps([{"kind": kind, "body": body, "last": place} for place, (kind, body) in enumerate(rows, 1)])


def unfold_json(rows: str, before: int, texts: Sequence[str] = ()) -> list[Numbered]:
    """The events of such rows, of a turn that has so many before them."""
    return [each for row in json.loads(rows) for each in unfold(before + row["last"], row["kind"], row["body"], texts)]


def unfold(seq: int, kind: str, body: Any, texts: Sequence[str] | None = None) -> list[Numbered]:
    """The events of a row, which refer to these texts."""
    if kind == TOLD:
        # a reference follows kind and body
        body = [[told[0], restore(told[1], told[2], texts or ()) if told[2:] else told[1]] for told in body["events"]]
    elif kind != BATCH:
        return [Numbered(seq, from_row(kind, body))]
    first = seq - len(body) + 1
    return [Numbered(first + place, from_row(*each)) for place, each in enumerate(body)]
