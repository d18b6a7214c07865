"""The offline model: what answers when no language model is configured.

It generates nothing. Each call ends in one of these, the first that fits:
    the output of a tool it has called   told in plain words
    a hand-off                           once a turn, where the running agent has neither passages nor a tool for it
    a tool                               where the whole message is one of the tool's phrases; its form, if it has one
    a quotation                          the sentences of the passages that answer, with their citations
    a plain no
Nothing is kept between calls: what has happened in the turn is read from the items after the user's message.
"""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from agents.agent_output import AgentOutputSchemaBase
from agents.handoffs import Handoff
from agents.items import ModelResponse, TResponseInputItem, TResponseStreamEvent
from agents.model_settings import ModelSettings
from agents.models.interface import Model, ModelTracing
from agents.tool import Tool as SDKTool
from agents.usage import Usage
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseContentPartAddedEvent,
    ResponseContentPartDoneEvent,
    ResponseCreatedEvent,
    ResponseFunctionCallArgumentsDeltaEvent,
    ResponseFunctionCallArgumentsDoneEvent,
    ResponseFunctionToolCall,
    ResponseOutputItemAddedEvent,
    ResponseOutputItemDoneEvent,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseTextDeltaEvent,
    ResponseTextDoneEvent,
    ResponseUsage,
)
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails

from agent_server import phrases
from agent_server.knowledge.embedders.wordllama import Embedder
from agent_server.offline import quote
from agent_server.offline.pieces import CitedPassage
from agent_server.tool import Tool

NAME = "offline"
FORM_TOOL = "offer_form"
NOTHING_FOUND = "The content has nothing about this. No language model is configured, so I can only answer with what the content says."
AFTER_URGENT = "Do this first. Ask again when help is on its way."
GREETING = "Hello. Ask me something, and I will show you what the content says about it, with its sources."

_GREETING = re.compile(
    r"\W*((hello|hi|hey|good (morning|afternoon|evening|day)|greetings|thanks|thank you|many thanks|bye|goodbye)"
    r"( there| again| everybody| a lot| very much| so much)?\W*)+",
    re.IGNORECASE,
)
_ERROR = re.compile(r"([a-z]+(?:_[a-z]+)*): (.+)", re.DOTALL)
_NAMED_BY = ("title", "name", "heading", "label", "subject", "email")
_LISTED_IN = ("hits", "items", "results")
_UNTOLD = re.compile(r"(.*_)?ids?|(created|updated)_at|cursor|next_cursor|citation|slug|score")
_MOST_FIELDS, _MOST_CHARACTERS = 8, 300


class OfflineTurn(Protocol):
    """What the model needs to know of the turn; all of it is read when the model is called."""

    @property
    def message(self) -> str:
        """What the user says now."""

    @property
    def query(self) -> str:
        """The message together with what it follows, where it is a short follow-up."""

    @property
    def passages(self) -> Sequence[CitedPassage]:
        """What was looked up for the agent that now runs."""

    @property
    def tools(self) -> Mapping[str, Tool[..., Any]]: ...

    @property
    def ranked_agents(self) -> Sequence[str]:
        """The agents by how likely they are meant, best first."""

    @property
    def urgent(self) -> str | None:
        """The emergency advice that has been shown before this call, if any."""


@dataclass(frozen=True)
class _Call:
    name: str
    arguments: str


_Reply = str | _Call


