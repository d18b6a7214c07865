"""Chat Completions through the SDK's own clients: that of the openai package, and litellm.

Both are given what their streams lack (`chunks`, `endings`). Nothing here is made on the way of the lean client.
"""

import importlib
import os
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any, cast

from agents.model_settings import ModelSettings
from agents.models.interface import Model
from agents.models.openai_chatcompletions import OpenAIChatCompletionsModel
from openai import APIConnectionError, AsyncOpenAI, DefaultAsyncHttpxClient, OpenAIError, Timeout
from openai._streaming import (
    ServerSentEvent,
    SSEDecoder,
)  # the client asks itself for one, and has no public name for it
from openai.types.responses import Response
from openai.types.shared import Reasoning

from agent_server.models.chunks import repair
from agent_server.models.endings import note_end
from agent_server.models.faults import broken_answer
from agent_server.models.lean.request import returns_thoughts
from agent_server.models.thoughts import Thoughts
from agent_server.models.windows import find_window
from agent_server.settings import Settings


def create_client(settings: Settings, key: str, transport: Any) -> AsyncOpenAI:
    """The openai package's client. Its requests go through `transport` in place of the network, if one is given."""
    return _Client(
        api_key=key,
        base_url=settings.openai_base_url,
        # `answer` retries, because it knows what has been shown to the user.
        max_retries=0,
        timeout=Timeout(settings.model_call_timeout, connect=settings.model_connect_timeout),
        http_client=DefaultAsyncHttpxClient(transport=transport) if transport else None,
    )


def openai_model(name: str, client: AsyncOpenAI) -> Model:
    """A model of OpenAI's, or of a server that speaks its Chat Completions."""
    return _OpenAIModel(model=name, openai_client=client, should_replay_reasoning_content=returns_thoughts)


def litellm_model(name: str, settings: Settings) -> Model:
    """A model `provider/name` of any other provider. Loading litellm takes seconds."""
    # litellm fetches its price list from the network at import unless it is told not to.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    litellm: Any = importlib.import_module("litellm")
    litellm.telemetry = False
    # Or it prints advice for developers with each error.
    litellm.suppress_debug_info = True
    its_model = importlib.import_module("agents.extensions.models.litellm_model").LitellmModel
    # Made here, because its base is known only when litellm is loaded.
    whole = type("WholeLitellmModel", (_WholeOnce, its_model), {})
    provider, _, model_name = name.partition("/")
    if provider == "ollama":  # which litellm asks for text only, with the tools pasted into it
        name = f"ollama_chat/{model_name}"
    if name.startswith("ollama_chat/"):
        # litellm asks Ollama for the price of a model it does not know, and holds up the event loop meanwhile.
        litellm.model_cost.setdefault(name, {"litellm_provider": "ollama_chat", "mode": "chat"} | _FREE)
    key = getattr(settings, f"{provider}_api_key", None)
    model: Any = whole(model=name, api_key=key.get_secret_value() if key else None)
    model.context_window = find_window(name, settings)
    return cast(Model, model)


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
        self,
        instructions: Any,
        input: Any,
        settings: ModelSettings,
        tools: Any,
        output_schema: Any,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        if str(getattr(self, "model", "")).startswith("groq/"):
            # litellm makes a forced tool of it, without a stream, which goes together with no other tool: the model has
            # the shape from its instructions.
            output_schema = None
        more: dict[str, Any] = {"num_retries": 0, "max_retries": 0}
        if str(getattr(self, "model", "")).startswith("ollama_chat/"):
            more["num_ctx"] = self.context_window
        # With an effort the SDK gives Anthropic's models back what they thought; they refuse a tool's result without it.
        once = replace(settings, extra_args={**(settings.extra_args or {}), **more}, reasoning=Reasoning(effort="low"))
        return await super()._fetch_response(instructions, input, once, tools, output_schema, *args, **kwargs)

    def _get_reasoning_effort(self, _: ModelSettings) -> None:
        """None, because how much a model thinks is the provider's to say."""
        return None


class _OpenAIModel(_Whole, OpenAIChatCompletionsModel):
    pass


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
    # The SDK copies this response when the stream has ended, and knows nothing of these itself.
    note_end(response, reason, spoke=spoke, tags=tags)


def _says_something(delta: Any) -> bool:
    return any(getattr(delta, name, None) for name in ("content", "tool_calls", "refusal"))
