"""The journal around a model.

A response is committed before the run loop sees it. Text is shown while it comes (`text` events, provisional), then
response, items and events commit in one transaction.
On a takeover the journaled responses are served without asking the model.
"""

import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
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
    ResponseOutputMessage,
    ResponseReasoningItem,
)

from agent_server.citing.checked import CheckedDisplay, count_invented
from agent_server.conversations.budget import count_tokens
from agent_server.conversations.items import (
    NewItem,
    assistant_message,
    thought_item,
    user_message,
)
from agent_server.conversations.notes import DATA, NOTES, Finish, finish_of
from agent_server.documents.reach import count_known, look_up
from agent_server.errors import ModelFailed
from agent_server.knowledge.embedders.base import Embedder
from agent_server.knowledge.passages import CitedPassage, passage_body
from agent_server.models.answer import Begin, answer, message_text, thought_text
from agent_server.models.choice import OFFLINE, ModelChoice
from agent_server.models.outputs import clean_response, find_repeats, note_codes
from agent_server.models.providers import Models
from agent_server.models.structured import answer_in_shape, is_data
from agent_server.offline.about import About
from agent_server.offline.model import OfflineModel, OfflineTurn
from agent_server.offline.rephrase import Rephraser
from agent_server.orchestrator.context import TurnContext
from agent_server.requests.fit import fit_first
from agent_server.requests.recipe import Asked, Frames, Given, Sent, make_recipe
from agent_server.routing import Decision
from agent_server.turns.answer_log import AnswerLog
from agent_server.turns.called import record_call
from agent_server.turns.events import (
    AgentChosen,
    Cited,
    Event,
    Note,
)
from agent_server.turns.models import ModelCall
from agent_server.turns.writer import Then
from agent_server.workspace import Workspace

log = structlog.get_logger()

ENDLESS = "The model kept calling tools without coming to an answer"


@dataclass(frozen=True)
class _Request:
    """What the run loop asks of a model. `steered` is its input with the messages that were put into the turn. `is_again`
    says that it ends with an answer that was of another shape, and what is wrong with that."""

    instructions: str | None
    input: list[TResponseInputItem]
    steered: list[TResponseInputItem]
    settings: ModelSettings
    tools: list[SDKTool]
    schema: AgentOutputSchemaBase | None
    handoffs: list[Handoff[Any, Any]]
    tracing: ModelTracing
    more: dict[str, Any]
    is_again: bool = False


@dataclass(kw_only=True)
class JournaledModels(ModelProvider):
    """Gives the run loop the model of an agent with the journal around it.

    `journaled` are the responses that earlier attempts committed, by number. `announced` is the agent that the log has
    named last. `past` is how many items of a model's input are of earlier turns. `ends` is when the turn is out of time
    (`time.monotonic`). `last_model` is the one that answered last, `finish` why its answer ends. `longest_input` is how
    many tokens of items a model is given, once one has said that it was given too many. `invented` is how many citations of
    no passage were left out of answers. `frames` are what requests have in common.
    """

    turn: TurnContext
    workspace: Workspace
    decision: Decision
    models: Models
    default: ModelChoice
    embedder: Embedder
    journaled: Mapping[int, ModelCall]
    announced: str | None
    past: int
    ends: float
    frames: Frames
    last_model: str | None = None
    finish: Finish = "stop"
    longest_input: int | None = None
    invented: int = 0
    calls: int = 0
    calls_of: Counter[str] = field(default_factory=Counter)
    input_lengths: dict[int, int] = field(default_factory=dict)

    def get_model(self, model_name: str | None) -> Model:
        agent = self.workspace.agents[str(model_name)]
        return JournaledModel(self, agent.name, self.models.full_name(agent.model or self.default.name))

    def begin_call(self, agent: str, input: Sequence[TResponseInputItem]) -> int:
        """Count a model call of an agent that is given `input`. Returns its number. Raises ModelFailed for one too many."""
        self.calls += 1
        self.calls_of[agent] += 1
        most = self.workspace.agents[agent].max_turns or self.turn.runtime.settings.model_calls_per_turn
        if self.calls_of[agent] > most:
            raise ModelFailed(ENDLESS)
        self.input_lengths[self.calls] = len(input)
        return self.calls

    def announce(self, agent: str) -> list[Event]:
        """The events that name an agent before its first word."""
        if self.announced == agent:
            return []
        routed = self.decision.agent == agent and self.decision.decided_by != "model"
        confidence = next((r.confidence for r in self.decision.ranked if r.name == agent), 0.0)
        decided_by = self.decision.decided_by if routed else "model"
        return [AgentChosen(agent, decided_by, round(confidence, 4), self.workspace.agents[agent].version)]


