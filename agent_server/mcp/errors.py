"""Our errors as JSON-RPC errors."""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

import structlog
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, ErrorData
from pydantic import ValidationError

from agent_server.errors import (
    LONGEST_FIELD_MESSAGE,
    MOST_FIELDS,
    AgentServerError,
    Conflict,
    Forbidden,
    Internal,
    InvalidInput,
    NotFound,
    TooLarge,
    TooMany,
    Unauthorized,
    cut,
)
from agent_server.log import without_secrets

log = structlog.get_logger()

_DEEPEST = 5
"""`requiredCapabilities` names a kind of elicitation so deep in an error."""
# By class and not by status, which JSON-RPC does not have. Whatever is not listed is the server's fault.
_CLIENTS_FAULT = (Conflict, Forbidden, InvalidInput, TooLarge, TooMany, Unauthorized)


def error_data(error: AgentServerError, **data: Any) -> ErrorData:
    """`error` as JSON-RPC has it. `code: message` is for people, our code and the missing scope for programs."""
    if isinstance(error, Forbidden) and error.scope is not None:
        data["scope"] = error.scope
    return ErrorData(
        code=_number_of(type(error)),
        message=without_secrets(f"{error.code}: {error.message}"),
        data={"code": error.code, **data},
    )


def read_error(kept: Mapping[str, str]) -> ErrorData:
    """The same of an error of which code and message were kept."""
    known = {error.code: error for error in (NotFound, *_CLIENTS_FAULT)}
    message = without_secrets(f"{kept['code']}: {kept['message']}")
    number = _number_of(known.get(kept["code"], AgentServerError))
    return ErrorData(code=number, message=message, data={"code": kept["code"]})


def _number_of(error: type[AgentServerError]) -> int:
    # The protocol has no code for what is not there: it asks for wrong parameters in its place.
    if issubclass(error, NotFound):
        return INVALID_PARAMS
    return INVALID_REQUEST if issubclass(error, _CLIENTS_FAULT) else INTERNAL_ERROR


def _tame(value: Any, depth: int = 0) -> Any:
    """`value` with texts and lists of a few lines, in which secrets are masked."""
    match value:
        case str():
            return without_secrets(cut(value, LONGEST_FIELD_MESSAGE))
        case dict() if depth < _DEEPEST:
            return {_tame(str(key)): _tame(item, depth + 1) for key, item in islice(value.items(), MOST_FIELDS)}
        case list() | tuple() if depth < _DEEPEST:
            return [_tame(item, depth + 1) for item in value[:MOST_FIELDS]]
        case dict() | list() | tuple():
            return None
    return value


@contextmanager
def rendered_errors(method: str) -> Iterator[None]:
    """Raise what this block fails with as an error of the protocol."""
    try:
        yield
    # The SDK's own errors repeat the method, which may be any text of the client's.
    except MCPError as error:
        raise MCPError.from_error_data(ErrorData.model_validate(_tame(error.error.model_dump()))) from error
    # The SDK answers it as wrong parameters, without what was sent.
    except ValidationError:
        raise
    except AgentServerError as error:
        raise MCPError.from_error_data(error_data(error)) from error
    # The one catch-all of this surface: the SDK would show the text of the exception to the client.
    except Exception as error:
        bug = Internal(method, secrets.token_hex(6))
        log.exception("mcp.failed", method=method, reference=bug.reference)
        raise MCPError.from_error_data(error_data(bug)) from error


async def render_errors(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """Render what a request fails with."""
    with rendered_errors(ctx.method):
        return await call_next(ctx)
