"""The record of a tool call. It makes the effect happen once."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from agent_server.calls.confirmations import Question
from agent_server.db import storable
from agent_server.errors import AgentServerError
from agent_server.log import without_secrets
from agent_server.tool_context import Listener


@dataclass(frozen=True)
class CallOutcome:
    """How a call ended. `error` is None, or the failure as `failure_text` has it."""

    output: Any
    error: str | None = None


class Ledger(Protocol):
    """What a turn adds to a call so that its effect happens once. A confirmation adds the same."""

    @property
    def conversation_id(self) -> UUID | None: ...

    @property
    def turn_id(self) -> UUID | None: ...

    @property
    def is_confirmed(self) -> bool:
        """Whether the caller itself has said yes to this call."""

    @property
    def idempotency_key(self) -> str: ...

    @property
    def listener(self) -> Listener | None:
        """Who hears of the call while it runs."""

    @property
    def outcome(self) -> CallOutcome | None:
        """The outcome that an earlier attempt of the turn recorded."""

    @property
    def cut_off(self) -> bool:
        """Whether an earlier attempt started the call and recorded no outcome."""

    async def start(self) -> None:
        """Commit that the call starts. Raises Interrupted when the turn is another's or is to stop."""

    def hold(self, outcome: CallOutcome, act: Mapping[str, Any]) -> None:
        """Record the outcome of a call without an effect, and the `act` for the audit, soon (`audit.act_json`)."""

    async def finish(self, session: AsyncSession, outcome: CallOutcome, question: Question | None = None) -> None:
        """Record the outcome in the transaction of `session`.

        `question` is what the user is asked in place of the call. Raises as `start`.
        """


class Interrupted(Exception):
    """Nothing of the call may be written. Its turn is to stop or is another attempt's by now."""


class OutcomeUnknown(AgentServerError):
    """Nobody knows whether a call outside our database took place that was cut off."""

    code = "outcome_unknown"

    def __init__(self, tool: str) -> None:
        super().__init__(
            f"A call of {tool} was cut off before its answer came: it may have taken effect, or may not have. "
            f"Do not call {tool} again for this. Tell the user that it is not known whether it happened, and to check "
            "before asking for it again"
        )


class RecordedFailure(AgentServerError):
    """The failure that an earlier attempt of the same turn recorded as `text`."""

    def __init__(self, text: str) -> None:
        code, _, message = text.partition(": ")
        super().__init__(message)
        self.code = code


def failure_text(error: AgentServerError) -> str:
    """A failure as `code: message`. Models read it so and it is stored so."""
    # A tool's error may repeat a key that was sent, or hold what Postgres cannot store.
    return str(storable(without_secrets(f"{error.code}: {error.message}")))


def outcome_text(outcome: CallOutcome) -> str:
    """An outcome as the model reads it and as it is stored."""
    if outcome.error is not None:
        return outcome.error
    # After a takeover the model must read the same text from the ledger.
    output = storable(outcome.output)
    return output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)