class OfflineModel(Model):
    """Answers from the turn's tools and passages. The same turn and input give the same response, ids included."""

    def __init__(self, turn: OfflineTurn, embedder: Embedder, *, words_per_second: float = 0) -> None:
        self._turn, self._embedder = turn, embedder
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
        response = _response(self._reply(input, tools, handoffs), _seed(input, tools))
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
        """The events of a Responses stream, the text word by word."""
        response = _response(self._reply(input, tools, handoffs), _seed(input, tools))
        for event in _events(response):
            if self._pause and isinstance(event, ResponseTextDeltaEvent):
                await asyncio.sleep(self._pause)
            yield event

    def _reply(
        self, input: str | list[TResponseInputItem], tools: Sequence[SDKTool], handoffs: Sequence[Handoff[Any, Any]]
    ) -> _Reply:
        calls, outputs = _happened(input)
        offered = {tool.name for tool in tools}
        own = {id: name for id, name in calls.items() if name in self._turn.tools or name in offered}
        if told := [self._told(own[id], output) for id, output in outputs if id in own]:
            return "\n\n".join(told)
        asked = phrases.match(self._turn.message, [t for name, t in self._turn.tools.items() if name in offered])
        if asked is None:
            if _GREETING.fullmatch(self._turn.message):
                return GREETING
            if not calls and not self._turn.passages and (better := self._better(handoffs)):
                return _Call(better.tool_name, "{}")
            return self._quoted()
        return self._called(asked, offered)

    def _better(self, handoffs: Sequence[Handoff[Any, Any]]) -> Handoff[Any, Any] | None:
        """The hand-off to the agent that is most likely meant, unless that is the running one, which has none to
        itself."""
        best = next(iter(self._turn.ranked_agents), None)
        return next((handoff for handoff in handoffs if handoff.agent_name == best), None)

    def _called(self, asked: phrases.PhraseMatch, offered: set[str]) -> _Reply:
        if asked.tool.form and FORM_TOOL in offered:
            return _Call(FORM_TOOL, _json({"tool": asked.tool.name, "arguments": asked.arguments}))
        missing = [name for name in asked.tool.input_schema.get("required", ()) if name not in asked.arguments]
        if missing:
            return f"{asked.tool.title} needs more: {', '.join(map(_label, missing)).lower()}."
        return _Call(asked.tool.name, _json(asked.arguments))

    def _quoted(self) -> str:
        turn = self._turn
        if turn.urgent:
            return AFTER_URGENT  # quotes that are merely near would stand in the way of what is to be done now
        context = turn.query if turn.query != turn.message else ""
        answer = quote.select(turn.message, turn.passages, self._embedder, context=context)
        return answer.text if answer is not None else NOTHING_FOUND

    def _told(self, name: str, output: str) -> str:
        """A tool's output in plain words."""
        tool = self._turn.tools.get(name)
        title = tool.title if tool else _label(name)
        try:
            value = json.loads(output)
        except ValueError:
            error = _ERROR.fullmatch(output.strip())
            return f"{title} did not work: {_sentence(error[2])}" if error else f"{title}: {output.strip()}"
        if name == FORM_TOOL and isinstance(value, dict):
            return f"Please fill in the form “{value.get('title', title)}” and send it."
        if tool is not None and tool.destructive and isinstance(value, dict) and "question" in value:
            return f"This needs your word first. {value['question']} Nothing has been done yet."
        done = tool is not None and tool.effect != "read"
        return _rendered(f"{title}, done" if done else title, value)


# What has happened in the turn


def _happened(input: str | list[TResponseInputItem]) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """The calls since the user's message (call id -> name), and the outputs since the model's last call or word."""
    calls: dict[str, str] = {}
    outputs: list[tuple[str, str]] = []
    for item in input if isinstance(input, list) else ():
        entry: Mapping[str, Any] = item
        if entry.get("role") == "user":
            calls, outputs = {}, []
        elif entry.get("type") == "function_call":
            calls[entry["call_id"]] = entry["name"]
            outputs = []
        elif entry.get("type") == "function_call_output":
            outputs.append((entry["call_id"], _text(entry["output"])))
    return calls, outputs


def _text(output: Any) -> str:
    if isinstance(output, str):
        return output
    return "".join(part.get("text", "") for part in output if isinstance(part, Mapping))


# A tool's output in words


def _rendered(title: str, value: Any) -> str:
    listed = _list_in(value)
    if listed is not None:
        if not listed:
            return f"{title}: there is nothing to show."
        return f"{title}:\n\n" + "\n".join(f"- {_line(entry)}" for entry in listed)
    if not isinstance(value, Mapping):
        return f"{title}." if value is None else f"{title}: {_value(value)}"
    name, fields = _described(value)
    head = f"{title}: **{name}**" if name else f"{title}."
    return "\n".join([head, *([""] if fields else []), *(f"- {label}: {text}" for label, text in fields)])


def _list_in(value: Any) -> Sequence[Any] | None:
    """The entries, where a result is a list or holds one and little else."""
    if isinstance(value, list):
        return value
    if isinstance(value, Mapping):
        for key in _LISTED_IN:
            if isinstance(value.get(key), list):
                found: Sequence[Any] = value[key]
                return found
        lists = [v for v in value.values() if isinstance(v, list)]
        if (
            len(lists) == 1
            and not any(value.get(key) for key in _NAMED_BY)
            and all(isinstance(v, dict) for v in lists[0])
        ):
            return lists[0]
    return None


def _line(entry: Any) -> str:
    if not isinstance(entry, Mapping):
        return _value(entry)
    name, fields = _described(entry)
    mark = f" [{entry['citation']}]" if "citation" in entry else ""
    rest = "; ".join(f"{label.lower()}: {text}" for label, text in fields)
    return (f"**{name}**" + (f" ({rest})" if rest else "") if name else rest) + mark


def _described(entry: Mapping[str, Any]) -> tuple[str, list[tuple[str, str]]]:
    """What an object is called, and its other fields that say something to a person."""
    by = next((key for key in _NAMED_BY if isinstance(entry.get(key), str) and entry[key]), None)
    fields = [
        (_label(key), text)
        for key, value in entry.items()
        if key != by and not _UNTOLD.fullmatch(key) and (text := _value(value))
    ]
    return _short(str(entry[by])) if by else "", fields[:_MOST_FIELDS]


