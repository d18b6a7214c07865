"""The clients that talk to language models.

OpenAI and every server that speaks its Chat Completions go through the SDK's own client; every other provider goes
through litellm, which is loaded when the first model needs it. Clients do not retry: `answer` does.
"""

import asyncio
import importlib
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import replace
from typing import Any, Literal, cast

from agents.items import TResponseStreamEvent
from agents.model_settings import ModelSettings
from agents.models.interface import Model, ModelTracing
from agents.models.openai_chatcompletions import OpenAIChatCompletionsModel
from agents.models.reasoning_content_replay import ReasoningContentReplayContext
from openai import APIConnectionError, AsyncOpenAI, DefaultAsyncHttpxClient, OpenAIError, Timeout
from openai._streaming import (
    ServerSentEvent,
    SSEDecoder,
)  # the client asks itself for one, and has no public name for it
from openai.types.responses import Response
from openai.types.responses.response import IncompleteDetails
from openai.types.shared import Reasoning

from agent_server.errors import ModelFailed
from agent_server.models.breaker import Breaker, Clock
from agent_server.models.choice import full_name
from agent_server.models.chunks import repair
from agent_server.models.faults import Fault, broken_answer
from agent_server.models.thoughts import Thoughts
from agent_server.models.windows import find_window
from agent_server.settings import Settings


class Models:
    """The clients of this process and a breaker for each model. A client is made when it is first needed.

    Requests to OpenAI's Chat Completions go through `transport` in place of the network, if one is given. It is a
    transport of the HTTP library that the openai package is built on.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock = time.monotonic,
        transport: Any = None,
    ) -> None:
        self.settings, self._clock, self._transport = settings, clock, transport
        self._openai: AsyncOpenAI | None = None
        self._first: str | None = None
        self._lock = asyncio.Lock()
        self._breakers: dict[str, Breaker] = {}
        self._windows: dict[str, int] = {}

    def full_name(self, name: str) -> str:
        """A model's name of a prompt or a setting with its provider."""
        return full_name(name, self.settings)

    def find_fallback(self, name: str) -> str | None:
        """The model that answers in place of `name` when it cannot."""
        fallback = self.settings.model_fallback and self.full_name(self.settings.model_fallback)
        return fallback if fallback != name else None

    def breaker(self, name: str) -> Breaker:
        """The breaker of a model."""
        return self._breakers.setdefault(name, Breaker(self._clock))

    async def find_window(self, name: str) -> int:
        """How many tokens the model `provider/model` takes at once."""
        if name not in self._windows:
            # The first time a table is read.
            self._windows[name] = await asyncio.to_thread(find_window, name, self.settings)
        return self._windows[name]

    async def get(self, name: str) -> Model:
        """The model `provider/model`. Raises ModelFailed when its provider cannot be used as configured."""
        if name.startswith("openai/"):
            model = name.removeprefix("openai/") or await self.find_served()
            return _OpenAIModel(
                model=model,
                openai_client=self._openai_client(),
                should_replay_reasoning_content=_returns_thoughts,
            )
        # Loading litellm takes seconds.
        return await asyncio.to_thread(self._litellm, name)

    def _openai_client(self) -> AsyncOpenAI:
        settings = self.settings
        if self._openai is None:
            if settings.openai_api_key is None and settings.openai_base_url is None:
                raise ModelFailed("The model needs OPENAI_API_KEY or OPENAI_BASE_URL; neither is set")
            # The client asks for a key also where the server needs none.
            key = settings.openai_api_key.get_secret_value() if settings.openai_api_key else "none"
            self._openai = _Client(
                api_key=key,
                base_url=settings.openai_base_url,
                # `answer` retries, because it knows what has been shown to the user.
                max_retries=0,
                timeout=Timeout(settings.model_call_timeout, connect=settings.model_connect_timeout),
                http_client=DefaultAsyncHttpxClient(transport=self._transport) if self._transport else None,
            )
        return self._openai

    async def find_served(self) -> str:
        """The name of the first model that the server at OPENAI_BASE_URL has. It is asked once.

        Raises ModelFailed where the server cannot be asked or has none.
        """
        async with self._lock:
            if self._first is None:
                try:
                    models = await self._openai_client().models.list(timeout=self.settings.model_first_token_timeout)
                except OpenAIError as error:
                    raise ModelFailed(
                        "The server at OPENAI_BASE_URL does not list its models; look whether it runs, or name a model in AGENT_SERVER_MODEL"
                    ) from error
                if not models.data:
                    raise ModelFailed(
                        "The server at OPENAI_BASE_URL has no model; give it one, or name one in AGENT_SERVER_MODEL"
                    )
                self._first = models.data[0].id
            return self._first

    def _litellm(self, name: str) -> Model:
        # litellm fetches its price list from the network at import unless it is told not to.
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        litellm: Any = importlib.import_module("litellm")
        litellm.telemetry = False
        # Or it prints advice for developers with each error.
        litellm.suppress_debug_info = True
        litellm_model = importlib.import_module("agents.extensions.models.litellm_model").LitellmModel
        # Made here, because its base is known only when litellm is loaded.
        whole = type("WholeLitellmModel", (_WholeOnce, litellm_model), {})
        provider, _, model_name = name.partition("/")
        if provider == "ollama":  # which litellm asks for text only, with the tools pasted into it
            name = f"ollama_chat/{model_name}"
        if name.startswith("ollama_chat/"):
            # litellm asks Ollama for the price of a model it does not know, and holds up the event loop meanwhile.
            litellm.model_cost.setdefault(name, {"litellm_provider": "ollama_chat", "mode": "chat"} | _FREE)
        key = getattr(self.settings, f"{provider}_api_key", None)
        model: Any = whole(model=name, api_key=key.get_secret_value() if key else None)
        model.context_window = find_window(name, self.settings)
        return cast(Model, model)

    async def close(self) -> None:
        if self._openai is not None:
            await self._openai.close()


