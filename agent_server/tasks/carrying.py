"""How the task of a tool of the workspace is carried out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from agent_server.audit import Surface
from agent_server.calls.call import Runtime, call_tool
from agent_server.errors import AgentServerError, NotFound, Unavailable, quote_value
from agent_server.questions import Answers, Asked
from agent_server.tasks.ledger import TaskLedger
from agent_server.tasks.runner import Attempt
from agent_server.tasks.store import given_of
from agent_server.tool import Tool


@dataclass(frozen=True)
class Carrier:
    """Carries out tasks of these tools."""

    runtime: Runtime
    tools: Mapping[str, Tool[..., Any]]

    async def carry(self, attempt: Attempt) -> None:
        """Make the call of a task. Raises Interrupted, Unavailable, and what is no failure of the call."""
        task = attempt.task
        if (tool := self.tools.get(task.tool)) is None:
            raise NotFound(f"There is no tool {quote_value(task.tool)} any more")
        ledger = TaskLedger(lease=attempt.lease, task=task, tool=tool, listener=attempt.listener)
        can: Any = frozenset(task.can)
        answers = Answers(key=ledger.idempotency_key, given=given_of(task), can=can)
        try:
            await call_tool(
                self.runtime,
                tool,
                task.arguments,
                caller=attempt.caller,
                surface=cast(Surface, task.surface),
                ledger=ledger,
                collections=None if task.collections is None else tuple(task.collections),
                answers=answers if can or task.surface == "mcp" else None,
            )
        except Asked as asked:
            await attempt.lease.ask(asked.inquiries, asked.answers.given)
        except Unavailable:
            raise
        except AgentServerError:  # it is the outcome, and stored
            return