class JournaledModel(Model):
    """One agent's model."""

    def __init__(self, models: JournaledModels, agent: str, name: str) -> None:
        self._models, self._turn, self._agent, self._name = models, models.turn, agent, name
        self._sent = Sent(self._turn.attempt.writer.turn_id, self._turn.attempt.writer.note_request)

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
        n = self._models.begin_call(self._agent, items)
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
        self._turn.repeats.update(find_repeats(items[self._models.past :], response.output))
        self._models.announced, self._models.last_model = self._agent, response.model
        self._models.finish = finish_of(note_codes(response))
        self._models.invented += count_invented(response)
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

        async def ask(more: Sequence[Any], schema: AgentOutputSchemaBase | None) -> tuple[str, Response]:
            whole = replace(request, steered=[*request.steered, *more], is_again=bool(more), schema=schema)

            async def open(name: str) -> Begin:
                checked.allow(self._find_known(name, request))
                return await self._open(name, n, whole)

            return await answer(self._models.models, self._name, open, checked, ends=self._models.ends)

        shown = AnswerLog(self._turn.attempt.writer, n, self._before_text(self._models.announce(self._agent)))
        checked = CheckedDisplay(shown)
        name, response = await answer_in_shape(ask, request.schema, checked)
        response = await checked.finish(response)
        if invented := count_invented(response):
            log.warning("model.invented_citations", model=name, agent=self._agent, count=invented)
        # The first model of a server is known by name only now.
        model = name + response.model if name.endswith("/") else name
        thoughts = [thought_text(output) for output in response.output if isinstance(output, ResponseReasoningItem)]
        self._sent.add_answer(response.usage, shown.first_at)
        response = clean_response(response.model_copy(update={"model": model}), n, request.input)
        await self._commit(n, sha, response, shown, request, thoughts)
        return response

    def _find_known(self, name: str, request: _Request) -> frozenset[int] | None:
        """The numbers that an answer of a model may cite. None where its text stays as it is: data, quotes of the content,
        and what an agent says that has been given no passages and is not told to cite any."""
        known, told = self._turn.citations.known, self._turn.told.get(self._agent)
        if name == OFFLINE or request.schema is not None or self._models.workspace.agents[self._agent].rephrase:
            return None
        return known if known or (told is not None and told.passages is not None) else None

    def _before_text(self, announcement: list[Event]) -> Callable[[str], list[Event]]:
        """Makes the events that a client must know before the rest of a text: the agent, passages, and what is cited."""
        cited: set[int] = set()
        citations = self._turn.citations

        def make(text: str) -> list[Event]:
            new = [c.n for c in citations.find_cited(text) if c.n not in cited]
            cited.update(new)
            events = [*citations.take_unlogged(), *announcement, *map(Cited, new)]
            announcement.clear()
            return events

        return make

    async def _open(self, name: str, n: int, request: _Request) -> Begin:
        offline = name == OFFLINE
        model = self._offline_model() if offline else await self._models.models.get(name, self._sent.add_body)
        if not offline and self._models.workspace.agents[self._agent].rephrase:
            patience = self._turn.runtime.settings.model_first_token_timeout
            model, name, offline = self._offline_model(Rephraser(model, name, patience)), OFFLINE, True
        window = 0 if offline else await self._models.models.find_window(name)

        def begin(short: bool) -> AsyncIterator[TResponseStreamEvent]:
            # The offline model would take a message after a tool's output for one whose tool is still to be called.
            items, budgets = (request.input, []) if offline else self._fit(request, window, short=short)
            self._note_request(n, model, name, request, budgets)
            return model.stream_response(
                request.instructions,
                items,
                request.settings,
                request.tools,
                request.schema,
                request.handoffs,
                request.tracing,
                **request.more,
            )

        return begin

    def _note_request(self, n: int, model: Model, name: str, request: _Request, budgets: list[int]) -> None:
        """Have the writer store what the request is made again from."""
        models, turn = self._models, self._turn
        items: list[Any] = list(request.input if name == OFFLINE else request.steered)
        asked = Asked(self._agent, name, model, request.settings, request.tools, request.schema, request.handoffs)
        given = Given(
            past=items[: models.past],
            present=items[models.past :],
            earlier=turn.briefing.earlier,
            turn_no=turn.attempt.writer.turn_no,
            budgets=budgets,
            # What another version of the server has begun it may have stored in other words.
            is_apart=bool(models.journaled) or request.is_again,
        )
        frame = models.frames.get(models.models, models.workspace.agents[self._agent], asked)
        self._sent.begin(make_recipe(n, frame, turn.told[self._agent], given, models.frames.longest_output))
        if n == 1:
            self._sent.add_ranked((r.name, r.confidence) for r in models.decision.ranked)

    def _fit(self, request: _Request, window: int, *, short: bool) -> tuple[list[Any], list[int]]:
        """The items that a model with this window is given, and the budgets that something was left out for. With
        `short` they are half of what they were."""
        models = self._models
        tools = models.models.tool_sets.count(request.tools, request.handoffs)
        fixed = count_tokens(request.instructions or "") + tools
        # A quarter is left for the answer.
        budget = window * 3 // 4 - fixed
        if models.longest_input is not None:
            budget = min(budget, models.longest_input)
        steered: list[Any] = list(request.steered)
        past, present = steered[: models.past], steered[models.past :]
        items, budgets = fit_first(past, present, budget, models.frames.longest_output, halve=short)
        if short:
            models.longest_input = budgets[-1]
        return items, budgets

    def _offline_model(self, rephraser: Rephraser | None = None) -> Model:
        turn, models = self._turn, self._models
        found = turn.citations.find_for(self._agent)
        asked = OfflineTurn(
            message=turn.attempt.message,
            query=turn.briefing.query,
            passages=found or (),
            tools=models.workspace.tools,
            ranked_agents=[ranked.name for ranked in models.decision.ranked],
            urgent=turn.briefing.emergency,
            configured=self._name != OFFLINE and rephraser is None,
            rephrase=rephraser.rephrase if rephraser is not None else None,
            about=turn.briefing.about or About(),
            count_words=partial(count_known, turn.runtime, caller=turn.attempt.caller, has_own=turn.briefing.has_own),
            find_more=self._find_more if found is not None else None,
        )
        return OfflineModel(asked, models.embedder, words_per_second=turn.runtime.settings.offline_words_per_second)

    async def _find_more(self, query: str) -> Sequence[CitedPassage]:
        turn, models, has_own = self._turn, self._models, self._turn.briefing.has_own
        within, caller = models.workspace.agents[self._agent].knowledge, turn.attempt.caller
        found = await look_up(turn.runtime, models.embedder, query, within, caller, has_own=has_own, further=True)
        return turn.citations.keep_for(None, found)

    async def _commit(
        self, n: int, sha: bytes, response: Response, shown: AnswerLog, request: _Request, thoughts: Sequence[str]
    ) -> None:
        codes = [*shown.notes, *note_codes(response)]
        codes += [DATA] if is_data(response, request.schema) else []
        events: list[Event] = [*shown.take_rest(), *(Note(code, NOTES[code]) for code in codes if code in NOTES)]
        items = [thought_item(thought) for thought in thoughts if thought.strip()]
        repeats = find_repeats(request.input[self._models.past :], response.output)
        handoffs = {handoff.tool_name: handoff.agent_name for handoff in request.handoffs}
        known = {tool.name for tool in request.tools}
        for output in response.output:
            if isinstance(output, ResponseOutputMessage):
                items.append(self._message_item(output, response.model))
            elif isinstance(output, ResponseFunctionToolCall):
                more_events, more_items = record_call(output, handoffs, known, repeated=output.call_id in repeats)
                events += more_events
                items += more_items
        if items and codes:
            items[-1].notes.extend(codes)
        await self._turn.attempt.writer.record_model_call(
            n,
            agent=self._agent,
            request_sha=sha,
            response=response.model_dump(mode="json", exclude_unset=True),
            events=events,
            items=items,
            then=self._what_follows(response, request),
        )

    def _what_follows(self, response: Response, request: _Request) -> Then:
        calls = [output.name for output in response.output if isinstance(output, ResponseFunctionToolCall)]
        tools = self._models.workspace.tools
        # A hand-off is no tool of the workspace.
        reads = all(name in tools and tools[name].effect == "read" for name in calls)
        return "act" if not reads else "read" if calls else "end"

    def _message_item(self, message: ResponseOutputMessage, model: str) -> NewItem:
        text, prompt = message_text(message), self._models.workspace.agents[self._agent]
        return assistant_message(
            text,
            agent=self._agent,
            model=model,
            prompt_sha=prompt.sha,
            prompt_version=prompt.version,
            sources=[passage_body(cited) for cited in self._turn.citations.find_cited(text)],
        )


def _request_sha(instructions: str | None, input: Any, tools: list[str]) -> bytes:
    return hashlib.sha256(json.dumps([instructions, input, tools], default=str, sort_keys=True).encode()).digest()
