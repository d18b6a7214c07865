"""The model that answers when no language model is configured.

It generates nothing. Each call ends in one of these, the first that fits:
    the output of a tool it has called   told in plain words
    a tool                               where the whole message is one of the tool's phrases; its form, if it has one
    small talk                           where all of the message is a greeting, thanks or a question about the assistant
    a quotation                          the parts of the passages that answer, with their citations
    a hand-off                           once a turn, where the running agent has no passages
    a plain no                           with the pages that are nearest
Nothing is kept between calls: what has happened in the turn is read from the items after the user's message.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agents.agent_output import AgentOutputSchemaBase
from agents.handoffs import Handoff
from agents.items import ModelResponse, TResponseInputItem, TResponseStreamEvent
from agents.model_settings import ModelSettings
from agents.models.interface import Model, ModelTracing
from agents.tool import Tool as SDKTool
from agents.usage import Usage
from openai.types.responses import Response, ResponseTextDeltaEvent

from agent_server import phrases
from agent_server.calls.forms import gives_form
from agent_server.knowledge.embedders.base import Embedder
from agent_server.knowledge.passages import CitedPassage
from agent_server.knowledge.rarity import Rarity
from agent_server.knowledge.words import content_words, language_of
from agent_server.late import Late
from agent_server.offline.about import About, reply_to
from agent_server.offline.rephrase import Rephrased
from agent_server.offline.responses import Call, Reply, create_response, seed_of, stream_events
from agent_server.offline.small_talk import find_question, find_small_talk
from agent_server.results import tell
from agent_server.tool import Tool
from agent_server.wording import word_label

if TYPE_CHECKING:
    from agent_server.offline import quote
else:
    quote = Late("agent_server.offline.quote")

NOTHING_FOUND = "The content has nothing about this. No language model is configured, so I can only answer with what the content says."
NOTHING_FOUND_NOW = "The content has nothing about this. The language model is not available just now, so I can only answer with what the content says."
NOTHING_FOUND_HERE = "The content has nothing about this, and I answer only with what the content says."
NEAREST = 3
"""Pages that are offered where nothing answers."""
AFTER_URGENT = "Do this first. Ask again when help is on its way."


@dataclass(frozen=True, kw_only=True)
class OfflineTurn:
    """What the model is told of the turn.

    `query` is the message together with what it follows; only a short follow-up follows something. `passages` are what
    was looked up for the agent that now runs, `ranked_agents` the agents with the likeliest one first. `urgent` is the
    emergency advice that has been shown before this call. `configured` says that there is a language model, which cannot
    answer now. `about` is what the assistant says of itself. `count_words` tells how rare words of a language are in the
    content; without it all of them count the same. `find_more` looks further for a text than `passages` did (`knowledge.reach`); without
    it the quotes are of those. `rephrase` has a model say a quote in its own words; then there is a language model that is used
    for nothing else.
    """

    message: str
    query: str
    passages: Sequence[CitedPassage]
    tools: Mapping[str, Tool[..., Any]]
    ranked_agents: Sequence[str]
    urgent: str | None = None
    configured: bool = False
    about: About = field(default_factory=About)
    count_words: Callable[[Sequence[str], str], Awaitable[Rarity]] | None = None
    find_more: Callable[[str], Awaitable[Sequence[CitedPassage]]] | None = None
    rephrase: Callable[[str, str], Awaitable[Rephrased | None]] | None = None


class OfflineModel(Model):
    """Answers from the turn's tools and passages. The same turn and input give the same response, ids included."""

    def __init__(self, turn: OfflineTurn, embedder: Embedder, *, words_per_second: float = 0) -> None:
        self._turn, self._embedder = turn, embedder
        self._question = find_question(turn.message)
        self._pause = 1 / words_per_second if words_per_second > 0 else 0.0

    async def get_response(
        self,
        system_instructions: str | None,
        input: str | list[TResponseInputItem],
        model_settings: ModelSettings,
        tools: list[SDKTool],
        output_schema: AgentOutputSchemaBase | None,
        handoffs: list[Handoff[Any, Any]],
        tracing: ModelTracing,
        **kwargs: Any,
    ) -> ModelResponse:
        response = await self._respond(input, tools, handoffs)
        return ModelResponse(output=response.output, usage=Usage(requests=1), response_id=response.id)

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
        """The events of a Responses stream with the text word by word."""
        response = await self._respond(input, tools, handoffs)
        for event in stream_events(response):
            if self._pause and isinstance(event, ResponseTextDeltaEvent):
                await asyncio.sleep(self._pause)
            yield event

    async def _respond(
        self, input: str | list[TResponseInputItem], tools: Sequence[SDKTool], handoffs: Sequence[Handoff[Any, Any]]
    ) -> Response:
        reply, rephrased = await self._reply(input, tools, handoffs), None
        if isinstance(reply, quote.Answer):
            if self._turn.rephrase is not None:
                rephrased = await self._turn.rephrase(self._question, reply.text)
            reply = rephrased.text if rephrased is not None else reply.text
        response = create_response(reply, seed_of(input, tools))
        if rephrased is None:
            return response
        return response.model_copy(update={"model": rephrased.model, "usage": rephrased.usage})

    async def _reply(
        self, input: str | list[TResponseInputItem], tools: Sequence[SDKTool], handoffs: Sequence[Handoff[Any, Any]]
    ) -> "Reply | quote.Answer":
        calls, outputs = _read_turn(input)
        offered = {tool.name for tool in tools}
        # A hand-off has an output as well, which says nothing to the user.
        own = {id: name for id, name in calls.items() if name in self._turn.tools or name in offered}
        if told := [tell(own[id], self._turn.tools.get(own[id]), output) for id, output in outputs if id in own]:
            return "\n\n".join(told)
        # A phrase must not reach a tool that the running agent is not offered.
        usable = [tool for name, tool in self._turn.tools.items() if name in offered]
        for text in dict.fromkeys((self._turn.message, self._question)):
            if (asked := phrases.match(text, usable)) is not None:
                return _call(asked, usable)
        # Where advice for an emergency has been shown, nobody is in the mood.
        if not self._turn.urgent and (kind := find_small_talk(self._turn.message)) is not None:
            return reply_to(kind, self._turn.about, configured=self._turn.configured)
        # `not calls`: after a hand-off or a call in this turn, the running agent has to answer.
        if not calls and not self._turn.passages and (better := self._find_better(handoffs)):
            return Call(better.tool_name, "{}")
        if self._turn.urgent:
            return AFTER_URGENT  # quotes that are merely near would stand in the way of what is to be done now
        if (answer := await self._quote()) is not None:
            return answer
        said = NOTHING_FOUND_HERE if self._turn.rephrase else None
        return decline(self._turn.passages, configured=self._turn.configured, said=said)

    def _find_better(self, handoffs: Sequence[Handoff[Any, Any]]) -> Handoff[Any, Any] | None:
        """The hand-off to the agent that is most likely meant. The running agent has none to itself."""
        best = next(iter(self._turn.ranked_agents), None)
        return next((handoff for handoff in handoffs if handoff.agent_name == best), None)

    @property
    def _as_asked_alone(self) -> str:
        """The question without a greeting before it, which would make all else weigh less, and with its capital, since
        embedders tell "How" from "how"."""
        asked = self._question
        return asked[:1].upper() + asked[1:] if self._turn.message[:1].isupper() else asked

    async def _quote(self) -> "quote.Answer | None":
        turn = self._turn
        context = "" if turn.query in (turn.message, self._question) else turn.query
        found = await turn.find_more(context or self._as_asked_alone) if turn.find_more is not None else ()
        rarity = None
        if turn.count_words is not None and (found or turn.passages):
            language = language_of(self._question)
            rarity = await turn.count_words(content_words(f"{self._question} {context}", language), language)
        # What is found further away adds answers, and takes none away.
        for passages in (found, turn.passages):
            answer = await quote.select(self._question, passages, self._embedder, context=context, rarity=rarity)
            if answer is not None:
                return answer
        return None


