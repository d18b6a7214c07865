"""The journal around a model: a response is committed before the run loop sees it.

Text is shown while it comes (`text` events, provisional), then response, items and events commit in one transaction.
On a takeover the journaled responses are served without asking the model. A fault before the end voids what was shown
(`reset`) and the call is made again, in this one place: the clients below do not retry.
"""

import asyncio
import hashlib
import json
import re
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import structlog
from agents.agent_output import AgentOutputSchemaBase
from agents.exceptions import AgentsException
from agents.handoffs import Handoff
from agents.items import ModelResponse, TResponseInputItem, TResponseStreamEvent
from agents.model_settings import ModelSettings
from agents.models.interface import Model, ModelProvider, ModelTracing
from agents.tool import Tool as SDKTool
from openai import APIConnectionError, APIStatusError, OpenAIError
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseRefusalDeltaEvent,
    ResponseTextDeltaEvent,
)

from agent_server.errors import ModelFailed
from agent_server.knowledge.embed import Embedder
from agent_server.orchestrator.context import TurnContext, passage_body
from agent_server.orchestrator.models import OFFLINE, ModelChoice, Models
from agent_server.orchestrator.offline import OfflineModel
from agent_server.turns.events import AgentChosen, Cited, Event, Reset, TextDelta, TextDone, ToolCalled
from agent_server.turns.journal import NewItem

log = structlog.get_logger()

FLUSH_SECONDS = 0.08
"""Text is put into the log at most this often; what came in between travels together."""

_CITATION = re.compile(r"\[(\d{1,3}(?:\s*,\s*\d{1,3})*)\]")
_RETRYABLE = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})


class _Fault(Exception):
    """A model call that failed; `again` says whether asking once more may help, `after` how long the provider asks to
    wait (seconds)."""

    def __init__(self, message: str, *, again: bool, after: float | None = None) -> None:
        super().__init__(message)
        self.message, self.again, self.after = message, again, after


class JournaledModels(ModelProvider):
    """Gives the run loop, for the model name `agent name`, the model of that agent with the journal around it."""

    def __init__(self, turn: TurnContext, models: Models, default: ModelChoice, embedder: Embedder) -> None:
        self._turn, self._models, self._default, self._embedder = turn, models, default, embedder

    def get_model(self, model_name: str | None) -> Model:
        agent = self._turn.workspace.agents[str(model_name)]
        return JournaledModel(self._turn, agent.name, agent.model or self._default.name, self._models, self._embedder)


class JournaledModel(Model):
    """One agent's model."""

    def __init__(self, turn: TurnContext, agent: str, name: str, models: Models, embedder: Embedder) -> None:
        self._turn, self._agent, self._name, self._models, self._embedder = turn, agent, name, models, embedder

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        raise ModelFailed("Turns are streamed; this model has no other way")

    async def stream_response(
        self,
        system_instructions: str | None,
        input: str | list[TResponseInputItem],
        model_settings: ModelSettings,
        tools: list[SDKTool],
        output_schema: AgentOutputSchemaBase | None,
        handoffs: list[Handoff[Any, Any]],
        tracing: ModelTracing,
        **kwargs: Any,
    ) -> AsyncIterator[TResponseStreamEvent]:
        """Yields only the completed response: the run loop needs no more, and the log has the rest."""
        self._turn.calls += 1
        n = self._turn.calls
        request = (system_instructions, input, model_settings, tools, output_schema, handoffs, tracing)
        sha = _request_sha(system_instructions, input, [t.name for t in tools])
        if journaled := self._turn.journaled.get(n):
            if journaled.request_sha != sha:
                log.warning("turn.replay_differs", call=n)
            response = Response.model_validate(journaled.response)
        else:
            response = await self._ask(n, sha, request, kwargs, {h.tool_name: h.agent_name for h in handoffs})
        self._turn.announced = self._agent
        yield ResponseCompletedEvent(response=response, sequence_number=0, type="response.completed")

    async def _ask(
        self, n: int, sha: bytes, request: tuple[Any, ...], kwargs: dict[str, Any], handoffs: dict[str, str]
    ) -> Response:
        settings = self._turn.runtime.settings
        model = await self._model()
        writer = _TextWriter(self._turn, n, self._announcement())
        for retry in range(settings.model_retries + 1):
            try:
                response = await self._stream(model.stream_response(*request, **kwargs), writer)
                break
            except _Fault as fault:
                await writer.void()
                log.warning("model.fault", model=self._name, call=n, reason=fault.message, retry=retry)
                if not fault.again or retry == settings.model_retries:
                    raise ModelFailed(fault.message) from fault
                await asyncio.sleep(min(fault.after if fault.after is not None else 0.5 * 2**retry, 10.0))
        await self._commit(n, sha, response, writer, handoffs)
        return response

    async def _model(self) -> Model:
        if self._name == OFFLINE:
            pace = self._turn.runtime.settings.offline_words_per_second
            return OfflineModel(self._turn, self._embedder, words_per_second=pace)
        return await self._models.get(self._name)

    def _announcement(self) -> list[Event]:
        """What is to be said before the first word of an agent that has not spoken yet."""
        if self._turn.announced == self._agent:
            return []
        decision = self._turn.decision
        routed = decision.agent == self._agent and decision.decided_by != "model"
        confidence = next((r.confidence for r in decision.ranked if r.name == self._agent), 0.0)
        return [AgentChosen(self._agent, decision.decided_by if routed else "model", round(confidence, 4))]

    async def _stream(self, events: AsyncIterator[TResponseStreamEvent], writer: "_TextWriter") -> Response:
        settings = self._turn.runtime.settings
        deadline = time.monotonic() + settings.model_call_timeout
        patience = settings.model_first_token_timeout
        stream = aiter(events)
        while True:
            remaining = min(patience, deadline - time.monotonic())
            try:
                async with asyncio.timeout(max(remaining, 0.001)):
                    event = await anext(stream, None)
            except TimeoutError:
                raise _Fault(f"The model said nothing for {patience:g} seconds", again=True) from None
            except (OpenAIError, AgentsException, httpx.HTTPError, ValueError, OSError) as error:
                raise _fault(error) from error
            except Exception as error:  # litellm's providers raise types of their own that it does not export
                if type(error).__module__.partition(".")[0] != "litellm":
                    raise
                raise _fault(error) from error
            if event is None:
                raise _Fault("The model's answer broke off", again=True)
            patience = settings.model_token_timeout
            if isinstance(event, ResponseTextDeltaEvent | ResponseRefusalDeltaEvent):
                await writer.add(event.delta)
            elif isinstance(event, ResponseCompletedEvent):
                if not event.response.output:
                    raise _Fault("The model answered with nothing", again=True)
                return event.response
            elif event.type in ("response.failed", "response.incomplete", "error"):
                raise _Fault("The model did not finish its answer", again=True)

    async def _commit(
        self, n: int, sha: bytes, response: Response, writer: "_TextWriter", handoffs: dict[str, str]
    ) -> None:
        prompt = self._turn.workspace.agents[self._agent]
        events, items = writer.rest(), []
        for output in response.output:
            if isinstance(output, ResponseOutputMessage):
                text = _text(output)
                cited = writer.cited_in(text)
                items.append(
                    NewItem(
                        {"role": "assistant", "content": text},
                        role="assistant",
                        text=text,
                        agent=self._agent,
                        model=self._name,
                        prompt_sha=prompt.sha,
                        sources=[passage_body(c) for c in cited],
                    )
                )
            elif isinstance(output, ResponseFunctionToolCall):
                call = {"type": "function_call", "call_id": output.call_id, "name": output.name}
                items.append(NewItem({**call, "arguments": output.arguments}))
                if output.name in handoffs:
                    # The run loop makes this output itself; later turns need it beside the call.
                    to = json.dumps({"assistant": handoffs[output.name]})
                    items.append(NewItem({"type": "function_call_output", "call_id": output.call_id, "output": to}))
                else:
                    events.append(ToolCalled(output.call_id, output.name, _arguments(output.arguments)))
        await self._turn.attempt.journal.record_model_call(
            n,
            agent=self._agent,
            request_sha=sha,
            response=response.model_dump(mode="json", exclude_unset=True),
            events=events,
            items=items,
        )


