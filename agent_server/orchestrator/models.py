"""Which model answers, and the client that talks to it.

OpenAI and every server that speaks its Chat Completions go through the SDK's own client; every other provider goes
through litellm, which is loaded when the first model needs it. Clients do not retry: the journal does, once, knowing
what has been shown to the user.
"""

import asyncio
import importlib
import os
from dataclasses import dataclass
from typing import Any

import httpx
from agents.models.interface import Model
from agents.models.openai_chatcompletions import OpenAIChatCompletionsModel
from openai import AsyncOpenAI, OpenAIError

from agent_server.errors import ModelFailed
from agent_server.settings import Settings

OFFLINE = "offline"
_FIRST_OF_SERVER = "openai/"

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


class Models:
    """The clients of this process, made when first needed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._openai: AsyncOpenAI | None = None
        self._first: str | None = None
        self._lock = asyncio.Lock()

    async def get(self, name: str) -> Model:
        """The model `provider/model`. Raises ModelFailed when its provider cannot be used as configured."""
        name = _with_provider(name, self._settings)
        if name.startswith("openai/"):
            model = name.removeprefix("openai/") or await self._first_of_server()
            return OpenAIChatCompletionsModel(model=model, openai_client=self._openai_client())
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
                    models = await self._openai_client().models.list()
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
        provider = name.partition("/")[0]
        key = getattr(self._settings, f"{provider}_api_key", None)
        model: Model = litellm_model(model=name, api_key=key.get_secret_value() if key else None)
        return model

    async def close(self) -> None:
        if self._openai is not None:
            await self._openai.close()
