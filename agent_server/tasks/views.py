"""Tasks as people and models have them: as jobs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from agent_server.calls.jobs import JobError, JobProgress, JobSummary, JobView, State
from agent_server.calls.ledger import CallOutcome
from agent_server.errors import NotFound
from agent_server.results import tell_failure, tell_result
from agent_server.tasks.models import McpTask
from agent_server.tasks.store import TaskRepository
from agent_server.tool import Tool
from agent_server.tool_context import ToolContext
from agent_server.wording import word_label

_STATES: Mapping[str, State] = {"working": "running", "input_required": "asking", "cancelled": "cancelled"}
_LATEST = 10
_NOTHING = JobProgress(done=None, total=None, message=None)


def outcome_of(row: McpTask) -> CallOutcome | None:
    """How the call of a task ended. None where it has not, or was cancelled before it had an effect."""
    if row.error is not None:
        return CallOutcome(None, f"{row.error['code']}: {row.error['message']}")
    if row.outcome is not None:
        return CallOutcome(**row.outcome)
    if row.result is None:
        return None
    # What MCP's own tools answer: they are among the jobs of who called them.
    failed = "failed: it ended with an error" if row.result.get("isError") else None
    return CallOutcome(row.result.get("structuredContent"), failed)


def summarise_job(row: McpTask, tool: Tool[..., Any] | None) -> JobSummary:
    """`row` without its result. `tool` is None where it is none of the workspace's."""
    outcome, error = outcome_of(row), None
    if outcome is not None and outcome.error is not None:
        code, _, message = outcome.error.partition(": ")
        error = JobError(code=code, message=message)
    progress = JobProgress(done=row.done, total=row.total, message=row.message)
    return JobSummary(
        id=row.id,
        tool=row.tool,
        title=word_label(row.tool) if tool is None else tool.title,
        state=_STATES.get(row.status, "failed" if error else "done"),
        progress=progress if row.status == "working" and progress != _NOTHING else None,
        error=error,
        conversation_id=row.conversation_id,
        created_at=row.created_at,
        updated_at=row.updated_at,
        expires_at=row.expires_at,
    )


def view_job(row: McpTask, tool: Tool[..., Any] | None) -> JobView:
    """`row` with what came of it."""
    outcome, text = outcome_of(row), None
    if outcome is not None and outcome.error is not None:
        text = tell_failure(row.tool, tool, outcome.error)
    elif outcome is not None:
        text = tell_result(row.tool, tool, outcome.output)
    return JobView(**summarise_job(row, tool).model_dump(), result=outcome and outcome.output, text=text)


@dataclass(frozen=True)
class TaskReader:
    """The `calls.jobs.JobReader` of a process with these tools."""

    tools: Mapping[str, Tool[..., Any]]

    async def read(self, context: ToolContext, job: str | None) -> Sequence[JobView]:
        """The job of this id, else those whose titles have these words, else the latest. Raises NotFound."""
        repository = context.repository(TaskRepository)
        if (id := _read_id(job)) is not None:
            row = await repository.get(id)
            if not context.caller.may(row.scope):
                raise NotFound(f"There is no job {id}; it is another caller's, or its time is over")
            return [view_job(row, self.tools.get(row.tool))]
        page = await repository.page_listed(_LATEST)
        jobs = [view_job(row, self.tools.get(row.tool)) for row in page.items]
        words = (job or "").casefold().split()
        return [each for each in jobs if all(word in each.title.casefold() for word in words)] or jobs


def _read_id(job: str | None) -> UUID | None:
    try:
        return UUID(job or "")
    except ValueError:
        return None
