"""The journal around a model: a response is committed before the run loop sees it.

Text is shown while it comes (`text` events, provisional), then response, items and events commit in one transaction.
On a takeover the journaled responses are served without asking the model. A fault before the end voids what was shown
(`reset`) and the call is made again, in this one place: the clients below do not retry. A model that cannot answer is
followed by the fallback.
"""

import asyncio
import hashlib
import json
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

import httpx
import structlog
from agents.agent_output import AgentOutputSchemaBase
from agents.exceptions import AgentsException
from agents.handoffs import Handoff
from agents.items import ItemHelpers, ModelResponse, TResponseInputItem, TResponseStreamEvent
from agents.model_settings import ModelSettings
from agents.models.interface import Model, ModelProvider, ModelTracing
from agents.tool import Tool as SDKTool
from openai import OpenAIError
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseFunctionToolCall,
    ResponseOutputItem,
    ResponseOutputMessage,
    ResponseRefusalDeltaEvent,
    ResponseTextDeltaEvent,
)

from agent_server.conversations.items import assistant_message, tool_call_item, tool_output_item, user_message
from agent_server.errors import ModelFailed
from agent_server.knowledge.embedders.wordllama import Embedder
from agent_server.models.breaker import BreakerOpen
from agent_server.models.providers import OFFLINE, Fault, ModelChoice, Models, broke_off, fault_of
from agent_server.offline.model import OfflineModel
from agent_server.orchestrator.context import TurnContext, passage_body
from agent_server.turns.events import AgentChosen, Cited, Event, Reset, TextDelta, TextDone, ToolCalled, ToolReturned

log = structlog.get_logger()

FLUSH_SECONDS = 0.08
"""Text is put into the log at most this often; what came in between travels together."""
PIECE = 8_192
"""Longest text of one event, characters: each follower that reads slowly holds one in a buffer of its own."""
ANSWER_LIMIT = 1_000_000
"""Longest answer of one model call, characters: words, reasoning and tool arguments together."""
LONGEST_PAUSE = 10.0
"""Longest wait before a call is made again, seconds, whatever the provider asks for."""

_CITATION = re.compile(r"\[(\d{1,3}(?:\s*,\s*\d{1,3})*)\]")


@dataclass(frozen=True)
class _Request:
    """What the run loop asks of a model. `steered` is its input with what was put into the turn."""

    instructions: str | None
    input: list[TResponseInputItem]
    steered: list[TResponseInputItem]
    settings: ModelSettings
    tools: list[SDKTool]
    schema: AgentOutputSchemaBase | None
    handoffs: list[Handoff[Any, Any]]
    tracing: ModelTracing
    more: dict[str, Any]


