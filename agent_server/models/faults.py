"""What the failures of a model call mean.

A fault's message is safe to show. The provider's own words are not: they may hold keys, prompts and addresses.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import httpx2
from agents.exceptions import AgentsException
from openai import APIConnectionError, APIStatusError, OpenAIError

# OpenAI's own client retries 408, 409, 429 and 5xx. By 529 Anthropic says that it is overloaded.
_RETRYABLE = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_REASONS = {
    401: "refused the key",
    403: "refused the key",
    404: "does not know the model",
    429: "is over its limit",
}

# litellm and openai 2 are built on httpx, openai 3 on httpx2. Not every version of openai 3 wraps what breaks a stream.
_HTTP_ERRORS = (httpx.HTTPError, httpx2.HTTPError)


class Fault(Exception):
    """A model call that failed.

    `again` says whether asking once more may help. `after` is how long the provider asks to wait, in seconds.
    """

    def __init__(self, message: str, *, again: bool, after: float | None = None) -> None:
        super().__init__(message)
        self.message, self.again, self.after = message, again, after


def broken_answer() -> Fault:
    """The fault of an answer that ended before it was complete."""
    return Fault("The model's answer broke off", again=True)


@contextmanager
def translate_faults() -> Iterator[None]:
    """Raise what a provider's client raises in this block as a Fault."""
    try:
        yield
    # ValueError: a body that is no JSON, or has another shape than the client expects.
    except (OpenAIError, AgentsException, *_HTTP_ERRORS, ValueError, OSError) as error:
        raise fault_of(error) from error
    except Exception as error:
        # litellm's providers raise types of their own that it does not export
        if type(error).__module__.partition(".")[0] != "litellm":
            raise
        raise fault_of(error) from error


def fault_of(error: Exception) -> Fault:
    """The fault that a provider's failure stands for."""
    # litellm's connection errors have a status as well, so they are asked for first
    if isinstance(error, APIConnectionError | httpx.ConnectError | httpx.ConnectTimeout):
        return Fault("The model's provider cannot be reached", again=True)
    if isinstance(error, (*_HTTP_ERRORS, OSError)):
        return broken_answer()
    status = getattr(error, "status_code", None)
    if isinstance(error, APIStatusError) or isinstance(status, int):
        what = _REASONS.get(int(status or 0), f"answered with status {status}")
        return Fault(f"The model's provider {what}", again=status in _RETRYABLE, after=_retry_after(error))
    return Fault("The model's answer could not be read", again=True)


def _retry_after(error: Exception) -> float | None:
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    after = headers.get("retry-after", "")
    return float(after) if after.replace(".", "", 1).isdecimal() else None
