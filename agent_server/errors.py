"""Every failure a caller, a model or an operator may be shown.

    AgentServerError        code, message: safe to show
    ├── InvalidInput        the caller sent something wrong and can correct it
    │   └── ResultTooLarge  a tool's result is over the limit: ask for less
    ├── Unauthorized        no credential, or one that is not (or no longer) valid
    ├── Forbidden           a valid caller that may not do this
    ├── NotFound            not there, or not the caller's: the two are never told apart
    ├── Conflict            the row has moved on since the caller looked
    │   └── Busy            the conversation is still answering; by which turn
    ├── TooLarge            the body is over the limit
    ├── TooMany             a limit is reached; `retry_after` seconds
    ├── Unavailable         the database is away; try again
    ├── ModelFailed         the model refused, stalled or answered nonsense
    ├── TimedOut            a tool took longer than it may
    ├── OutsideFailed       an outside server is away, refused or answered nonsense
    ├── Internal            a bug of ours, by its reference in the log
    └── WorkspaceInvalid    mistakes in tools/, prompts/ or content/, for the developer

Each surface has its own rendering; the status of HTTP is in `http.statuses`.
Anything else that is raised is a bug: surfaces answer with a reference and log the traceback.
"""

import difflib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

# What is shown is searched for secrets, logged and sent back: its length is the server's to decide, not the caller's.
LONGEST_VALUE = 100
LONGEST_FIELD = 100
LONGEST_FIELD_MESSAGE = 300
LONGEST_MESSAGE = 2_000
MOST_FIELDS = 20
"""Of the fields that are wrong so many are named."""
_NEAR = 0.7
"""How alike two names are that one may be a slip for, as difflib counts: 0 to 1."""


def cut(text: str, longest: int) -> str:
    """`text` with at most `longest` characters. Three dots stand for what is left out."""
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def quote_value(value: Any) -> str:
    """What a caller sent, in quotation marks, as a message repeats it."""
    # First of all, because `repr` makes up to ten characters of one. Two are left for the quotation marks.
    return cut(repr(cut(value, LONGEST_VALUE - 2) if isinstance(value, str) else value), LONGEST_VALUE)


def name_known(wrong: str, known: Iterable[str]) -> str:
    """What there is in place of a name that there is not: the one that was perhaps meant, and all of them."""
    there = sorted(known)
    near = find_near(wrong, there)
    named = f"there {'is' if len(there) == 1 else 'are'} {', '.join(there) or 'none'}"
    if near is None:
        return named
    return f"did you mean {near!r}?" if len(there) == 1 else f"did you mean {near!r}? T{named[1:]}"


def find_near(wrong: str, known: Iterable[str]) -> str | None:
    """The one of `known` that a misspelt name was perhaps meant to be."""
    return next(iter(difflib.get_close_matches(wrong.lower(), known, 1, _NEAR)), None)


@dataclass(frozen=True)
class FieldError:
    """What is wrong with one argument. `field` is its dotted path, `message` says what would be right."""

    field: str
    message: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "field", cut(self.field, LONGEST_FIELD))
        object.__setattr__(self, "message", cut(self.message, LONGEST_FIELD_MESSAGE))

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class AgentServerError(Exception):
    """An expected failure with a message that is safe to show to a caller or a model."""

    code: str = "internal"
    retry_after: int | None = None
    longest_message: int = LONGEST_MESSAGE

    def __init__(self, message: str) -> None:
        message = cut(message, self.longest_message)
        super().__init__(message)
        self.message = message


class InvalidInput(AgentServerError):
    """The caller sent something wrong. `fields` names the first `MOST_FIELDS` wrong arguments."""

    code = "invalid_input"

    def __init__(self, message: str, fields: Sequence[FieldError] = ()) -> None:
        super().__init__(message)
        self.fields = tuple(fields[:MOST_FIELDS])


class ResultTooLarge(InvalidInput):
    """A call returned more than a result may have. Whoever calls can ask for less."""

    code = "result_too_large"


def name_fields(fields: Sequence[FieldError], wrong: int) -> str:
    """The first of `wrong` mistakes in one line and how many more there are."""
    named = "; ".join(map(str, fields[:MOST_FIELDS]))
    return f"{named}; and {wrong - MOST_FIELDS} more" if wrong > MOST_FIELDS else named


class Unauthorized(AgentServerError):
    """There is no valid credential."""

    code = "unauthorized"


class Forbidden(AgentServerError):
    """A valid caller that may not do this. `scope` is the one it lacks, if a scope would do."""

    code = "forbidden"

    def __init__(self, message: str, scope: str | None = None) -> None:
        super().__init__(message)
        self.scope = scope


class NotFound(AgentServerError):
    """Not there or not the caller's."""

    code = "not_found"


class Conflict(AgentServerError):
    """The state of the row does not allow this now."""

    code = "conflict"


class Busy(Conflict):
    """A conversation is still answering. `turn_id` is the turn that runs."""

    def __init__(self, message: str, turn_id: UUID) -> None:
        super().__init__(message)
        self.turn_id = turn_id


class TooMany(AgentServerError):
    """A limit is reached. Try again in `retry_after` seconds."""

    code = "too_many_requests"
    retry_after = 5


class TooLarge(AgentServerError):
    """The request's body is over the limit."""

    code = "too_large"


class Unavailable(AgentServerError):
    """Something the server needs is away. Try again in `retry_after` seconds."""

    code = "unavailable"
    retry_after = 2


class ModelFailed(AgentServerError):
    """The model refused, stalled or answered with something that cannot be used."""

    code = "model_failed"


class TimedOut(AgentServerError):
    """A tool took longer than it may."""

    code = "timed_out"


class OutsideFailed(AgentServerError):
    """Somebody else's server could not be reached, refused a call or answered with something that cannot be used."""

    code = "outside_failed"


class Internal(AgentServerError):
    """A bug of ours. The caller gets a reference, and the log line with that reference has the traceback."""

    def __init__(self, what: str, reference: str) -> None:
        # No detail of the bug: it could hold rows, paths or secrets.
        super().__init__(f"{cut(what, LONGEST_VALUE)} failed; this is our fault. Reference {reference}")
        self.reference = reference


@dataclass(frozen=True)
class Mistake:
    """One mistake in a workspace. `file` is relative to its root, `line` 1-based where known."""

    file: str
    line: int | None
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}" if self.line else f"{self.file}: {self.message}"


# No AgentServerError: it is an answer to the server and no failure that somebody is shown.
class DidNotHappen(Exception):
    """Raised by a tool's `reconcile` and never shown. The call it was asked about had no effect, and can have none."""


class WorkspaceInvalid(AgentServerError):
    """A workspace with all of its mistakes."""

    code = "workspace_invalid"
    longest_message = sys.maxsize  # its reader is whoever wrote all that it names

    def __init__(self, problems: Sequence[Mistake]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)