def _value(value: Any) -> str:
    match value:
        case None | "" | []:
            return ""
        case bool():
            return "yes" if value else "no"
        case list():
            return _short(", ".join(filter(None, map(_value, value))))
        case Mapping():
            return _short(", ".join(f"{_label(k).lower()} {text}" for k, v in value.items() if (text := _value(v))))
        case _:
            return _short(str(value))


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _MOST_CHARACTERS else text[:_MOST_CHARACTERS].rsplit(" ", 1)[0] + " …"


def _label(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


# The response as the SDK wants it


def _seed(input: str | list[TResponseInputItem], tools: Sequence[SDKTool]) -> str:
    """Names a call by what it was asked: ids must be the same on a replay, and new for each call of a turn."""
    asked = json.dumps([input, [tool.name for tool in tools]], sort_keys=True, default=str)
    return hashlib.sha256(asked.encode(errors="replace")).hexdigest()[:24]


def _response(reply: _Reply, seed: str) -> Response:
    output: ResponseOutputMessage | ResponseFunctionToolCall
    if isinstance(reply, _Call):
        output = ResponseFunctionToolCall(
            id=f"fc_{seed}",
            call_id=f"call_{seed}",
            name=reply.name,
            arguments=reply.arguments,
            type="function_call",
            status="completed",
        )
    else:
        text = ResponseOutputText(text=reply, annotations=[], type="output_text", logprobs=[])
        output = ResponseOutputMessage(
            id=f"msg_{seed}", content=[text], role="assistant", status="completed", type="message"
        )
    return Response(
        id=f"resp_{seed}",
        created_at=0,
        model=NAME,
        object="response",
        output=[output],
        parallel_tool_calls=False,
        tool_choice="auto",
        tools=[],
        status="completed",
        usage=ResponseUsage(
            input_tokens=0,
            input_tokens_details=InputTokensDetails(cached_tokens=0, cache_write_tokens=0),
            output_tokens=0,
            output_tokens_details=OutputTokensDetails(reasoning_tokens=0),
            total_tokens=0,
        ),
    )


def _events(response: Response) -> Iterator[TResponseStreamEvent]:
    """The response as the events that lead to it, numbered from 0."""
    for number, event in enumerate(_unnumbered(response)):
        event.sequence_number = number
        yield event


def _unnumbered(response: Response) -> Iterator[Any]:
    begun = response.model_copy(update={"output": [], "status": "in_progress", "usage": None})
    yield ResponseCreatedEvent(response=begun, sequence_number=0, type="response.created")
    item = response.output[0]
    if isinstance(item, ResponseFunctionToolCall):
        empty: Any = item.model_copy(update={"arguments": "", "status": "in_progress"})
        inner = _call_events(item)
    else:
        assert isinstance(item, ResponseOutputMessage)
        empty = item.model_copy(update={"content": [], "status": "in_progress"})
        inner = _text_events(item)
    yield ResponseOutputItemAddedEvent(item=empty, output_index=0, sequence_number=0, type="response.output_item.added")
    yield from inner
    yield ResponseOutputItemDoneEvent(item=item, output_index=0, sequence_number=0, type="response.output_item.done")
    yield ResponseCompletedEvent(response=response, sequence_number=0, type="response.completed")


def _call_events(call: ResponseFunctionToolCall) -> Iterator[Any]:
    where: dict[str, Any] = {"item_id": call.id, "output_index": 0, "sequence_number": 0}
    yield ResponseFunctionCallArgumentsDeltaEvent(
        delta=call.arguments, type="response.function_call_arguments.delta", **where
    )
    yield ResponseFunctionCallArgumentsDoneEvent(
        arguments=call.arguments, name=call.name, type="response.function_call_arguments.done", **where
    )


def _text_events(message: ResponseOutputMessage) -> Iterator[Any]:
    (part,) = message.content
    assert isinstance(part, ResponseOutputText)
    where: dict[str, Any] = {"item_id": message.id, "output_index": 0, "content_index": 0, "sequence_number": 0}
    empty = part.model_copy(update={"text": ""})
    yield ResponseContentPartAddedEvent(part=empty, type="response.content_part.added", **where)
    for word in re.findall(r"\s*\S+\s*", part.text):
        yield ResponseTextDeltaEvent(delta=word, logprobs=[], type="response.output_text.delta", **where)
    yield ResponseTextDoneEvent(text=part.text, logprobs=[], type="response.output_text.done", **where)
    yield ResponseContentPartDoneEvent(part=part, type="response.content_part.done", **where)
