"""The clients that talk to language models.

OpenAI and every server that speaks its Chat Completions go through the lean client, or where the settings say so through
the SDK's own; every other provider goes through litellm, which is loaded when the first model needs it. Clients do not
retry: `answer` does.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from agents.agent_output import AgentOutputSchemaBase
from agents.handoffs import Handoff
from agents.items import TResponseStreamEvent
from agents.model_settings import ModelSettings
from agents.models.interface import Model, ModelTracing
from agents.tool import Tool
from openai import AsyncOpenAI

from agent_server.errors import ModelFailed
from agent_server.models.breaker import Breaker, Clock
from agent_server.models.choice import full_name
from agent_server.models.faults import Fault, translate_faults
from agent_server.models.lean.model import Api, LeanModel
from agent_server.models.lean.request import ToolSets, write_body
from agent_server.models.lean.wire import Network, Wire
from agent_server.models.rehearsal import leave_out_traces, rehearse
from agent_server.models.sdk import create_client, litellm_model, openai_model
from agent_server.models.windows import find_window
from agent_server.settings import Settings


class Models:
    """The clients of this process and a breaker for each model. A client is made when it is first needed.

    Requests for Chat Completions go through `transport` in place of the network, if one is given: a `Wire`, which for the
    SDK's client is also a transport of the HTTP library that the openai package is built on.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock = time.monotonic,
        transport: Any = None,
    ) -> None:
        self.settings, self._clock, self._transport = settings, clock, transport
        self.tool_sets = ToolSets()
        self._api: Api | None = None
        self._openai: AsyncOpenAI | None = None
        self._first: str | None = None
        self._lock = asyncio.Lock()
        self._breakers: dict[str, Breaker] = {}
        self._windows: dict[str, int] = {}
        leave_out_traces()

    async def prepare(self, is_late: Callable[[], bool]) -> None:
        """Make what the first request would have to wait for, until it `is_late`: the request is there. Nothing is sent."""
        if is_late():
            return
        if self.settings.openai_base_url is not None or self.settings.openai_api_key is not None:
            wire = self._get_api().wire
            if isinstance(wire, Network):
                await wire.prepare()
        await rehearse(is_late)

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

    async def get(self, name: str, sent: Callable[[bytes], None] | None = None) -> Model:
        """The model `provider/model`. The lean client tells `sent` the body of each request.

        Raises ModelFailed when its provider cannot be used as configured."""
        if name.startswith("openai/"):
            model = name.removeprefix("openai/") or await self.find_served()
            if self.settings.model_client == "lean":
                return LeanModel(model, self._get_api(), sent)
            return openai_model(model, self._get_openai())
        # Loading litellm takes seconds.
        return await asyncio.to_thread(litellm_model, name, self.settings)

    def write_empty(
        self,
        model: Model,
        name: str,
        settings: ModelSettings,
        tools: list[Tool],
        schema: AgentOutputSchemaBase | None,
        handoffs: list[Handoff[Any, Any]],
    ) -> bytes:
        """The body of a request for Chat Completions without instructions and messages. Where another client than the
        lean one sends it, it is as that one would write it."""
        if isinstance(model, LeanModel):
            return model.write(None, [], settings, tools, schema, handoffs)
        written = self.tool_sets.write(tools, handoffs)
        called = str(getattr(model, "model", name))
        return write_body(called, "", None, [], settings, written, schema, official=False)

    def _get_api(self) -> Api:
        if self._api is None:
            wire: Wire = self._transport or Network(self.settings)
            self._api = Api(wire, self.settings.openai_base_url, self._find_key(), self.tool_sets)
        return self._api

    def _get_openai(self) -> AsyncOpenAI:
        if self._openai is None:
            self._openai = create_client(self.settings, self._find_key(), self._transport)
        return self._openai

    def _find_key(self) -> str:
        settings = self.settings
        if settings.openai_api_key is None and settings.openai_base_url is None:
            raise ModelFailed("The model needs OPENAI_API_KEY or OPENAI_BASE_URL; neither is set")
        # A client sends a key also where the server needs none.
        return settings.openai_api_key.get_secret_value() if settings.openai_api_key else "none"

    async def find_served(self) -> str:
        """The name of the first model that the server at OPENAI_BASE_URL has. It is asked once.

        Raises ModelFailed where the server cannot be asked or has none.
        """
        async with self._lock:
            if self._first is None:
                try:
                    with translate_faults():
                        names = await self._get_api().list_models(self.settings.model_first_token_timeout)
                except Fault as fault:
                    raise ModelFailed(
                        "The server at OPENAI_BASE_URL does not list its models; look whether it runs, or name a model in AGENT_SERVER_MODEL"
                    ) from fault
                if not names:
                    raise ModelFailed(
                        "The server at OPENAI_BASE_URL has no model; give it one, or name one in AGENT_SERVER_MODEL"
                    )
                self._first = names[0]
            return self._first

    async def close(self) -> None:
        """Close the connections to OpenAI-compatible servers. The next request opens new ones."""
        if self._api is not None:
            await self._api.wire.close()
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
