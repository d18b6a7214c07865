"""Errors as RFC 9457 problem details, with a `code` of ours and the request id."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from uuid import UUID

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from agent_server.errors import AgentServerError, Busy, FieldError, Forbidden, InvalidInput, Unauthorized
from agent_server.log import without_secrets


class Problem(BaseModel):
    """RFC 9457: what went wrong, for programs (`code`, `errors`) and for people (`detail`)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    request_id: str | None = None
    errors: list[dict[str, str]] | None = None
    turn_id: UUID | None = None


def problem(error: AgentServerError) -> JSONResponse:
    """The response for `error`."""
    headers: dict[str, str] = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = 'Bearer error="invalid_token"'
    if isinstance(error, Forbidden) and error.scope is not None:
        headers["WWW-Authenticate"] = f'Bearer error="insufficient_scope", scope="{error.scope}"'
    fields = error.fields if isinstance(error, InvalidInput) else ()
    turn_id = error.turn_id if isinstance(error, Busy) else None
    return _response(error.status, error.code, error.message, fields, headers, turn_id)


def _response(
    status: int,
    code: str,
    detail: str,
    fields: tuple[FieldError, ...] = (),
    headers: Mapping[str, str] | None = None,
    turn_id: UUID | None = None,
) -> JSONResponse:
    body = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=without_secrets(detail),
        code=code,
        request_id=structlog.contextvars.get_contextvars().get("request_id"),
        errors=[{"field": without_secrets(f.field), "message": without_secrets(f.message)} for f in fields] or None,
        turn_id=turn_id,
    )
    return JSONResponse(
        body.model_dump(mode="json", exclude_none=True),
        status,
        dict(headers or {}),
        media_type="application/problem+json",
    )


def install(app: FastAPI) -> None:
    """Make every expected failure of a route a problem document; bugs are caught around them all (`middleware`)."""

    @app.exception_handler(AgentServerError)
    async def _expected(_: Request, error: AgentServerError) -> JSONResponse:
        return problem(error)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        fields = tuple(_field(e) for e in error.errors())
        return _response(422, "invalid_input", "; ".join(f"{f.field}: {f.message}" for f in fields), fields)

    @app.exception_handler(HTTPException)
    async def _routing(_: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 400:  # FastAPI's word for a body that is not UTF-8
            field = FieldError("body", "not JSON in UTF-8")
            return _response(422, "invalid_input", f"{field.field}: {field.message}", (field,))
        codes = {404: "not_found", 405: "method_not_allowed", 413: "too_large", 415: "unsupported_media_type"}
        detail = "There is nothing at this address; see /docs" if error.status_code == 404 else str(error.detail)
        return _response(
            error.status_code, codes.get(error.status_code, "invalid_input"), detail, headers=error.headers
        )


def _field(error: Mapping[str, Any]) -> FieldError:
    """One complaint without what was sent: the value may be a secret, and is the caller's anyway."""
    where = ".".join(str(part) for part in error["loc"] if part != "body") or "body"
    if error["type"] == "json_invalid":
        return FieldError("body", f"not JSON: {error.get('ctx', {}).get('error', 'invalid')}")
    return FieldError(where, str(error["msg"]).removeprefix("Value error, "))
