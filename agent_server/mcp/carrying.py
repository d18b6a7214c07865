"""How a task is carried out: the call of a tool of the workspace, or a question to an agent."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio

from agent_server.calls.call import Runtime, call_tool
from agent_server.calls.ledger import CallOutcome, RecordedFailure
from agent_server.changes import Changes
from agent_server.errors import AgentServerError, Internal, NotFound, Unavailable, quote_value
from agent_server.questions import Answers, Asked
from agent_server.tasks.ledger import TaskLedger
from agent_server.tasks.runner import Attempt, TaskRunner
from agent_server.tasks.store import given_of
from agent_server.tasks.tasks import Tasks
from agent_server.tool import Tool
from agent_server.toolsets import ASK_AGENT

if TYPE_CHECKING:
    from agent_server.server import Server


def create_tasks(server: "Server", current: "Callable[[], Server]") -> Tasks:
    """The tasks of a process. `current` gives its parts as they are now."""
    changes: Changes = server.runtime.resources[Changes]
    runner = TaskRunner(
        server.database,
        server.runner.replica,
        changes,
        Carrier(server.runtime, server.workspace.tools, current).carry,
        _describe,
        renew=server.resolver.renew,
        slots=server.settings.tasks_per_process,
        sleep=server.sleep,
    )
    return Tasks(server.database, server.settings, changes, runner)


def _describe(error: AgentServerError) -> Mapping[str, Any]:
    from agent_server.mcp.errors import error_data  # noqa: PLC0415  # heavy

    return error_data(error).model_dump(mode="json", exclude_none=True)


@dataclass(frozen=True)
class Carrier:
    """Carries out tasks of these tools."""

    runtime: Runtime
    tools: Mapping[str, Tool[..., Any]]
    server: "Callable[[], Server]"

    async def carry(self, attempt: Attempt) -> None:
        """Make the call of a task. Raises Interrupted, Unavailable, and what is no failure of the call."""
        name = attempt.task.tool
        if name in self.tools:
            await self._call(self.tools[name], attempt)
        elif name == ASK_AGENT:
            await self._ask(attempt)
        else:
            raise NotFound(f"There is no tool {quote_value(name)} any more")

    async def _call(self, tool: Tool[..., Any], attempt: Attempt) -> None:
        task = attempt.task
        ledger = TaskLedger(
            lease=attempt.lease,
            task=task,
            tool=tool,
            render=lambda outcome: _render(tool, outcome),
            listener=attempt.listener,
        )
        can: Any = frozenset(task.can)
        try:
            await call_tool(
                self.runtime,
                tool,
                task.arguments,
                caller=attempt.caller,
                surface="mcp",
                ledger=ledger,
                answers=Answers(key=ledger.idempotency_key, given=given_of(task), can=can),
            )
        except Asked as asked:
            await attempt.lease.ask(asked.inquiries, asked.answers.given)
        except Unavailable:
            raise
        except AgentServerError:  # it is the result, and stored
            return

    async def _ask(self, attempt: Attempt) -> None:
        from agent_server.mcp.agents import AskAgent  # noqa: PLC0415  # heavy

        agents, task = AskAgent(self.server), attempt.task
        try:
            # The task's id is the key of its message: whoever takes the task over finds the turn.
            turn = await agents.begin(attempt.caller, task.arguments, f"mcp task {task.id}")
            try:
                result = await agents.follow(turn, attempt.listener)
            except asyncio.CancelledError:
                with anyio.CancelScope(shield=True), contextlib.suppress(Unavailable):
                    if not await attempt.lease.is_open():
                        await self.server().runner.stop_turn(turn.owner_id, turn.id)
                raise
        except (Unavailable, Internal):
            raise
        except AgentServerError as error:
            from agent_server.mcp.tools import render_failure  # noqa: PLC0415  # heavy

            result = render_failure(error)
        await attempt.lease.complete(result.model_dump(mode="json", by_alias=True, exclude_none=True))


def _render(tool: Tool[..., Any], outcome: CallOutcome) -> Mapping[str, Any]:
    from agent_server.mcp.tools import render_failure, render_output  # noqa: PLC0415  # heavy

    if outcome.error is None:
        result = render_output(tool, outcome.output)
    else:
        result = render_failure(RecordedFailure(outcome.error))
    return result.model_dump(mode="json", by_alias=True, exclude_none=True)
