"""Errors as responses in the format of the path.

Who refuses a request raises an AgentServerError and knows neither status nor format. `statuses` has the one; the
other is that of the longest prefix of the path, RFC 9457 (`problems`) where no prefix has one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from agent_server.bodies import name_wrong_type
from agent_server.errors import (
    MOST_FIELDS,
    AgentServerError,
    FieldError,
    Forbidden,
    InvalidInput,
    NotFound,
    Unauthorized,
    name_fields,
)
from agent_server.http.statuses import BadRequest, MethodNotAllowed, RequestTimedOut, find_error, status_of


@dataclass(frozen=True, kw_only=True)
class ErrorFormat:
    """How a protocol writes an error with its status. `model` is the class of what `render` returns."""

    render: Callable[[AgentServerError, int], BaseModel]
    model: type[BaseModel]
    media_type: str = "application/json"


@dataclass(frozen=True)
class ErrorFormats:
    """The formats of one app by the prefix of a path."""

    default: ErrorFormat
    by_prefix: Mapping[str, ErrorFormat]

    def format_of(self, path: str) -> ErrorFormat:
        """The format of the longest prefix that the path is under."""
        under = [prefix for prefix in self.by_prefix if path == prefix or path.startswith(f"{prefix}/")]
        return self.by_prefix[max(under, key=len)] if under else self.default

    def response(self, error: AgentServerError, path: str) -> JSONResponse:
        """The response to a request for `path`."""
        wanted, status = self.format_of(path), status_of(type(error))
        body = wanted.render(error, status).model_dump(mode="json")
        return JSONResponse(body, status, _headers(error), media_type=wanted.media_type)


# The same in every format: clients act on these without looking at the body.
def _headers(error: AgentServerError) -> dict[str, str]:
    headers: dict[str, str] = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = 'Bearer error="invalid_token"'
    if isinstance(error, Forbidden) and error.scope is not None:
        headers["WWW-Authenticate"] = f'Bearer error="insufficient_scope", scope="{error.scope}"'
    if isinstance(error, MethodNotAllowed) and error.allowed is not None:
        headers["Allow"] = error.allowed
    if isinstance(error, RequestTimedOut | BadRequest):
        headers["Connection"] = "close"  # what is still to come of the body would be taken for the next request
    return headers


def install(app: FastAPI) -> None:
    """Raise what the framework refuses as errors of ours. `RefusalMiddleware` answers them."""

    @app.exception_handler(RequestValidationError)
    async def validation(request: Request, error: RequestValidationError) -> NoReturn:
        found = error.errors()
        if any(each["loc"] == ("body",) for each in found) and (wrong := name_wrong_type(request.headers)):
            raise find_error(415)(wrong) from None
        raise _invalid_input([_field(each) for each in found[:MOST_FIELDS]], len(found)) from None

    @app.exception_handler(HTTPException)
    async def routing(_: Request, error: HTTPException) -> NoReturn:
        match error.status_code:
            case 400:  # FastAPI's word for a body that is not UTF-8
                raise _invalid_input([FieldError("body", "not JSON in UTF-8")]) from None
            case 405:
                raise MethodNotAllowed(str(error.detail), (error.headers or {}).get("Allow")) from None
            case 404:
                raise NotFound("There is nothing at this address; see /docs") from None
            case status:
                raise find_error(status)(str(error.detail)) from None


def _invalid_input(fields: list[FieldError], wrong: int = 1) -> InvalidInput:
    return InvalidInput(name_fields(fields, wrong), fields)


def _field(error: Mapping[str, Any]) -> FieldError:
    """One complaint without what was sent."""
    # The value is left out: it may be a secret.
    where = ".".join(str(part) for part in error["loc"] if part != "body") or "body"
    if error["type"] == "json_invalid":
        return FieldError("body", f"not JSON: {error.get('ctx', {}).get('error', 'invalid')}")
    return FieldError(where, str(error["msg"]).removeprefix("Value error, "))
