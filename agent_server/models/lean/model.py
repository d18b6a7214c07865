"""The lean client's model."""

import asyncio
import json
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlencode

from agents.agent_output import AgentOutputSchemaBase
from agents.handoffs import Handoff
from agents.items import ModelResponse, TResponseInputItem, TResponseStreamEvent
from agents.model_settings import ModelSettings
from agents.models.chatcmpl_helpers import HEADERS
from agents.models.fake_id import FAKE_RESPONSES_ID
from agents.models.interface import Model, ModelTracing
from agents.models.openai_client_utils import is_official_openai_base_url
from agents.models.openai_responses import Converter as ResponsesConverter
from agents.tool import Tool
from openai.types.responses import Response, ResponseCompletedEvent

from agent_server.errors import ModelFailed
from agent_server.models.faults import ProviderError
from agent_server.models.lean.reply import Reply
from agent_server.models.lean.request import ToolSets, write_body
from agent_server.models.lean.sse import EventStream
from agent_server.models.lean.wire import Incoming, Wire

OPENAI = "https://api.openai.com/v1"
_LONGEST_ERROR = 1_000_000
"""How much of an error is read, bytes. Pages of errors are far shorter."""
_DRAIN_SECONDS = 0.25
"""How long the end of a response is waited for that said it is done. A connection is used again only after that."""


class Api:
    """The Chat Completions of one server."""

    def __init__(self, wire: Wire, base_url: str | None, key: str, tool_sets: ToolSets) -> None:
        self.wire, self.base_url, self.tool_sets = wire, (base_url or OPENAI).rstrip("/"), tool_sets
        self.official = is_official_openai_base_url(self.base_url)
        self._headers = {
            **HEADERS,
            "Authorization": f"Bearer {key}",
            "Content-Type": "application/json",
            "Accept": "application/json",
        }
        # As the openai package reads them.
        for header, variable in (("OpenAI-Organization", "OPENAI_ORG_ID"), ("OpenAI-Project", "OPENAI_PROJECT_ID")):
            if value := os.environ.get(variable):
                self._headers[header] = value

    async def list_models(self, seconds: float) -> list[str]:
        """The names of the models that the server has. Raises as `translate_faults` reads, and TimeoutError."""
        async with (
            asyncio.timeout(seconds),
            self.wire.send("GET", f"{self.base_url}/models", self._headers) as incoming,
        ):
            await _refuse_error(incoming)
            listed = json.loads(b"".join([block async for block in incoming.blocks]))
        try:
            return [str(model["id"]) for model in listed["data"]]
        except (KeyError, TypeError) as error:
            raise ValueError("the list of models has another shape than OpenAI gives it") from error

    @asynccontextmanager
    async def complete(self, body: bytes, settings: ModelSettings) -> AsyncGenerator[Incoming]:
        """Send a request for an answer. Raises Fault, and ProviderError for a response that is none of success."""
        query: Any = settings.extra_query
        url = f"{self.base_url}/chat/completions{f'?{urlencode(query, doseq=True)}' if query else ''}"
        headers: Any = {**self._headers, **(settings.extra_headers or {})}
        async with self.wire.send("POST", url, headers, body) as incoming:
            await _refuse_error(incoming)
            yield incoming


class LeanModel(Model):
    """A model of a server that speaks Chat Completions. It streams and has no other way. `sent` is told the body of each
    request."""

    def __init__(self, name: str, api: Api, sent: Callable[[bytes], None] | None = None) -> None:
        self.model, self._api, self._sent = name, api, sent

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        raise ModelFailed("This model streams its answers and has no other way")

    async def stream_response(
        self,
        system_instructions: str | None,
        input: str | list[TResponseInputItem],
        model_settings: ModelSettings,
        tools: list[Tool],
        output_schema: AgentOutputSchemaBase | None,
        handoffs: list[Handoff[Any, Any]],
        tracing: ModelTracing,
        **kwargs: Any,
    ) -> AsyncIterator[TResponseStreamEvent]:
        """The events that `models.answer` reads, and the whole answer as the last. Raises what `translate_faults`
        reads."""
        api = self._api
        body = self.write(system_instructions, input, model_settings, tools, output_schema, handoffs)
        if self._sent is not None:
            self._sent(body)
        reply = Reply(_begin_response(self.model, model_settings, has_tools=bool(tools or handoffs)))
        # Left in the middle, the connection is closed at once.
        async with api.complete(body, model_settings) as incoming:
            stream = EventStream()
            async for block in incoming.blocks:
                done, failure = _read_block(block, stream, reply)
                for event in reply.take_events():
                    yield event
                if failure is not None:
                    raise failure
                if done:
                    await _drain(incoming)
                    break
        response = reply.finish()
        for event in reply.take_events():
            yield event
        yield ResponseCompletedEvent(response=response, sequence_number=0, type="response.completed")

    def write(
        self,
        instructions: str | None,
        input: str | list[TResponseInputItem],
        settings: ModelSettings,
        tools: list[Tool],
        schema: AgentOutputSchemaBase | None,
        handoffs: list[Handoff[Any, Any]],
    ) -> bytes:
        """The body of a request."""
        api = self._api
        written = api.tool_sets.write(tools, handoffs)
        return write_body(
            self.model, api.base_url, instructions, input, settings, written, schema, official=api.official
        )


def _begin_response(name: str, settings: ModelSettings, *, has_tools: bool) -> Response:
    """The response that an answer is put into, as the SDK begins it."""
    choice: Any = settings.tool_choice
    return Response(
        id=FAKE_RESPONSES_ID,
        created_at=time.time(),
        model=name,
        object="response",
        output=[],
        tool_choice="auto" if choice is None else ResponsesConverter.convert_tool_choice(choice),
        top_p=settings.top_p,
        temperature=settings.temperature,
        tools=[],
        parallel_tool_calls=bool(has_tools and settings.parallel_tool_calls),
        reasoning=settings.reasoning,
    )


def _read_block(block: bytes, stream: EventStream, reply: Reply) -> tuple[bool, Exception | None]:
    """Take in a block of a stream. Returns whether the answer is done, and what is wrong with the block.

    What came before the wrong part is in the reply, and is shown before the failure is raised.
    """
    try:
        for data in stream.read(block):
            if data.startswith("[DONE]"):
                return True, None
            reply.read(json.loads(data))
    except (ProviderError, ValueError, RecursionError) as error:
        return False, error
    return False, None


async def _refuse_error(incoming: Incoming) -> None:
    """Raise ProviderError for a response that is none of success."""
    if incoming.status < 400:
        return
    said = b""
    async for block in incoming.blocks:
        said += block
        if len(said) > _LONGEST_ERROR:
            break
    body: Any = said.decode(errors="replace").strip()
    with suppress(ValueError, RecursionError):  # it may be a page for people
        body = json.loads(body)
    body = body.get("error", body) if isinstance(body, dict) else body
    raise ProviderError(f"Error code: {incoming.status}", body, status=incoming.status, headers=incoming.headers)


async def _drain(incoming: Incoming) -> None:
    """Read a response to its end, if that comes at once."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_SECONDS):
            async for _ in incoming.blocks:
                pass
