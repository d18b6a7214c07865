"""The ledger of a turn's tool calls, which makes an effect happen once."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from agent_server.calls.confirmations import Question
from agent_server.calls.ledger import CallOutcome, OutcomeUnknown, outcome_text
from agent_server.conversations.items import tool_output_item
from agent_server.db import Executor, storable
from agent_server.tool import OUTSIDE
from agent_server.turns.events import ConfirmationAsked, Event, ToolReturned
from agent_server.turns.models import ToolCall
from agent_server.turns.progress import CallProgress
from agent_server.turns.writer import Fenced, TurnWriter, fence_statement

_INSERT = """
    insert into tool_call (owner_id, turn_id, call_id, name, effect, args_sha, state, result, epoch)
    select :owner_id, :id, :call_id, :name, :effect, :args_sha, :state, cast(:result as jsonb), :epoch
    from fence where not stop
    on conflict (owner_id, turn_id, call_id) do update set"""
# Either writes no row where there is one that this attempt has not seen: of one that has started the call, or ended it.
_START = fence_statement(f"{_INSERT} epoch = excluded.epoch where tool_call.epoch = :seen returning 1")
_FINISH = fence_statement(f"""{_INSERT} state = excluded.state, result = excluded.result, epoch = excluded.epoch
    where tool_call.state = 'started' returning 1""")


Render = Callable[[CallOutcome], tuple[str, Sequence[Event]]]
"""What the model reads of an outcome, and the events that go with it; the same for the same outcome each time."""


def render_plainly(outcome: CallOutcome) -> tuple[str, Sequence[Event]]:
    """The outcome as text, without events."""
    return outcome_text(outcome), ()


@dataclass(kw_only=True)
class CallLedger:
    """The ledger of one tool call. Its record, event and item commit with the tool's effect."""

    writer: TurnWriter
    call_id: str
    name: str
    effect: str
    args_sha: bytes
    is_confirmed: bool = False
    render: Render = render_plainly

    def __post_init__(self) -> None:
        self.listener = CallProgress(self.writer, self.call_id)

    @property
    def conversation_id(self) -> UUID:
        return self.writer.conversation_id

    @property
    def turn_id(self) -> UUID:
        return self.writer.turn_id

    @property
    def idempotency_key(self) -> str:
        # Without the attempt: the other side must know the call again when it is made once more.
        return f"{self.writer.turn_id}:{self.call_id}"

    @property
    def outcome(self) -> CallOutcome | None:
        row = self._earlier
        if row is not None and row.result is not None:
            return CallOutcome(**row.result)
        # A call without an effect has no row: what it returned is in the log.
        return self.writer.earlier.returned.get(self.call_id)

    def tell(self, outcome: CallOutcome) -> str:
        """What the model is told of the outcome: the very text that is stored, also of what an earlier attempt did."""
        # The outcome of that is stored as well, with its keys in the order in which Postgres keeps them.
        told = self.writer.earlier.outputs.get(self.call_id)
        return self.render(outcome)[0] if told is None else told

    @property
    def cut_off(self) -> bool:
        return self._earlier is not None and self._earlier.state == "started"

    @property
    def _earlier(self) -> ToolCall | None:
        return self.writer.earlier.tool_calls.get(self.call_id)

    async def start(self) -> None:
        seen = self._earlier.epoch if self._earlier is not None else None
        await self.writer.flush()
        async with self.writer.transaction() as session:
            noted = await self.writer.write(
                session, statement=_START, values={**self._row("started", None), "seen": seen}
            )
            # Somebody has started the call since this attempt read the ledger. Only a keyed one may be made again.
            if not noted and self.effect == "once":
                raise OutcomeUnknown(self.name)

    async def finish(self, session: Executor, outcome: CallOutcome, question: Question | None = None) -> None:
        self.listener.close()
        text, found = self.render(outcome)
        events: list[Event] = [*found, ToolReturned(self.call_id, self.name, outcome.output, outcome.error)]
        if question is not None:
            events.append(ConfirmationAsked(self.call_id, **asdict(question)))
        item = tool_output_item(self.call_id, text, failed=outcome.error is not None)
        # A stop undoes what is only in this transaction; what has happened outside must be on record.
        recorded = await self.writer.write(
            session,
            events,
            (item,),
            heed_stop=self.effect not in OUTSIDE,
            statement=_FINISH,
            values=self._row("done", outcome),
        )
        # The call has an outcome already. Raising rolls back the effect that this transaction holds.
        if not recorded:
            raise Fenced

    def hold(self, outcome: CallOutcome, act: Mapping[str, Any]) -> None:
        """Have the outcome of a call without an effect, and the `act` for the audit, recorded with the next write."""
        self.listener.close()
        text, found = self.render(outcome)
        self.writer.hold(
            [*found, ToolReturned(self.call_id, self.name, outcome.output, outcome.error)],
            [tool_output_item(self.call_id, text, failed=outcome.error is not None)],
            dict(act),
        )

    def _row(self, state: str, outcome: CallOutcome | None) -> dict[str, Any]:
        return {
            "call_id": self.call_id,
            "name": self.name,
            "effect": self.effect,
            "args_sha": self.args_sha,
            "state": state,
            "result": json.dumps(storable(asdict(outcome))) if outcome else None,
        }
