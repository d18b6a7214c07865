"""A reply as the response that the SDK wants. It comes whole, or as the events that lead to it."""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from agents.items import TResponseInputItem, TResponseStreamEvent
from agents.tool import Tool as SDKTool
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

NAME = "offline"


@dataclass(frozen=True)
class Call:
    """A call of a tool. `arguments` are JSON."""

    name: str
    arguments: str


Reply = str | Call


def seed_of(input: str | list[TResponseInputItem], tools: Sequence[SDKTool]) -> str:
    """What the ids of a response are made of."""
    # A digest of the request: ids must be the same on a replay, and new for each call of a turn.
    asked = json.dumps([input, [tool.name for tool in tools]], sort_keys=True, default=str)
    # "replace": a message may hold half of a surrogate pair, which has no UTF-8.
    return hashlib.sha256(asked.encode(errors="replace")).hexdigest()[:24]


def create_response(reply: Reply, seed: str) -> Response:
    """The response that says `reply`."""
    output: ResponseOutputMessage | ResponseFunctionToolCall
    if isinstance(reply, Call):
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
        # Not the time: a replay must give the same response.
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


def stream_events(response: Response) -> Iterator[TResponseStreamEvent]:
    """The events that lead to the response. They are numbered from 0."""
    for number, event in enumerate(_list_events(response)):
        event.sequence_number = number
        yield event


def _list_events(response: Response) -> Iterator[Any]:
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
    # Each piece keeps its spaces, so that the pieces together are the text.
    for word in re.findall(r"\s*\S+\s*", part.text):
        yield ResponseTextDeltaEvent(delta=word, logprobs=[], type="response.output_text.delta", **where)
    yield ResponseTextDoneEvent(text=part.text, logprobs=[], type="response.output_text.done", **where)
    yield ResponseContentPartDoneEvent(part=part, type="response.content_part.done", **where)
