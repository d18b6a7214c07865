"""How the task of a question to an agent is carried out."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import anyio

from agent_server.errors import AgentServerError, Internal, Unavailable
from agent_server.tasks.runner import Attempt
from agent_server.tasks.tasks import Tasks
from agent_server.toolsets import ASK_AGENT

if TYPE_CHECKING:
    from agent_server.server import Server


def carry_questions(
    server: "Server", current: "Callable[[], Server]", start: Callable[[], Awaitable[object]] | None = None
) -> Tasks:
    """The tasks of a process, which carries out questions to its agents from now on. `current` gives its parts as they are
    now, `start` has it run turns, if it does not yet."""

    async def carry(attempt: Attempt) -> None:
        await _ask(attempt, current, start)

    # A tool of the workspace that has such a name goes before ours.
    if ASK_AGENT not in server.workspace.tools:
        server.tasks.runner.add(ASK_AGENT, carry)
    return server.tasks


async def _ask(
    attempt: Attempt, current: "Callable[[], Server]", start: Callable[[], Awaitable[object]] | None
) -> None:
    from agent_server.mcp.agents import AskAgent  # noqa: PLC0415  # heavy

    agents, task = AskAgent(current, start), attempt.task
    try:
        # The task's id is the key of its message: whoever takes the task over finds the turn.
        turn = await agents.begin(attempt.caller, task.arguments, f"mcp task {task.id}")
        try:
            result = await agents.follow(turn, attempt.listener)
        except asyncio.CancelledError:
            with anyio.CancelScope(shield=True), contextlib.suppress(Unavailable):
                if not await attempt.lease.is_open():
                    await current().runner.stop_turn(turn.owner_id, turn.id)
            raise
    except (Unavailable, Internal):
        raise
    except AgentServerError as error:
        from agent_server.mcp.tools import render_failure  # noqa: PLC0415  # heavy

        result = render_failure(error)
    await attempt.lease.complete(result.model_dump(mode="json", by_alias=True, exclude_none=True))