class JournaledModels(ModelProvider):
    """Gives the run loop, for the model name `agent name`, the model of that agent with the journal around it."""

    def __init__(self, turn: TurnContext, models: Models, default: ModelChoice, embedder: Embedder) -> None:
        self._turn, self._models, self._default, self._embedder = turn, models, default, embedder

    def get_model(self, model_name: str | None) -> Model:
        agent = self._turn.workspace.agents[str(model_name)]
        name = self._models.full_name(agent.model or self._default.name)
        return JournaledModel(self._turn, agent.name, name, self._models, self._embedder)


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
        turn = self._turn
        turn.calls += 1
        n, items = turn.calls, ItemHelpers.input_to_new_input_list(input)
        turn.input_lengths[n] = len(items)
        sha = _request_sha(system_instructions, items, [t.name for t in tools])
        if journaled := turn.journaled.get(n):
            if journaled.request_sha != sha:
                log.warning("turn.replay_differs", call=n)
            response = Response.model_validate(journaled.response)
        else:
            steered = await self._steered(n, items)
            response = await self._ask(
                n,
                sha,
                _Request(
                    system_instructions,
                    items,
                    steered,
                    model_settings,
                    tools,
                    output_schema,
                    handoffs,
                    tracing,
                    kwargs,
                ),
            )
        turn.announced, turn.model = self._agent, response.model
        yield ResponseCompletedEvent(response=response, sequence_number=0, type="response.completed")

    async def _steered(self, n: int, items: list[TResponseInputItem]) -> list[TResponseInputItem]:
        """`items` with the messages that were put into the turn, each where the input of the call ended that was the
        first to be given it. A call that is replayed takes none: its answer did not heed them."""
        if self._name == OFFLINE:
            return items  # it answers one message: what is put into its turn is answered in a turn of its own
        steered: list[Any] = list(items)
        for call, text in reversed(await self._turn.attempt.writer.take_steers(n)):
            steered.insert(min(self._turn.input_lengths[call], len(items)), user_message(text).body)
        return steered

    async def _ask(self, n: int, sha: bytes, request: _Request) -> Response:
        self._turn.pending += self._announcement()
        writer = _TextWriter(self._turn, n)
        name, answer = await self._answer(n, request, writer)
        # The first model of a server is known by name only now.
        response = answer.model_copy(
            update={
                "model": name + answer.model if name.endswith("/") else name,
                "output": _with_new_ids(answer.output, n, request.input),
            }
        )
        await self._commit(n, sha, response, writer, request)
        return response

    async def _answer(self, n: int, request: _Request, writer: "_TextWriter") -> tuple[str, Response]:
        """The name of the model that answered, and its answer. Raises ModelFailed."""
        fallback = self._models.find_fallback(self._name)
        try:
            return self._name, await self._answer_of(self._name, n, request, writer)
        except ModelFailed as error:
            if fallback is None:
                raise
            log.warning("model.fallback", model=self._name, fallback=fallback, call=n, reason=error.message)
        return fallback, await self._answer_of(fallback, n, request, writer)

    async def _answer_of(self, name: str, n: int, request: _Request, writer: "_TextWriter") -> Response:
        model, breaker, retry = await self._model(name), self._models.breaker(name), 0
        while True:
            try:
                with breaker.call(lambda error: isinstance(error, Fault) and error.again):
                    return await self._stream(_stream_of(model, request, offline=name == OFFLINE), writer)
            except BreakerOpen:
                raise ModelFailed(
                    "The model has failed too often just now and is left alone; try again in a few seconds"
                ) from None
            except Fault as fault:
                await writer.void()
                log.warning("model.fault", model=name, call=n, reason=fault.message, retry=retry, opened=breaker.open)
                pause = min(fault.after if fault.after is not None else 0.5 * 2**retry, LONGEST_PAUSE)
                last = retry == self._turn.runtime.settings.model_retries or breaker.open
                if last or not fault.again or time.monotonic() + pause >= self._turn.ends:
                    raise ModelFailed(fault.message) from fault
            await asyncio.sleep(pause)
            retry += 1

    async def _model(self, name: str) -> Model:
        if name == OFFLINE:
            pace = self._turn.runtime.settings.offline_words_per_second
            return OfflineModel(self._turn, self._embedder, words_per_second=pace)
        return await self._models.get(name)

    def _announcement(self) -> list[Event]:
        """What is to be said before the first word of an agent that has not spoken yet."""
        if self._turn.announced == self._agent:
            return []
        decision = self._turn.decision
        routed = decision.agent == self._agent and decision.decided_by != "model"
        confidence = next((r.confidence for r in decision.ranked if r.name == self._agent), 0.0)
        return [AgentChosen(self._agent, decision.decided_by if routed else "model", round(confidence, 4))]

    async def _stream(self, events: AsyncIterator[TResponseStreamEvent], writer: "_TextWriter") -> Response:
        """The answer, its text shown while it comes. Raises Fault."""
        settings = self._turn.runtime.settings
        deadline = time.monotonic() + settings.model_call_timeout
        patience, length = settings.model_first_token_timeout, 0
        async with aclosing(cast(AsyncGenerator[TResponseStreamEvent], events)) as stream:
            while True:
                event = await _next(stream, patience, deadline)
                patience = settings.model_token_timeout
                length += len(getattr(event, "delta", ""))
                if length > ANSWER_LIMIT:
                    raise Fault(f"The model's answer is longer than {ANSWER_LIMIT:,} characters", again=False)
                if isinstance(event, ResponseTextDeltaEvent | ResponseRefusalDeltaEvent):
                    await writer.add(event.delta)
                elif isinstance(event, ResponseCompletedEvent):
                    if _says_nothing(event.response):
                        raise Fault("The model answered with nothing", again=True)
                    return event.response
                elif event.type in ("response.failed", "response.incomplete", "error"):
                    raise Fault("The model did not finish its answer", again=True)

    async def _commit(self, n: int, sha: bytes, response: Response, writer: "_TextWriter", request: _Request) -> None:
        handoffs = {handoff.tool_name: handoff.agent_name for handoff in request.handoffs}
        offered = {tool.name for tool in request.tools}
        prompt = self._turn.workspace.agents[self._agent]
        events, items = writer.rest(), []
        for output in response.output:
            if isinstance(output, ResponseOutputMessage):
                text = _text(output)
                cited = writer.cited_in(text)
                items.append(
                    assistant_message(
                        text,
                        agent=self._agent,
                        model=response.model,
                        prompt_sha=prompt.sha,
                        sources=[passage_body(c) for c in cited],
                    )
                )
            elif isinstance(output, ResponseFunctionToolCall):
                items.append(tool_call_item(output.call_id, output.name, output.arguments))
                if output.name in handoffs:
                    # The run loop makes this output itself; later turns need it beside the call.
                    to = json.dumps({"assistant": handoffs[output.name]})
                    items.append(tool_output_item(output.call_id, to))
                else:
                    events.append(ToolCalled(output.call_id, output.name, _arguments(output.arguments)))
                    if output.name not in offered:  # the run loop answers this itself, too
                        told = unknown_tool(output.name)
                        events.append(ToolReturned(output.call_id, output.name, None, told))
                        items.append(tool_output_item(output.call_id, told))
        await self._turn.attempt.writer.record_model_call(
            n,
            agent=self._agent,
            request_sha=sha,
            response=response.model_dump(mode="json", exclude_unset=True),
            events=events,
            items=items,
        )


