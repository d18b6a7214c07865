"""check_jobs: how the caller's jobs stand, and what came of them. A job is a call of a long tool that goes on by itself."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, Protocol, runtime_checkable
from uuid import UUID

from pydantic import BaseModel, Field

from agent_server.tool import ToolContext, tool

State = Literal["running", "asking", "done", "failed", "cancelled"]

GOES_ON = (
    "The work goes on in the background and may take minutes. Do not call the tool again for it. Tell the user that it "
    "has begun; check_jobs says how far it is and what came of it"
)


class JobBegun(BaseModel):
    """What a model is told of a call that is a job."""

    job: UUID
    tool: str
    title: str
    state: State = "running"
    note: str = GOES_ON


class JobProgress(BaseModel):
    """How far a job is, as its tool said last. `total` is what `done` will be at the end."""

    done: float | None
    total: float | None
    message: str | None


class JobError(BaseModel):
    """What a job failed with."""

    code: str
    message: str


class JobSummary(BaseModel):
    """How a job stands. It is kept until `expires_at`."""

    id: UUID
    tool: str
    title: str
    state: State
    progress: JobProgress | None
    error: JobError | None
    conversation_id: UUID | None
    created_at: datetime
    updated_at: datetime
    expires_at: datetime


class JobView(JobSummary):
    """A job with what came of it. `result` is what its tool returned, and `text` says in Markdown how it ended."""

    result: Any
    text: str | None


class JobList(BaseModel):
    """Jobs of the caller, newest first. Where there are several, `text` says what came of each and `result` is left out."""

    jobs: list[JobView]


@runtime_checkable
class JobReader(Protocol):
    """Reads the caller's jobs."""

    async def read(self, context: ToolContext, job: str | None) -> Sequence[JobView]: ...


@tool(
    scope="conversations:read",
    effect="read",
    phrases=[
        "what became of my {job}",
        "what has become of my {job}",
        "how far is my {job}",
        "is my {job} [ready|done|finished]",
        "[show|list] my jobs",
        "how are my jobs",
    ],
)
async def check_jobs(
    context: ToolContext,
    job: Annotated[
        str | None, Field(description="The id of a job, or words of its title; left out, the latest ones.")
    ] = None,
) -> JobList:
    """See how far the user's jobs in the background are, and what came of those that have ended."""
    found = await context.resource(JobReader).read(context, job)  # type: ignore[type-abstract]  # one of its kind
    if len(found) == 1:
        return JobList(jobs=list(found))
    return JobList(jobs=[each.model_copy(update={"result": None}) for each in found])
