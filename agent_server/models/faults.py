"""What the failures of a model call mean.

A fault's message is safe to show. The provider's own words are not: they may hold keys, prompts and addresses. They are
kept masked in `said`, for the log and for developers.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import httpx
import httpx2
from agents.exceptions import AgentsException
from openai import APIConnectionError, APIStatusError, OpenAIError

from agent_server.errors import cut
from agent_server.log import mask
from agent_server.models.pauses import read_pause

Kind = Literal["other", "busy", "declined", "too_long", "no_shape"]

# OpenAI's own client retries 408, 409, 429 and 5xx. By 529 Anthropic says that it is overloaded.
_RETRYABLE = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_REASONS = {
    401: "refused the key",
    402: "asks for payment",
    403: "refused the key",
    404: "does not know the model",
    429: "is over its limit",
    529: "is overloaded",
}

# Each provider has words of its own for these, in a code or in a sentence. All are in lower case.
_TOO_LONG = (
    "context_length_exceeded",  # OpenAI, Azure, Groq, DeepSeek, OpenRouter
    "exceed_context_size",  # llama.cpp
    "maximum context length",  # OpenAI, vLLM, Mistral, Together
    "context size",  # llama.cpp
    "context window",  # litellm, Ollama
    "context length",  # LM Studio
    "prompt is too long",  # Anthropic
    "prompt too long",  # Ollama
    "maximum prompt length",  # xAI
    "input is too long",  # Bedrock
    "input token count",  # Gemini
    "input length and `max_tokens` exceed",  # Anthropic
    "too many tokens",  # Cohere
    "reduce the length",  # Groq
    "`inputs` tokens",  # Text Generation Inference
)
_DECLINED = (
    "content_filter",  # OpenAI, Azure
    "responsibleaipolicyviolation",  # Azure
    "content management policy",  # Azure
    "content_policy",  # OpenAI
    "content policy",
    "usage policies",  # OpenAI
    "data_inspection_failed",  # DashScope
    "requires moderation",  # OpenRouter
    "prohibited_content",  # Gemini
    "blockreason",  # Gemini
    "guardrail_intervened",  # Bedrock
    "content exists risk",  # DeepSeek
)
_NO_SHAPE = (
    "response_format",  # OpenAI, vLLM, llama.cpp, LM Studio, DeepSeek, litellm
    "json_schema",
    "response_schema",  # Gemini
    "output_format",  # Anthropic
    "structured output",  # Groq, OpenRouter
    "json mode",  # Groq, Mistral
)
"""Said of a request that asks for an answer of a shape, by a provider or model that takes none, or not this one."""
_NO_TOOLS = (
    "not support tool",  # Ollama, OpenRouter
    "support tool use",  # OpenRouter: "no endpoints found that support tool use"
    "not support function",
    "tool use is not supported",
    "tool calling is not supported",
    "enable-auto-tool-choice",  # vLLM
    "tools param requires",  # llama.cpp
)
_NO_CREDIT = ("insufficient_quota", "credit balance", "insufficient balance", "insufficient credits", "exceeded your current quota, please check your plan")  # fmt: skip
_OVERLOADED = ("overloaded",)
_BAD_CALL = (
    "tool_use_failed",
)  # Groq: the model wrote a call that cannot be read, and mostly writes the next one well

# litellm and openai 2 are built on httpx, openai 3 on httpx2. Not every version of openai 3 wraps what breaks a stream.
_HTTP_ERRORS = (httpx.HTTPError, httpx2.HTTPError)
_MOST_SAID = 500


class Fault(Exception):
    """A model call that failed.

    `again` says whether asking once more may help. `after` is how long the provider asks to wait, in seconds. `said` is
    what the provider said, masked. A `busy` provider works and has too much to do; one that `declined` found the content
    unfit; for `too_long` the request did not fit into the model's window.
    """

    def __init__(
        self, message: str, *, again: bool, after: float | None = None, kind: Kind = "other", said: str = ""
    ) -> None:
        super().__init__(message)
        self.message, self.again, self.after, self.kind, self.said = message, again, after, kind, said


class ProviderError(Exception):
    """What a provider said in place of an answer, or in the middle of one.

    `body` is what it said, as JSON where it was JSON. `headers` are by their names in lower case.
    """

    def __init__(
        self, message: str, body: Any, *, status: int | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.message, self.body, self.status_code, self.headers = message, body, status, headers or {}


def unreachable() -> Fault:
    """The fault of a provider that no answer came from."""
    return Fault("The model's provider cannot be reached", again=True)


def broken_answer() -> Fault:
    """The fault of an answer that ended before it was complete."""
    return Fault("The model's answer broke off", again=True)


@contextmanager
def translate_faults() -> Iterator[None]:
    """Raise what a provider's client raises in this block as a Fault."""
    try:
        yield
    # ValueError: a body that is no JSON, or has another shape than the client expects. RecursionError: JSON that is
    # nested more deeply than Python reads.
    except (
        ProviderError,
        OpenAIError,
        AgentsException,
        *_HTTP_ERRORS,
        ValueError,
        RecursionError,
        OSError,
    ) as error:
        raise fault_of(error) from error
    except Exception as error:
        # litellm's providers raise types of their own that it does not export
        if type(error).__module__.partition(".")[0] != "litellm":
            raise
        raise fault_of(error) from error