class _TextWriter:
    """Puts one call's text into the log while it comes: the first words at once, the rest every `FLUSH_SECONDS`."""

    def __init__(self, turn: TurnContext, call: int, announcement: Sequence[Event]) -> None:
        self._turn, self._call = turn, call
        self._pending: list[Event] = list(announcement)
        self._text = ""
        self._buffer = ""
        self._cited: set[int] = set()
        self._flushed = 0.0

    async def add(self, delta: str) -> None:
        self._text += delta
        self._buffer += delta
        if time.monotonic() - self._flushed >= FLUSH_SECONDS:
            await self._turn.attempt.journal.append(*self._events())
            self._flushed = time.monotonic()

    async def void(self) -> None:
        """Take back what was shown."""
        if self._flushed:
            await self._turn.attempt.journal.append(Reset(self._call))
        self._text, self._buffer, self._cited, self._flushed = "", "", set(), 0.0

    def rest(self) -> list[Event]:
        """What is still to be written when the call has ended."""
        events = self._events()
        return [*events, TextDone(self._call)] if self._text else events

    def cited_in(self, text: str) -> list[Any]:
        known = {c.n: c for c in self._turn.cited.values()}
        return [known[n] for n in dict.fromkeys(_citations(text)) if n in known]

    def _events(self) -> list[Event]:
        events, self._pending = self._pending, []
        known = {c.n for c in self._turn.cited.values()}
        for n in _citations(self._text):
            if n in known and n not in self._cited:
                self._cited.add(n)
                events.append(Cited(n))
        if self._buffer:
            events.append(TextDelta(self._call, self._buffer))
            self._buffer = ""
        return events


def _citations(text: str) -> list[int]:
    return [int(n) for group in _CITATION.findall(text) for n in group.split(",")]


def _text(message: ResponseOutputMessage) -> str:
    return "".join(part.text if part.type == "output_text" else part.refusal for part in message.content)


def _arguments(text: str) -> Any:
    try:
        return json.loads(text or "{}")
    except ValueError:
        return text


def _request_sha(instructions: str | None, input: Any, tools: list[str]) -> bytes:
    return hashlib.sha256(json.dumps([instructions, input, tools], default=str, sort_keys=True).encode()).digest()


def _fault(error: Exception) -> _Fault:
    """A provider's failure in words that are safe to show: its own text may hold keys, prompts and addresses."""
    status = getattr(error, "status_code", None)
    if isinstance(error, APIStatusError) or isinstance(status, int):
        headers = getattr(getattr(error, "response", None), "headers", None) or {}
        after = headers.get("retry-after", "")
        seconds = float(after) if after.replace(".", "", 1).isdigit() else None
        reason = {
            401: "refused the key",
            403: "refused the key",
            404: "does not know the model",
            429: "is over its limit",
        }
        what = reason.get(int(status or 0), f"answered with status {status}")
        return _Fault(f"The model's provider {what}", again=status in _RETRYABLE, after=seconds)
    if isinstance(error, APIConnectionError | httpx.HTTPError | OSError):
        return _Fault("The model's provider cannot be reached", again=True)
    return _Fault("The model's answer could not be read", again=True)
