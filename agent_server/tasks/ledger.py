"""The ledger of a task's call, which makes its effect happen once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid5

from sqlalchemy.ext.asyncio import AsyncSession

from agent_server.calls.confirmations import Question
from agent_server.calls.ledger import CallOutcome, Interrupted
from agent_server.tasks.models import McpTask
from agent_server.tasks.store import Lease
from agent_server.tool import OUTSIDE, Tool
from agent_server.tool_context import Listener


@dataclass(frozen=True, kw_only=True)
class TaskLedger:
    """The `calls.ledger.Ledger` of a task. The result commits with the effect of the call."""

    lease: Lease
    task: McpTask
    tool: Tool[..., Any]
    listener: Listener | None = None
    turn_id: None = None
    # A task that has an outcome is not run again.
    outcome: None = None

    @property
    def conversation_id(self) -> UUID | None:
        return self.task.conversation_id

    @property
    def is_confirmed(self) -> bool:
        # What is no task of MCP's was admitted and counted when it was begun (`tasks.begin`).
        return self.task.surface != "mcp"

    @property
    def idempotency_key(self) -> str:
        if (sent := self.task.client_key) is None:
            return str(self.task.id)
        # As by REST: a caller who sends its key again there names the same call to the service that keeps it.
        return str(uuid5(self.task.owner_id, f"{self.tool.name}:{sent}"))

    @property
    def cut_off(self) -> bool:
        return self.task.started

    async def start(self) -> None:
        if not await self.lease.start():
            raise Interrupted

    def hold(self, outcome: CallOutcome, act: Mapping[str, Any]) -> None:
        # Only what is part of a turn is held.
        raise NotImplementedError("a task is no part of a turn")

    async def finish(self, session: AsyncSession, outcome: CallOutcome, question: Question | None = None) -> None:
        has_happened = self.tool.effect in OUTSIDE
        # Rolls back what the call did here: the task was cancelled, or is another attempt's.
        if not await self.lease.finish(session, outcome, has_happened=has_happened):
            raise Interrupted