def fault_of(error: Exception) -> Fault:
    """The fault that a provider's failure stands for."""
    status = getattr(error, "status_code", None)
    status = status if isinstance(status, int) else None
    said = _read_words(error)
    # litellm says of what breaks a stream that the provider cannot be reached, and of some errors in it as well.
    if (named := _name_reason(said, status)) is not None:
        return named
    # litellm's connection errors have a status as well, so they are asked for first
    if isinstance(error, APIConnectionError | httpx.ConnectError | httpx.ConnectTimeout):
        return unreachable()
    if isinstance(error, (*_HTTP_ERRORS, OSError)):
        return broken_answer()
    masked = _mask(said, status)
    if isinstance(error, APIStatusError) or status is not None:
        what = _REASONS.get(status or 0, f"answered with status {status}")
        return Fault(
            f"The model's provider {what}",
            again=status in _RETRYABLE,
            after=read_pause(_headers_of(error), said),
            kind="busy" if status == 429 else "other",
            said=masked,
        )
    return Fault("The model's answer could not be read", again=True, said=masked)


def _name_reason(said: str, status: int | None) -> Fault | None:
    """The fault of a provider that said in words of its own what is the matter."""
    words, masked = said.lower(), _mask(said, status)

    def says(some: tuple[str, ...]) -> bool:
        return any(word in words for word in some)

    # Of a key that is wrong, or of too many requests, nothing else is believed.
    if status == 401:
        return None
    if says(_NO_CREDIT):
        return Fault("The account at the model's provider has no credit left", again=False, said=masked)
    # More at once than the account may send in a minute, which no wait helps (Groq's 413, 429 through litellm).
    if status == 413 or "request too large" in words:
        return _too_long(masked)
    if status == 429:
        return None
    # Before tools, which some of them name as what it does not go together with.
    if says(_NO_SHAPE):
        message = "The model's provider does not take the shape that answers should have"
        return Fault(message, again=False, kind="no_shape", said=masked)
    if says(_NO_TOOLS):
        message = "The model cannot call tools; choose a model that can, or an agent without tools"
        return Fault(message, again=False, said=masked)
    if says(_DECLINED):
        return Fault("The model declined to answer", again=False, kind="declined", said=masked)
    if says(_TOO_LONG):
        return _too_long(masked)
    if status == 529 or says(_OVERLOADED):
        return Fault("The model's provider is overloaded", again=True, kind="busy", said=masked)
    if says(_BAD_CALL):
        return Fault("The model wrote a call of a tool that cannot be read", again=True, said=masked)
    return None


def _too_long(said: str) -> Fault:
    return Fault("The conversation is too long for the model", again=False, kind="too_long", said=said)


def _read_words(error: Exception) -> str:
    """All that the provider said: its code, its type and its message."""
    body = getattr(error, "body", None)
    if isinstance(body, Mapping):
        inner = body.get("error")
        body = inner if isinstance(inner, Mapping) else body
        more = {key: value for key, value in body.items() if key not in ("message", "code", "type")}
        parts = [body.get("code"), body.get("type"), body.get("message"), json.dumps(more, default=str) if more else ""]
    else:
        # litellm has the body in its message; what came in a stream has a code beside it.
        parts = [getattr(error, "code", None), getattr(error, "message", None) or str(error)]
    return " ".join(dict.fromkeys(str(part) for part in parts if part))


def _mask(said: str, status: int | None) -> str:
    return mask(cut(" ".join([*([str(status)] if status else []), *said.split()]), _MOST_SAID))


def _headers_of(error: Exception) -> Mapping[str, Any]:
    # litellm keeps what came in the first, and a response that it made up has none.
    for headers in (
        getattr(error, "litellm_response_headers", None),
        getattr(getattr(error, "response", None), "headers", None),
        getattr(error, "headers", None),
    ):
        if headers:
            return {str(name).lower(): value for name, value in dict(headers).items()}
    return {}
