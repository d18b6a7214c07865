"""The ledger of a turn's tool calls: what makes an effect happen once."""

import json
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from agent_server.call import OutcomeUnknown, Recorded
from agent_server.db import storable
from agent_server.turns.events import ToolReturned
from agent_server.turns.journal import Journal, NewItem
from agent_server.turns.models import ToolCall

_RECORD_CALL = text("""
    insert into tool_call (owner_id, turn_id, call_id, name, effect, args_sha, state, result, epoch)
    values (:owner_id, :turn_id, :call_id, :name, :effect, :args_sha, :state, cast(:result as jsonb), :epoch)
    on conflict (owner_id, turn_id, call_id) do update set state = excluded.state, result = excluded.result,
        epoch = excluded.epoch""")


@dataclass
class CallLedger:
    """The ledger of one tool call (`call.Ledger`): its record, event and item commit with the tool's effect."""

    journal: Journal
    call_id: str
    name: str
    effect: str
    args_sha: bytes

    @property
    def conversation_id(self) -> UUID:
        return self.journal.conversation_id

    @property
    def turn_id(self) -> UUID:
        return self.journal.turn_id

    @property
    def idempotency_key(self) -> str:
        return f"{self.journal.turn_id}:{self.call_id}"

    async def begin(self, session: AsyncSession, *, separate: bool) -> Recorded | None:
        row = await session.get(ToolCall, (self.journal.owner_id, self.journal.turn_id, self.call_id))
        if row is not None and row.state == "done" and row.result is not None:
            return Recorded(**row.result)
        if row is not None and self.effect == "once":
            raise OutcomeUnknown(
                "an earlier attempt of this call was cut off; it may or may not have taken effect. "
                "Do not call it again; tell the user to check"
            )
        if separate:
            await self.journal.write(session)
            await session.execute(_RECORD_CALL, self._row("started", None))
        return None

    async def finish(self, session: AsyncSession, outcome: Recorded) -> None:
        returned = ToolReturned(self.call_id, self.name, outcome.output, outcome.error)
        await self.journal.write(session, (returned,), (NewItem(output_item(self.call_id, outcome)),))
        await session.execute(_RECORD_CALL, self._row("done", outcome))

    def _row(self, state: str, outcome: Recorded | None) -> dict[str, Any]:
        return {
            "owner_id": self.journal.owner_id,
            "turn_id": self.journal.turn_id,
            "call_id": self.call_id,
            "name": self.name,
            "effect": self.effect,
            "args_sha": self.args_sha,
            "state": state,
            "result": json.dumps(storable(asdict(outcome))) if outcome else None,
            "epoch": self.journal.epoch,
        }


def output_text(outcome: Recorded) -> str:
    """What the model reads of a call's outcome."""
    if outcome.error is not None:
        return outcome.error
    return outcome.output if isinstance(outcome.output, str) else json.dumps(outcome.output, ensure_ascii=False)


def output_item(call_id: str, outcome: Recorded) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": output_text(outcome)}
