"""The journal around a model.

A response is committed before the run loop sees it. Text is shown while it comes (`text` events, provisional), then
response, items and events commit in one transaction.
On a takeover the journaled responses are served without asking the model.
"""

import hashlib
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
from agents.agent_output import AgentOutputSchemaBase
from agents.handoffs import Handoff
from agents.items import ItemHelpers, ModelResponse, TResponseInputItem, TResponseStreamEvent
from agents.model_settings import ModelSettings
from agents.models.interface import Model, ModelProvider, ModelTracing
from agents.tool import Tool as SDKTool
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseFunctionToolCall,
    ResponseOutputItem,
    ResponseOutputMessage,
)

from agent_server.calls.ledger import failure_text
from agent_server.conversations.items import NewItem, assistant_message, tool_call_item, tool_output_item, user_message
from agent_server.db import storable
from agent_server.errors import ModelFailed, NotFound, quote_value
from agent_server.knowledge.embedders.base import Embedder
from agent_server.knowledge.passages import CitedPassage, passage_body
from agent_server.model_calls import clean_arguments, clean_name, is_clean_name
from agent_server.models.answer import Begin, answer, message_text
from agent_server.models.choice import OFFLINE, ModelChoice
from agent_server.models.providers import Models
from agent_server.offline.model import OfflineModel
from agent_server.orchestrator.context import TurnContext
from agent_server.routing import Decision
from agent_server.tool import Tool
from agent_server.turns.events import AgentChosen, Cited, Event, Reset, TextDelta, TextDone, ToolCalled, ToolReturned
from agent_server.turns.models import ModelCall
from agent_server.workspace import Workspace

log = structlog.get_logger()

FLUSH_SECONDS = 0.08
"""Text is put into the log at most this often; what came in between travels together."""
PIECE = 8_192
"""Longest text of one event, characters: each follower that reads slowly holds one in a buffer of its own."""

CALLS_TAKEN = 20
"""How many tool calls of one response are made."""


@dataclass(frozen=True)
class _Request:
    """What the run loop asks of a model. `steered` is its input with the messages that were put into the turn."""

    instructions: str | None
    input: list[TResponseInputItem]
    steered: list[TResponseInputItem]
    settings: ModelSettings
    tools: list[SDKTool]
    schema: AgentOutputSchemaBase | None
    handoffs: list[Handoff[Any, Any]]
    tracing: ModelTracing
    more: dict[str, Any]


@dataclass(kw_only=True)
class JournaledModels(ModelProvider):
    """Gives the run loop the model of an agent with the journal around it.

    `journaled` are the responses that earlier attempts committed, by number. `announced` is the agent that the log has
    named last. `ends` is when the turn is out of time (`time.monotonic`). `last_model` is the one that answered last.
    """

    turn: TurnContext
    workspace: Workspace
    decision: Decision
    models: Models
    default: ModelChoice
    embedder: Embedder
    journaled: Mapping[int, ModelCall]
    announced: str | None
    ends: float
    last_model: str | None = None
    calls: int = 0
    input_lengths: dict[int, int] = field(default_factory=dict)

    def get_model(self, model_name: str | None) -> Model:
        agent = self.workspace.agents[str(model_name)]
        return JournaledModel(self, agent.name, self.models.full_name(agent.model or self.default.name))

    def begin_call(self, input: Sequence[TResponseInputItem]) -> int:
        """Count a model call that is given `input`. Returns its number."""
        self.calls += 1
        self.input_lengths[self.calls] = len(input)
        return self.calls

    def announce(self, agent: str) -> list[Event]:
        """The events that name an agent before its first word."""
        if self.announced == agent:
            return []
        routed = self.decision.agent == agent and self.decision.decided_by != "model"
        confidence = next((r.confidence for r in self.decision.ranked if r.name == agent), 0.0)
        return [AgentChosen(agent, self.decision.decided_by if routed else "model", round(confidence, 4))]