def decline(passages: Sequence[CitedPassage], *, configured: bool, said: str | None = None) -> str:
    """What is said where nothing answers. The pages that were found are offered, since one may be what is meant."""
    said = said or (NOTHING_FOUND_NOW if configured else NOTHING_FOUND)
    titles = list(dict.fromkeys(cited.passage.title for cited in passages))[:NEAREST]
    return (
        "\n\n".join([said, "The nearest pages are:", "\n".join(f"- {title}" for title in titles)]) if titles else said
    )


def _call(asked: phrases.PhraseMatch, usable: Sequence[Tool[..., Any]]) -> Reply:
    """The call that a message asks for. Where the tool has a form, it is a call of the tool that gives forms."""
    form = next((tool for tool in usable if gives_form(tool)), None)
    if asked.tool.form and form is not None:
        return Call(form.name, _json({"tool": asked.tool.name, "arguments": asked.arguments}))
    missing = [name for name in asked.tool.input_schema.get("required", ()) if name not in asked.arguments]
    if missing:
        return f"{asked.tool.title} needs more: {', '.join(map(word_label, missing)).lower()}."
    return Call(asked.tool.name, _json(asked.arguments))


def _read_turn(input: str | list[TResponseInputItem]) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """What has happened since the user's message.

    These are the calls (call id -> name), and the outputs since the model's last call or word.
    """
    calls: dict[str, str] = {}
    outputs: list[tuple[str, str]] = []
    for item in input if isinstance(input, list) else ():
        entry: Mapping[str, Any] = item
        if entry.get("role") == "user":
            calls, outputs = {}, []
        elif entry.get("type") == "function_call":
            calls[entry["call_id"]] = entry["name"]
            # Outputs that the model has answered already must not be told again.
            outputs = []
        elif entry.get("type") == "function_call_output":
            outputs.append((entry["call_id"], _text(entry["output"])))
    return calls, outputs


def _text(output: Any) -> str:
    if isinstance(output, str):
        return output
    return "".join(part.get("text", "") for part in output if isinstance(part, Mapping))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
