"""The HTTP status of each error and the errors that only HTTP knows."""

from collections.abc import Mapping

from agent_server.calls.ledger import OutcomeUnknown
from agent_server.errors import (
    AgentServerError,
    Conflict,
    Forbidden,
    InvalidInput,
    ModelFailed,
    NotFound,
    OutsideFailed,
    TimedOut,
    TooLarge,
    TooMany,
    Unauthorized,
    Unavailable,
)


class BadRequest(AgentServerError):
    code = "bad_request"


class MethodNotAllowed(AgentServerError):
    code = "method_not_allowed"

    def __init__(self, message: str, allowed: str | None) -> None:
        super().__init__(message)
        self.allowed = allowed


class RequestTimedOut(AgentServerError):
    code = "request_timed_out"


class AddressTooLong(AgentServerError):
    code = "address_too_long"


class UnsupportedMediaType(AgentServerError):  # it is not read here, or the body is packed
    code = "unsupported_media_type"


class Misdirected(AgentServerError):
    """`Host` is no name of this server."""

    code = "misdirected"


class HeadersTooLarge(AgentServerError):
    code = "headers_too_large"


STATUSES: Mapping[type[AgentServerError], int] = {
    BadRequest: 400,
    Unauthorized: 401,
    Forbidden: 403,
    NotFound: 404,
    MethodNotAllowed: 405,
    RequestTimedOut: 408,
    Conflict: 409,
    OutcomeUnknown: 409,
    TooLarge: 413,
    AddressTooLong: 414,
    UnsupportedMediaType: 415,
    Misdirected: 421,
    InvalidInput: 422,
    TooMany: 429,
    HeadersTooLarge: 431,
    # What is not named here is the server's own fault.
    AgentServerError: 500,
    ModelFailed: 502,
    OutsideFailed: 502,
    Unavailable: 503,
    TimedOut: 504,
}


def status_of(error: type[AgentServerError]) -> int:
    """The status of a class of errors. It is that of the nearest base in the table."""
    return next(STATUSES[base] for base in error.__mro__ if base in STATUSES)


def find_error(status: int) -> type[AgentServerError]:
    """The class that a status is for. It is BadRequest where there is none."""
    return next((error for error, of_it in STATUSES.items() if of_it == status), BadRequest)