class JournaledModel(Model):
    """One agent's model."""

    def __init__(self, models: JournaledModels, agent: str, name: str) -> None:
        self._models, self._turn, self._agent, self._name = models, models.turn, agent, name

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
        """Yields only the completed response. The run loop needs no more and the log has the rest."""
        items = ItemHelpers.input_to_new_input_list(input)
        n = self._models.begin_call(items)
        sha = _request_sha(system_instructions, items, [t.name for t in tools])
        if journaled := self._models.journaled.get(n):
            # A deployment in mid-turn changes requests. The journal counts: tools have acted on its answers.
            if journaled.request_sha != sha:
                log.warning("turn.replay_differs", call=n)
            response = Response.model_validate(journaled.response)
        else:
            steered = await self._steer(n, items)
            request = _Request(
                system_instructions,
                items,
                steered,
                model_settings,
                tools,
                output_schema,
                handoffs,
                tracing,
                kwargs,
            )
            response = await self._ask(n, sha, request)
        self._models.announced, self._models.last_model = self._agent, response.model
        yield ResponseCompletedEvent(response=response, sequence_number=0, type="response.completed")

    async def _steer(self, n: int, items: list[TResponseInputItem]) -> list[TResponseInputItem]:
        """`items` with the messages that were put into the turn.

        Each stands where the input of the call ended that was the first to be given it. A call that is replayed takes
        none: its answer did not heed them.
        """
        if self._name == OFFLINE:
            return items  # it answers one message: what is put into its turn is answered in a turn of its own
        steered: list[Any] = list(items)
        # From the last, because each insertion moves the places behind it.
        for call, text in reversed(await self._turn.attempt.writer.take_steers(n)):
            place = min(self._models.input_lengths[call], len(items))
            steered.insert(place, user_message(text).body)
        return steered

    async def _ask(self, n: int, sha: bytes, request: _Request) -> Response:
        """Ask the model and commit its answer."""

        async def open(name: str) -> Begin:
            return await self._open(name, request)

        writer = _TextWriter(self._turn, n, self._models.announce(self._agent))
        name, response = await answer(self._models.models, self._name, open, writer, ends=self._models.ends)
        # The first model of a server is known by name only now.
        model = name + response.model if name.endswith("/") else name
        output = _with_new_ids(_clean(_first_calls(response.output), cut_off=_is_cut_off(response)), n, request.input)
        response = _storable(response.model_copy(update={"model": model, "output": output}))
        await self._commit(n, sha, response, writer, request)
        return response

    async def _open(self, name: str, request: _Request) -> Begin:
        offline = name == OFFLINE
        model = self._offline_model() if offline else await self._models.models.get(name)

        def begin() -> AsyncIterator[TResponseStreamEvent]:
            return model.stream_response(
                request.instructions,
                # The offline model would take a message after a tool's output for one whose tool is still to be called.
                request.input if offline else request.steered,
                request.settings,
                request.tools,
                request.schema,
                request.handoffs,
                request.tracing,
                **request.more,
            )

        return begin

    def _offline_model(self) -> Model:
        turn, models = self._turn, self._models
        asked = _OfflineTurn(
            message=turn.attempt.message,
            query=turn.briefing.query,
            passages=turn.citations.find_for(self._agent) or (),
            tools=models.workspace.tools,
            ranked_agents=[ranked.name for ranked in models.decision.ranked],
            urgent=turn.briefing.emergency,
        )
        return OfflineModel(asked, models.embedder, words_per_second=turn.runtime.settings.offline_words_per_second)

    async def _commit(self, n: int, sha: bytes, response: Response, writer: "_TextWriter", request: _Request) -> None:
        events, items = writer.take_rest(), list[NewItem]()
        for output in response.output:
            if isinstance(output, ResponseOutputMessage):
                items.append(self._message_item(output, response.model))
            elif isinstance(output, ResponseFunctionToolCall):
                more_events, more_items = _record_call(output, request)
                events += more_events
                items += more_items
        await self._turn.attempt.writer.record_model_call(
            n,
            agent=self._agent,
            request_sha=sha,
            response=response.model_dump(mode="json", exclude_unset=True),
            events=events,
            items=items,
        )

    def _message_item(self, message: ResponseOutputMessage, model: str) -> NewItem:
        text = message_text(message)
        return assistant_message(
            text,
            agent=self._agent,
            model=model,
            prompt_sha=self._models.workspace.agents[self._agent].sha,
            sources=[passage_body(cited) for cited in self._turn.citations.find_cited(text)],
        )


@dataclass(frozen=True, kw_only=True)
class _OfflineTurn:
    """What the offline model is told of the turn."""

    message: str
    query: str
    passages: Sequence[CitedPassage]
    tools: Mapping[str, Tool[..., Any]]
    ranked_agents: Sequence[str]
    urgent: str | None


