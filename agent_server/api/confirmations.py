"""Questions before something is lost for good and their answers at /api/confirmations."""

from dataclasses import asdict
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, StrictBool

from agent_server.calls.confirmations import Changed, ConfirmationRepository, show_plainly, word_question
from agent_server.calls.consent import confirm_call, decline_call
from agent_server.db import now
from agent_server.http.auth import ReaderDep, ServerDep, WriterDep
from agent_server.http.problems import PROBLEMS, Problem, render_problem
from agent_server.results import tell_result
from agent_server.web.render import render_blocks

router = APIRouter(tags=["confirmations"])

NOT_DONE = "Nothing was done."


class ConfirmationView(BaseModel):
    """A call that is not made before the caller says so. `losses` are what it would lose, where its tool says that.

    Once it is confirmed, `done` says whether it was made, and `error` what it failed with; both are None where that is
    not known.
    """

    id: UUID
    tool: str
    title: str
    arguments: dict[str, Any]
    question: str
    losses: list[dict[str, str]] | None
    status: Literal["open", "confirmed", "declined", "expired"]
    done: bool | None = None
    error: str | None = None
    conversation_id: UUID | None
    turn_id: UUID | None
    created_at: datetime
    expires_at: datetime


class Decision(BaseModel):
    """The caller's word. It counts once."""

    model_config = ConfigDict(extra="forbid")

    # Only a plain yes is one: by default pydantic takes the texts `on` and `yes` for true.
    confirm: StrictBool


class ChangedProblem(Problem):
    """A yes that does not count. `confirmation` asks about what the call would lose now, where it still can be made."""

    confirmation: dict[str, Any] | None = None


class DecisionResult(BaseModel):
    """What became of the call. `output` is the tool's result, and `text` says it in Markdown, `html` with `render=html`
    in HTML."""

    id: UUID
    status: Literal["confirmed", "declined"]
    output: Any = None
    text: str
    html: str | None = None


@router.get("/api/confirmations/{id}")
async def read_confirmation(id: UUID, caller: ReaderDep, server: ServerDep) -> ConfirmationView:
    """What the caller was asked and whether it has been answered."""
    async with server.database.transaction(caller.id) as session:
        row = await ConfirmationRepository(session, caller).get(id)
    tool = server.workspace.tools.get(row.tool)
    title = tool.title if tool else row.tool
    status: Literal["open", "confirmed", "declined", "expired"]
    if row.used_at is not None:
        status = "confirmed" if row.confirmed else "declined"
    else:
        status = "open" if row.expires_at > now() else "expired"
    return ConfirmationView(
        **row.model_dump(include=set(ConfirmationView.model_fields)),
        title=show_plainly(title),
        question=word_question(title, row.arguments, row.losses),
        status=status,
        done=None if row.outcome is None else row.outcome == "ok",
        error=row.outcome.partition(": ")[2] if row.outcome not in (None, "ok") else None,
    )


@router.post(
    "/api/confirmations/{id}", response_model=DecisionResult, responses={409: {"model": ChangedProblem}, 504: {}}
)
async def answer_confirmation(
    id: UUID, body: Decision, caller: WriterDep, server: ServerDep, render: Literal["html"] | None = None
) -> DecisionResult | JSONResponse:
    """Answer a question. With `true` the call is made now, as the caller; with `false` it never is.

    Where it would lose something else by now it is not made: 409, with a new question as `confirmation`.
    """
    # The surface is the agent's: it is the agent's call that was waiting.
    if not body.confirm:
        await decline_call(server.runtime, id, caller=caller, surface="agent")
        return _result(id, "declined", NOT_DONE, render)
    try:
        output = await confirm_call(server.runtime, server.workspace.tools, id, caller=caller, surface="agent")
    except Changed as changed:
        question = asdict(changed.question) if changed.question else None
        problem = ChangedProblem(**render_problem(changed, 409).model_dump(), confirmation=question)
        return JSONResponse(problem.model_dump(mode="json", exclude_none=True), 409, media_type=PROBLEMS.media_type)
    async with server.database.transaction(caller.id) as session:
        name = (await ConfirmationRepository(session, caller).get(id)).tool
    text = tell_result(name, server.workspace.tools.get(name), output)
    return _result(id, "confirmed", text, render, output)


def _result(
    id: UUID, status: Literal["confirmed", "declined"], text: str, render: str | None, output: Any = None
) -> DecisionResult:
    html = "".join(render_blocks(text)) if render == "html" else None
    return DecisionResult(id=id, status=status, output=output, text=text, html=html)
