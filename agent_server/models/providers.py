"""Which model answers, the client that talks to it, and what its failures mean.

OpenAI and every server that speaks its Chat Completions go through the SDK's own client; every other provider goes
through litellm, which is loaded when the first model needs it. Clients do not retry: the journal does, once, knowing
what has been shown to the user.
"""

import asyncio
import importlib
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import httpx
from agents.model_settings import ModelSettings
from agents.models.interface import Model
from agents.models.openai_chatcompletions import OpenAIChatCompletionsModel
from openai import APIConnectionError, APIStatusError, AsyncOpenAI, OpenAIError

from agent_server.errors import ModelFailed
from agent_server.models.breaker import Breaker, Clock
from agent_server.settings import Settings

OFFLINE = "offline"
_FIRST_OF_SERVER = "openai/"
_RETRYABLE = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})

# The model of a provider whose key is there and that the settings name no model for: its small, current one.
_DEFAULTS = {
    "openai_api_key": "openai/gpt-5.4-mini",
    "gemini_api_key": "gemini/gemini-flash-latest",
    "groq_api_key": "groq/openai/gpt-oss-120b",
    "anthropic_api_key": "anthropic/claude-haiku-5-5",
}


@dataclass(frozen=True)
class ModelChoice:
    """`name` as litellm spells it (`provider/model`), or `offline`."""

    name: str

    @property
    def offline(self) -> bool:
        return self.name == OFFLINE

    @property
    def title(self) -> str:
        """The name for people."""
        return "the first model of OPENAI_BASE_URL" if self.name == _FIRST_OF_SERVER else self.name


def choose_model(settings: Settings) -> ModelChoice:
    """The model named by the settings, else by the first key that is there, else `offline`."""
    if settings.model:
        return ModelChoice(_with_provider(settings.model, settings))
    if settings.openai_base_url:
        return ModelChoice(_FIRST_OF_SERVER)
    for key, name in _DEFAULTS.items():
        if getattr(settings, key) is not None:
            return ModelChoice(name)
    return ModelChoice(OFFLINE)


def _with_provider(name: str, settings: Settings) -> str:
    """A name without a known provider is a model of OpenAI's, or of the server at OPENAI_BASE_URL."""
    if name == OFFLINE or ("/" in name and not settings.openai_base_url):
        return name
    return name if name.startswith("openai/") else f"openai/{name}"


class Fault(Exception):
    """A model call that failed; `again` says whether asking once more may help, `after` how long the provider asks to
    wait (seconds). The message is safe to show."""

    def __init__(self, message: str, *, again: bool, after: float | None = None) -> None:
        super().__init__(message)
        self.message, self.again, self.after = message, again, after


def broke_off() -> Fault:
    return Fault("The model's answer broke off", again=True)