class _TextWriter:
    """Puts one call's text into the log while it comes: the first words at once, the rest every `FLUSH_SECONDS`."""

    def __init__(self, turn: TurnContext, call: int) -> None:
        self._turn, self._call = turn, call
        self._text = ""
        self._buffer = ""
        self._cited: set[int] = set()
        self._flushed = 0.0

    async def add(self, delta: str) -> None:
        self._text += delta
        self._buffer += delta
        if time.monotonic() - self._flushed >= FLUSH_SECONDS:
            await self._turn.attempt.writer.append(*self._events())
            self._flushed = time.monotonic()

    async def void(self) -> None:
        """Take back what was shown."""
        if self._flushed:
            await self._turn.attempt.writer.append(Reset(self._call))
        self._text, self._buffer, self._cited, self._flushed = "", "", set(), 0.0

    def rest(self) -> list[Event]:
        """What is still to be written when the call has ended."""
        events = self._events()
        return [*events, TextDone(self._call)] if self._text else events

    def cited_in(self, text: str) -> list[Any]:
        known = {c.n: c for c in self._turn.cited.values()}
        return [known[n] for n in dict.fromkeys(_citations(text)) if n in known]

    def _events(self) -> list[Event]:
        events, self._turn.pending = self._turn.pending, []
        known = {c.n for c in self._turn.cited.values()}
        for n in _citations(self._text):
            if n in known and n not in self._cited:
                self._cited.add(n)
                events.append(Cited(n))
        for start in range(0, len(self._buffer), PIECE):
            events.append(TextDelta(self._call, self._buffer[start : start + PIECE]))
        self._buffer = ""
        return events


def _citations(text: str) -> list[int]:
    return [int(n) for group in _CITATION.findall(text) for n in group.split(",")]


def _text(message: ResponseOutputMessage) -> str:
    return "".join(part.text if part.type == "output_text" else part.refusal for part in message.content)


def _arguments(text: str) -> Any:
    try:
        return json.loads(text or "{}")
    except (ValueError, RecursionError):
        return text


def _request_sha(instructions: str | None, input: Any, tools: list[str]) -> bytes:
    return hashlib.sha256(json.dumps([instructions, input, tools], default=str, sort_keys=True).encode()).digest()


def unknown_tool(name: str) -> str:
    """What a model is told that calls a tool which its agent does not have."""
    return f"not_found: there is no tool {name!r} here"


def _stream_of(model: Model, request: _Request, *, offline: bool) -> AsyncIterator[TResponseStreamEvent]:
    # The offline model would take a message that follows a tool's output for one whose tool is still to be called.
    return model.stream_response(
        request.instructions,
        request.input if offline else request.steered,
        request.settings,
        request.tools,
        request.schema,
        request.handoffs,
        request.tracing,
        **request.more,
    )


async def _next(stream: AsyncIterator[TResponseStreamEvent], patience: float, deadline: float) -> TResponseStreamEvent:
    """The next event of a model's stream. Raises Fault."""
    remaining = deadline - time.monotonic()
    try:
        async with asyncio.timeout(max(min(patience, remaining), 0.001)):
            return await anext(stream)
    except StopAsyncIteration:
        raise broke_off() from None
    except TimeoutError:
        what = f"said nothing for {patience:g} seconds" if patience < remaining else "took too long to answer"
        raise Fault(f"The model {what}", again=True) from None
    except (OpenAIError, AgentsException, httpx.HTTPError, ValueError, OSError) as error:
        raise fault_of(error) from error
    except Exception as error:  # litellm's providers raise types of their own that it does not export
        if type(error).__module__.partition(".")[0] != "litellm":
            raise
        raise fault_of(error) from error


def _says_nothing(response: Response) -> bool:
    return not any(
        isinstance(output, ResponseFunctionToolCall)
        or (isinstance(output, ResponseOutputMessage) and _text(output).strip())
        for output in response.output
    )


def _with_new_ids(
    outputs: Sequence[ResponseOutputItem], n: int, input: Sequence[TResponseInputItem]
) -> list[ResponseOutputItem]:
    """`outputs` with call ids that no call before them has: some providers number the calls of each answer anew, but
    the ledger and the run loop know a call by its id."""
    used: set[Any] = {"", *(item.get("call_id") for item in input)}
    renamed = list(outputs)
    for i, output in enumerate(outputs):
        if isinstance(output, ResponseFunctionToolCall):
            id = output.call_id if output.call_id not in used else f"{output.call_id or 'call'}.{n}.{i}"
            renamed[i] = output.model_copy(update={"call_id": id})
            used.add(id)
    return renamed
