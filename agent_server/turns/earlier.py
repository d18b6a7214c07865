"""What an attempt of a turn takes over from the attempts before it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from uuid import UUID

from sqlalchemy import text
from sqlmodel import col, select

from agent_server.calls.ledger import CallOutcome
from agent_server.conversations.history import OF_TURN
from agent_server.db import Database, Executor
from agent_server.turns.events import (
    AgentChosen,
    Event,
    Numbered,
    Reset,
    TextDelta,
    TextDone,
    ThoughtDelta,
    ToolReturned,
    unfold,
)
from agent_server.turns.models import ModelCall, ToolCall, Turn
from agent_server.turns.references import SAID

EMERGENCY_CALL = 0
"""The model call number of the emergency advice, which no model makes."""
_TAKEN_STEERS = text("""
    select consumed_n, text from steer where owner_id = :owner_id and turn_id = :id and consumed_n is not null
    order by i""")

_EVENTS = text(f"""
    select e.seq, e.kind, e.body, {SAID} from event e
    where e.owner_id = :owner_id and e.turn_id = :id order by e.seq""")  # noqa: S608  # SQL of our own


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """What earlier attempts have stored of a turn. It is empty for a first attempt.

    `model_calls` is the journal, by number of the call. `tool_calls` is the ledger, by the call's id. `steers` are the
    messages that were put into the turn and given to a model call, each with the number of the first call that had it.
    `outputs` are what the model was told of tool calls, by the call's id. `events` is the log in its order.
    """

    model_calls: Mapping[int, ModelCall] = field(default_factory=dict)
    tool_calls: Mapping[str, ToolCall] = field(default_factory=dict)
    steers: Sequence[tuple[int, str]] = ()
    outputs: Mapping[str, str] = field(default_factory=dict)
    events: Sequence[Event] = ()

    @property
    def last_call(self) -> int:
        """The number of the last model call that was answered. It is 0 before the first."""
        return max(self.model_calls, default=0)

    @cached_property
    def emergency(self) -> str | None:
        """The emergency advice that was shown."""
        shown = [e.text for e in self.events if isinstance(e, TextDelta) and e.call == EMERGENCY_CALL]
        return shown[0] if shown else None

    @cached_property
    def announced(self) -> str | None:
        """The agent that was named last. The one of the emergency advice is named anew."""
        announced = None
        for event in self.events:
            match event:
                case AgentChosen(name=name):
                    announced = name
                case TextDone(call=call) if call == EMERGENCY_CALL:
                    announced = None
        return announced

    @cached_property
    def returned(self) -> Mapping[str, CallOutcome]:
        """The outcomes of tool calls that the log has, by the call's id."""
        return {
            event.call_id: CallOutcome(event.output, event.error)
            for event in self.events
            if isinstance(event, ToolReturned)
        }

    @property
    def unfinished_calls(self) -> Sequence[int]:
        """The numbers of model calls that something was shown of and that did not come to their end."""
        shown = dict[int, None]()
        for event in self.events:
            match event:
                case TextDelta(call=call) | ThoughtDelta(call=call) if call not in self.model_calls:
                    shown[call] = None
                case TextDone(call=call) | Reset(call=call):
                    shown.pop(call, None)
        return list(shown)


NOTHING = Earlier()


async def read_earlier(database: Database, *, owner_id: UUID, turn_id: UUID) -> Earlier:
    """Read all that is stored of a turn in one transaction. Raises Unavailable."""
    async with database.transaction(owner_id) as session:
        model_calls = await session.execute(
            select(ModelCall).where(col(ModelCall.owner_id) == owner_id, col(ModelCall.turn_id) == turn_id)
        )
        tool_calls = await session.execute(
            select(ToolCall).where(col(ToolCall.owner_id) == owner_id, col(ToolCall.turn_id) == turn_id)
        )
        steers = await session.execute(_TAKEN_STEERS, {"owner_id": owner_id, "id": turn_id})
        turn = await session.get_one(Turn, (owner_id, turn_id))
        of_turn = {"owner_id": owner_id, "conversation_id": turn.conversation_id, "turn_no": turn.turn_no}
        bodies = [item.body for item in await session.execute(OF_TURN, of_turn)]
        return Earlier(
            model_calls={row.n: row for row in model_calls.scalars()},
            tool_calls={row.call_id: row for row in tool_calls.scalars()},
            steers=[(n, message) for n, message in steers],
            outputs={b["call_id"]: b["output"] for b in bodies if b.get("type") == "function_call_output"},
            events=await read_events(session, owner_id=owner_id, turn_id=turn_id),
        )


async def read_events(session: Executor, *, owner_id: UUID, turn_id: UUID) -> Sequence[Event]:
    """The log of a turn so far."""
    return [numbered.event for numbered in await read_numbered(session, owner_id=owner_id, turn_id=turn_id)]


async def read_numbered(session: Executor, *, owner_id: UUID, turn_id: UUID) -> Sequence[Numbered]:
    """The same with the numbers of the events."""
    rows = await session.execute(_EVENTS, {"owner_id": owner_id, "id": turn_id})
    return [numbered for row in rows for numbered in unfold(*row)]


def find_partial_texts(events: Iterable[Event]) -> Mapping[int, str]:
    """The text of model calls that these events begin and do not end. It is by number of the call."""
    shown: dict[int, str] = {}
    for event in events:
        match event:
            case TextDelta(call=call, text=text):
                shown[call] = shown.get(call, "") + text
            case TextDone(call=call) | Reset(call=call):
                shown.pop(call, None)
    return shown