class Models:
    """The clients of this process, made when first needed, and a breaker for each model."""

    def __init__(self, settings: Settings, clock: Clock = time.monotonic) -> None:
        self._settings, self._clock = settings, clock
        self._openai: AsyncOpenAI | None = None
        self._first: str | None = None
        self._lock = asyncio.Lock()
        self._breakers: dict[str, Breaker] = {}

    def full_name(self, name: str) -> str:
        """`name`, as a prompt or a setting has it, with its provider."""
        return _with_provider(name, self._settings)

    def find_fallback(self, name: str) -> str | None:
        """The model that answers in place of `name` when it cannot."""
        fallback = self._settings.model_fallback and self.full_name(self._settings.model_fallback)
        return fallback if fallback != name else None

    def breaker(self, name: str) -> Breaker:
        return self._breakers.setdefault(name, Breaker(self._clock))

    async def get(self, name: str) -> Model:
        """The model `provider/model`. Raises ModelFailed when its provider cannot be used as configured."""
        if name.startswith("openai/"):
            model = name.removeprefix("openai/") or await self._first_of_server()
            return _OpenAIModel(model=model, openai_client=self._openai_client())
        return await asyncio.to_thread(self._litellm, name)

    def _openai_client(self) -> AsyncOpenAI:
        settings = self._settings
        if self._openai is None:
            if settings.openai_api_key is None and settings.openai_base_url is None:
                raise ModelFailed("The model needs OPENAI_API_KEY or OPENAI_BASE_URL; neither is set")
            key = settings.openai_api_key.get_secret_value() if settings.openai_api_key else "none"
            self._openai = AsyncOpenAI(
                api_key=key,
                base_url=settings.openai_base_url,
                max_retries=0,
                timeout=httpx.Timeout(settings.model_call_timeout, connect=settings.model_connect_timeout),
            )
        return self._openai

    async def _first_of_server(self) -> str:
        async with self._lock:
            if self._first is None:
                try:
                    models = await self._openai_client().models.list(timeout=self._settings.model_first_token_timeout)
                except OpenAIError as error:
                    raise ModelFailed(
                        "The server at OPENAI_BASE_URL does not list its models; name one in AGENT_SERVER_MODEL"
                    ) from error
                if not models.data:
                    raise ModelFailed("The server at OPENAI_BASE_URL has no model; name one in AGENT_SERVER_MODEL")
                self._first = models.data[0].id
            return self._first

    def _litellm(self, name: str) -> Model:
        # litellm fetches its price list from the network at import unless it is told not to.
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        litellm: Any = importlib.import_module("litellm")
        litellm.telemetry = False
        litellm.suppress_debug_info = True
        litellm_model = importlib.import_module("agents.extensions.models.litellm_model").LitellmModel
        whole = type("WholeLitellmModel", (_AskedOnce, litellm_model), {})
        provider = name.partition("/")[0]
        key = getattr(self._settings, f"{provider}_api_key", None)
        model: Model = whole(model=name, api_key=key.get_secret_value() if key else None)
        return model

    async def close(self) -> None:
        if self._openai is not None:
            await self._openai.close()


class _Whole:
    """Mixed into a model of the SDK's: a stream that ends without saying why is no answer, though the SDK takes it for
    one."""

    async def _fetch_response(self, *args: Any, **kwargs: Any) -> Any:
        response, stream = await super()._fetch_response(*args, **kwargs)  # type: ignore[misc]  # overloads
        return response, _to_its_finish(stream)


class _AskedOnce(_Whole):
    """The same for litellm's model, some of whose providers retry unless the call says not to."""

    async def _fetch_response(
        self, instructions: Any, input: Any, settings: ModelSettings, *args: Any, **kwargs: Any
    ) -> Any:
        once = replace(settings, extra_args={**(settings.extra_args or {}), "num_retries": 0, "max_retries": 0})
        return await super()._fetch_response(instructions, input, once, *args, **kwargs)


class _OpenAIModel(_Whole, OpenAIChatCompletionsModel):
    pass


async def _to_its_finish(stream: Any) -> AsyncIterator[Any]:
    reason = None
    try:
        async for chunk in stream:
            reason = next((choice.finish_reason for choice in chunk.choices or () if choice.finish_reason), reason)
            yield chunk
    finally:
        await (stream.aclose if hasattr(stream, "aclose") else stream.close)()
    if hasattr(stream, "received_finish_reason"):  # litellm, which makes a reason up where none came
        reason = stream.received_finish_reason or stream.intermittent_finish_reason
    if reason is None:
        raise broke_off()


def fault_of(error: Exception) -> Fault:
    """A provider's failure in words that are safe to show: its own text may hold keys, prompts and addresses."""
    if isinstance(
        error, APIConnectionError | httpx.ConnectError | httpx.ConnectTimeout
    ):  # litellm's have a status, too
        return Fault("The model's provider cannot be reached", again=True)
    if isinstance(error, httpx.HTTPError | OSError):
        return broke_off()
    status = getattr(error, "status_code", None)
    if isinstance(error, APIStatusError) or isinstance(status, int):
        headers = getattr(getattr(error, "response", None), "headers", None) or {}
        after = headers.get("retry-after", "")
        seconds = float(after) if after.replace(".", "", 1).isdecimal() else None
        reason = {
            401: "refused the key",
            403: "refused the key",
            404: "does not know the model",
            429: "is over its limit",
        }
        what = reason.get(int(status or 0), f"answered with status {status}")
        return Fault(f"The model's provider {what}", again=status in _RETRYABLE, after=seconds)
    return Fault("The model's answer could not be read", again=True)