def stream_plainly(
    model: Model, instructions: str | None, asked: str | list[Any]
) -> AsyncIterator[TResponseStreamEvent]:
    """The events of a model's answer to a question that has no tools, no handoffs and no settings of its own."""
    return model.stream_response(
        instructions,
        asked,
        ModelSettings(),
        [],
        None,
        [],
        ModelTracing.DISABLED,
        previous_response_id=None,
        conversation_id=None,
        prompt=None,
    )


class _Client(AsyncOpenAI):
    def _make_sse_decoder(self) -> SSEDecoder:
        return _Decoder()


class _Decoder(SSEDecoder):
    """Reads the event streams of servers that begin with a byte order mark, or send events of nothing to stay awake."""

    def decode(self, line: str) -> ServerSentEvent | None:
        event = super().decode(line.removeprefix("\ufeff"))
        return event if event is not None and event.data else None


_FREE = {"input_cost_per_token": 0.0, "output_cost_per_token": 0.0}


class _Whole:
    """Makes a model of the SDK's put a stream right, and refuse one that ends without saying why. The SDK takes it for an
    answer."""

    async def _fetch_response(self, *args: Any, **kwargs: Any) -> Any:
        instructions, input, settings, *more = args
        # Servers and litellm's providers count tokens only when they are asked to.
        counted = replace(settings, include_usage=True)
        response, stream = await super()._fetch_response(instructions, input, counted, *more, **kwargs)  # type: ignore[misc]  # overloads
        return response, _refuse_unfinished(stream, response)


class _WholeOnce(_Whole):
    """The same for litellm's model. Some of its providers retry unless the call says not to."""

    context_window: int
    """Tokens that Ollama is to make room for. It would make little, and cut what does not fit without a word."""

    async def _fetch_response(
        self, instructions: Any, input: Any, settings: ModelSettings, *args: Any, **kwargs: Any
    ) -> Any:
        more: dict[str, Any] = {"num_retries": 0, "max_retries": 0}
        if str(getattr(self, "model", "")).startswith("ollama_chat/"):
            more["num_ctx"] = self.context_window
        # With an effort the SDK gives Anthropic's models back what they thought; they refuse a tool's result without it.
        once = replace(settings, extra_args={**(settings.extra_args or {}), **more}, reasoning=Reasoning(effort="low"))
        return await super()._fetch_response(instructions, input, once, *args, **kwargs)

    def _get_reasoning_effort(self, _: ModelSettings) -> None:
        """None, because how much a model thinks is the provider's to say."""
        return None


class _OpenAIModel(_Whole, OpenAIChatCompletionsModel):
    pass


def _returns_thoughts(context: ReasoningContentReplayContext) -> bool:
    """Whether a server is given back what its model thought. Those of DeepSeek and Kimi refuse a tool's result without
    it, and a server that sends the field reads it, too."""
    return context.model == context.reasoning.origin_model


# What Chat Completions calls the reasons why an answer is not whole, as the SDK's responses name them.
_INCOMPLETE: Mapping[str, Literal["max_output_tokens", "content_filter"]] = {
    "length": "max_output_tokens",
    "content_filter": "content_filter",
}


THOUGHT_IN_TEXT = {"thought": "in the text"}
"""Metadata of a response whose thoughts were parted from its text. No server is given those back."""


async def _refuse_unfinished(stream: Any, response: Response) -> AsyncGenerator[Any]:
    """The chunks of a stream, put right. Raises Fault where it ends without a reason, and notes in `response` why the
    answer is not whole."""
    reason, spoke, tags = None, False, Thoughts()
    try:
        async for chunk in repair(stream, tags):
            for choice in chunk.choices or ():
                reason = choice.finish_reason or reason
                spoke = spoke or _says_something(choice.delta)
            yield chunk
    except OpenAIError as error:
        # openai 3 says of a stream that is cut what it says of a server that cannot be reached; litellm wraps that
        if isinstance(getattr(error, "original_exception", error), APIConnectionError):
            raise broken_answer() from error
        raise
    finally:
        await (stream.aclose if hasattr(stream, "aclose") else stream.close)()
    # litellm makes a reason up where none came, and keeps what really came beside it
    if hasattr(stream, "received_finish_reason"):
        reason = stream.received_finish_reason or stream.intermittent_finish_reason
    if reason is None:
        raise broken_answer()
    if reason == "length" and not spoke:
        raise Fault("The model reached its longest answer before it said anything", again=False)
    # The SDK copies this response when the stream has ended, and knows nothing of these itself.
    if reason in _INCOMPLETE:
        response.incomplete_details = IncompleteDetails(reason=_INCOMPLETE[reason])
    if tags.found:
        response.metadata = THOUGHT_IN_TEXT


def _says_something(delta: Any) -> bool:
    return any(getattr(delta, name, None) for name in ("content", "tool_calls", "refusal"))
