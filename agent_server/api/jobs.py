"""The caller's jobs at /api/jobs: calls of long tools that go on without it.

Whoever may call a tool may see and stop the jobs of it that are its own.
"""

import re
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from agent_server.api.parameters import Cursor, Limit
from agent_server.caller import Caller
from agent_server.calls.jobs import JobSummary, JobView
from agent_server.calls.ledger import RecordedFailure
from agent_server.conversations.repository import ConversationRepository
from agent_server.http.auth import CallerDep, ServerDep
from agent_server.http.problems import PROBLEMS, render_problem
from agent_server.http.statuses import STATUSES
from agent_server.server import Server
from agent_server.tasks.begin import begin_job
from agent_server.tasks.models import McpTask
from agent_server.tasks.store import has_ended
from agent_server.tasks.views import outcome_of, summarise_job, view_job
from agent_server.tool import Tool
from agent_server.web.render import render_blocks

router = APIRouter(tags=["jobs"])

LONGEST_WAIT = 60
"""Seconds that a request may wait. Proxies give up on an answer that takes longer."""
_WAIT = re.compile(r"(?:^|,)\s{0,9}wait\s{0,9}=\s{0,9}\"?(\d{1,9})\"?\s{0,9}(?=,|;|$)", re.IGNORECASE)
PreferHeader = Annotated[
    str | None,
    Header(
        max_length=200,
        description=f"`wait=N`: to wait for the end of the job, for up to N seconds (at most {LONGEST_WAIT}).",
    ),
]


class JobPage(BaseModel):
    """Jobs, newest first."""

    items: list[JobSummary]
    next_cursor: str | None


class JobDetail(JobView):
    """A job with what came of it. With `render=html`, `html` is `text` in HTML."""

    html: str | None = None


def read_wait(prefer: str | None) -> int:
    """The seconds that a request prefers to wait."""
    found = _WAIT.search(prefer or "")
    return min(int(found[1]), LONGEST_WAIT) if found else 0


@router.get("/api/jobs", responses={404: {}})
async def list_jobs(
    caller: CallerDep,
    server: ServerDep,
    limit: Limit = 50,
    cursor: Cursor = None,
    conversation: Annotated[str | None, Query(max_length=200, description="Only those begun in it.")] = None,
) -> JobPage:
    """The caller's jobs, newest first."""
    conversation_id = None
    if conversation is not None:
        async with server.database.transaction(caller.id) as session:
            conversation_id = (await ConversationRepository(session, caller).get(conversation)).id
    page = await server.tasks.page(caller, cursor, limit=limit, conversation_id=conversation_id)
    items = [summarise_job(row, server.workspace.tools.get(row.tool)) for row in page.items]
    return JobPage(items=items, next_cursor=page.next_cursor)


@router.get("/api/jobs/{job}")
async def read_job(
    job: UUID,
    caller: CallerDep,
    server: ServerDep,
    prefer: PreferHeader = None,
    render: Literal["html"] | None = None,
) -> JobDetail:
    """How a job stands, and what came of it."""
    row = await server.tasks.get_job(caller, job)
    if seconds := read_wait(prefer):
        row = await server.tasks.wait(caller, job, seconds)
    return _detail(server, row, render)


@router.post("/api/jobs/{job}/cancel", responses={409: {}})
async def cancel_job(job: UUID, caller: CallerDep, server: ServerDep) -> JobDetail:
    """Stop a job. What it has stored is undone; what has happened elsewhere stays on record."""
    await server.tasks.get_job(caller, job)
    return _detail(server, await server.tasks.cancel(caller, job), None)


def _detail(server: Server, row: McpTask, render: str | None) -> JobDetail:
    job = view_job(row, server.workspace.tools.get(row.tool))
    html = "".join(render_blocks(job.text)) if render == "html" and job.text else None
    return JobDetail(**job.model_dump(), html=html)


async def answer_long_call(
    tool: Tool[..., Any],
    arguments: str,
    *,
    request: Request,
    caller: Caller,
    server: Server,
    conversation_id: UUID | None,
) -> Response:
    """Begin the job of a call by REST. The answer is the handle, or the result where the job ends while the request
    waits. Raises as `begin_job`."""
    id = await begin_job(
        server.runtime,
        tool,
        arguments,
        caller=caller,
        surface="rest",
        conversation_id=conversation_id,
        client_key=request.headers.get("Idempotency-Key"),
    )
    server.tasks.runner.look_soon()
    row = await server.tasks.wait(caller, id, read_wait(request.headers.get("Prefer")))
    place = f"/api/jobs/{id}"
    if has_ended(row) and (outcome := outcome_of(row)) is not None:
        if outcome.error is not None:
            error = RecordedFailure(outcome.error)
            status = next((status for kind, status in STATUSES.items() if kind.code == error.code), 500)
            problem = render_problem(error, status).model_dump(mode="json")
            return JSONResponse(problem, status, {"Content-Location": place}, media_type=PROBLEMS.media_type)
        return JSONResponse(outcome.output, headers={"Content-Location": place})
    body = view_job(row, tool).model_dump(mode="json")
    return JSONResponse(body, 202, headers={"Location": place})
