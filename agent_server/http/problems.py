"""Errors as RFC 9457 problem details with a `code` of ours and the request id."""

from http import HTTPStatus
from uuid import UUID

import structlog
from pydantic import BaseModel, Field

from agent_server.errors import AgentServerError, Busy, InvalidInput
from agent_server.http.errors import ErrorFormat
from agent_server.log import without_secrets


class Problem(BaseModel):
    """RFC 9457. `code` and `errors` are for programs and `detail` is for people."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    request_id: str | None = Field(None, exclude_if=lambda value: value is None)
    errors: list[dict[str, str]] | None = Field(None, exclude_if=lambda value: value is None)
    turn_id: UUID | None = Field(None, exclude_if=lambda value: value is None)


def render_problem(error: AgentServerError, status: int) -> Problem:
    """The document for `error`."""
    # A message may name what was sent, such as a token in the place of an id, so all texts are masked.
    fields = error.fields if isinstance(error, InvalidInput) else ()
    return Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=without_secrets(error.message),
        code=error.code,
        request_id=structlog.contextvars.get_contextvars().get("request_id"),
        errors=[{"field": without_secrets(f.field), "message": without_secrets(f.message)} for f in fields] or None,
        turn_id=error.turn_id if isinstance(error, Busy) else None,
    )


PROBLEMS = ErrorFormat(render=render_problem, model=Problem, media_type="application/problem+json")