class _TextWriter:
    """Puts the text of one call into the log while it comes.

    The first words are written at once, the rest every `FLUSH_SECONDS`.
    """

    def __init__(self, turn: TurnContext, call: int, announcement: list[Event]) -> None:
        self._turn, self._call = turn, call
        self._before = announcement
        self._text = ""
        self._buffer = ""
        self._cited: set[int] = set()
        self._flushed = 0.0

    async def add(self, delta: str) -> None:
        self._text += delta
        self._buffer += delta
        if time.monotonic() - self._flushed >= FLUSH_SECONDS:
            await self._turn.attempt.writer.append(*self._take_events())
            self._flushed = time.monotonic()

    async def void(self) -> None:
        if self._flushed:
            await self._turn.attempt.writer.append(Reset(self._call))
        self._text, self._buffer, self._cited, self._flushed = "", "", set(), 0.0

    def take_rest(self) -> list[Event]:
        """What is still to be written when the call has ended."""
        events = self._take_events()
        return [*events, TextDone(self._call)] if self._text else events

    def _take_events(self) -> list[Event]:
        # Passages go first: a client must know them before the text that cites them.
        events, self._before = [*self._turn.citations.take_unlogged(), *self._before], []
        for cited in self._turn.citations.find_cited(self._text):
            if cited.n not in self._cited:
                self._cited.add(cited.n)
                events.append(Cited(cited.n))
        for start in range(0, len(self._buffer), PIECE):
            events.append(TextDelta(self._call, self._buffer[start : start + PIECE]))
        self._buffer = ""
        return events


def _record_call(call: ResponseFunctionToolCall, request: _Request) -> tuple[list[Event], list[NewItem]]:
    """The events and items of a call that a model asked for.

    The outputs that the run loop makes itself are among them: no ledger records those.
    """
    item = tool_call_item(call.call_id, call.name, call.arguments)
    for handoff in request.handoffs:
        if handoff.tool_name == call.name:
            # Later turns need the output beside the call.
            to = json.dumps({"assistant": handoff.agent_name})
            return [], [item, tool_output_item(call.call_id, to)]
    events: list[Event] = [ToolCalled(call.call_id, call.name, _arguments(call.arguments))]
    if call.name in {tool.name for tool in request.tools}:
        return events, [item]
    failure = unknown_tool(call.name)
    events.append(ToolReturned(call.call_id, call.name, None, failure))
    return events, [item, tool_output_item(call.call_id, failure, failed=True)]


def unknown_tool(name: str) -> str:
    """What a model is told that calls a tool which its agent does not have."""
    return failure_text(NotFound(f"there is no tool {quote_value(name)} here"))


def _arguments(text: str) -> Any:
    try:
        return json.loads(text or "{}")
    # A model may write what is no JSON, or nest it more deeply than Python reads.
    except (ValueError, RecursionError):
        return text


def _request_sha(instructions: str | None, input: Any, tools: list[str]) -> bytes:
    return hashlib.sha256(json.dumps([instructions, input, tools], default=str, sort_keys=True).encode()).digest()


def _first_calls(outputs: Sequence[ResponseOutputItem]) -> list[ResponseOutputItem]:
    """`outputs` with as many calls as are taken of one response. The rest is never heard of again."""
    calls = [output for output in outputs if isinstance(output, ResponseFunctionToolCall)]
    if len(calls) > CALLS_TAKEN:
        log.warning("model.too_many_calls", calls=len(calls), taken=CALLS_TAKEN)
    dropped = {id(call) for call in calls[CALLS_TAKEN:]}
    return [output for output in outputs if id(output) not in dropped]


def _is_cut_off(response: Response) -> bool:
    """Whether the answer ended because it may not be longer."""
    return response.incomplete_details is not None and response.incomplete_details.reason == "max_output_tokens"


def _clean(outputs: Sequence[ResponseOutputItem], *, cut_off: bool) -> list[ResponseOutputItem]:
    """`outputs` with calls that can be kept and sent back. With `cut_off` the last one came to no end."""
    cleaned = list(outputs)
    for i, output in enumerate(outputs):
        if isinstance(output, ResponseFunctionToolCall):
            name = clean_name(output.name)
            arguments = clean_arguments(name, output.arguments, cut_off=cut_off and i == len(outputs) - 1)
            cleaned[i] = output.model_copy(update={"name": name, "arguments": arguments})
    return cleaned


def _storable(response: Response) -> Response:
    """`response` without what cannot be stored or encoded."""
    written = response.model_dump(mode="python", exclude_unset=True, warnings=False)
    kept = storable(written)
    return response if kept == written else Response.model_validate(kept)


def _with_new_ids(
    outputs: Sequence[ResponseOutputItem], n: int, input: Sequence[TResponseInputItem]
) -> list[ResponseOutputItem]:
    """`outputs` with call ids that no call before them has."""
    # Some providers number the calls of each answer anew, but the ledger and the run loop know a call by its id.
    used: set[Any] = {"", *(item.get("call_id") for item in input)}
    renamed = list(outputs)
    for i, output in enumerate(outputs):
        if isinstance(output, ResponseFunctionToolCall):
            taken = output.call_id in used or not is_clean_name(output.call_id)
            id = f"{clean_name(output.call_id or 'call')[:40]}_{n}_{i}" if taken else output.call_id
            renamed[i] = output.model_copy(update={"call_id": id})
            used.add(id)
    return renamed
