"""Chunks of Chat Completions -> the events that are read of an answer, and the whole answer.

Pieces of one kind that came together in a block are one event.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, assert_never

import agents.models.reasoning_content_replay as _replay
import agents.usage as _usage
from agents.items import TResponseStreamEvent
from agents.models.chatcmpl_helpers import ChatCmplHelpers
from agents.models.fake_id import FAKE_RESPONSES_ID
from openai.types.responses import (
    Response,
    ResponseFunctionCallArgumentsDeltaEvent,
    ResponseFunctionToolCall,
    ResponseOutputItem,
    ResponseOutputItemAddedEvent,
    ResponseOutputMessage,
    ResponseOutputRefusal,
    ResponseOutputText,
    ResponseReasoningItem,
    ResponseReasoningSummaryTextDeltaEvent,
    ResponseReasoningTextDeltaEvent,
    ResponseRefusalDeltaEvent,
    ResponseTextDeltaEvent,
    ResponseUsage,
)
from openai.types.responses.response_reasoning_item import Content, Summary
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails

from agent_server.models.chunks import Repair
from agent_server.models.endings import note_end
from agent_server.models.faults import ProviderError

WITHHELD = "Response withheld by the provider's content filter."
"""The refusal of a model whose provider filtered its whole answer, in the SDK's words."""

# Neither has a public name. The first says by which field a server is given its thoughts back; without the second the
# run loop does not count a request of whose tokens nothing was said.
_FIELD: str | None = getattr(_replay, "_CHAT_COMPLETIONS_REASONING_FIELD_KEY", None)
_mark_request: Any = getattr(_usage, "_mark_request_completed_without_usage", lambda _: None)


Kind = Literal["summary", "thought", "said", "refused", "begun", "arguments"]
"""What a piece of an answer is. `summary` is thought beside the text, `thought` as `reasoning`; for a call that has
`begun` the piece is empty."""

_WHERE: Mapping[str, Any] = {"item_id": FAKE_RESPONSES_ID, "output_index": 0, "sequence_number": 0}


def _event(kind: Kind, text: str) -> TResponseStreamEvent:
    match kind:
        case "summary":
            return ResponseReasoningSummaryTextDeltaEvent(
                delta=text, summary_index=0, type="response.reasoning_summary_text.delta", **_WHERE
            )
        case "thought":
            return ResponseReasoningTextDeltaEvent(
                delta=text, content_index=0, type="response.reasoning_text.delta", **_WHERE
            )
        case "said":
            return ResponseTextDeltaEvent(
                delta=text, content_index=0, logprobs=[], type="response.output_text.delta", **_WHERE
            )
        case "refused":
            return ResponseRefusalDeltaEvent(delta=text, content_index=0, type="response.refusal.delta", **_WHERE)
        case "begun":
            call = ResponseFunctionToolCall(
                id=FAKE_RESPONSES_ID, call_id="", name="", arguments="", type="function_call"
            )
            return ResponseOutputItemAddedEvent(
                item=call, output_index=0, sequence_number=0, type="response.output_item.added"
            )
        case "arguments":
            return ResponseFunctionCallArgumentsDeltaEvent(
                delta=text, type="response.function_call_arguments.delta", **_WHERE
            )
        case _:
            assert_never(kind)


@dataclass
class _Thought:
    """What the model thought. `parts` came as `reasoning_content`, `text` as `reasoning`."""

    source: dict[str, Any]
    parts: list[str] = field(default_factory=list)
    text: str = ""
    open: bool = False

    def item(self) -> ResponseReasoningItem:
        content = {"content": [Content(text=self.text, type="reasoning_text")]} if self.text else {}
        summary = [Summary(text=part, type="summary_text") for part in self.parts]
        # The SDK gives back by the one field what came by it alone.
        by_field = {_FIELD: "reasoning"} if _FIELD and self.text and not self.parts else {}
        item = ResponseReasoningItem(id=FAKE_RESPONSES_ID, summary=summary, type="reasoning", **content)
        item.provider_data = self.source | by_field  # type: ignore[attr-defined]  # an extra field
        return item


class Reply:
    """One answer while it comes. `response` is what it is put into."""

    def __init__(self, response: Response) -> None:
        self._response = response
        self._repair = Repair()
        self._pieces: list[tuple[Kind, str]] = []
        self._source: dict[str, Any] = {"model": response.model}
        self._texts: dict[str, list[str]] = {}
        """The pieces of what was `said` and `refused`, in the order in which the two began."""
        self._thought: _Thought | None = None
        self._sources: list[dict[str, Any]] = []
        self._ignored: set[int] = set()
        self._calls_before = 0
        self._usage: Any = None
        self._reason: str | None = None

    def read(self, chunk: Any) -> None:
        """Take in a chunk. Raises ProviderError for an error in its place, ValueError for one of another shape."""
        if isinstance(chunk, dict) and (error := chunk.get("error")):
            raise ProviderError("An error occurred during streaming", error)
        try:
            self._read(chunk)
        except (AttributeError, TypeError, KeyError) as error:
            raise ValueError("a chunk of the stream has another shape than Chat Completions gives it") from error

    def _read(self, chunk: Any) -> None:
        self._usage = chunk.get("usage") or self._usage
        for choice in chunk.get("choices") or ():
            if choice.get("index"):
                continue  # another answer to the same question, which nobody asked for
            self._reason = choice.get("finish_reason") or self._reason
            if id := chunk.get("id"):
                self._source["response_id"] = id
            self._read_delta(choice.get("delta") or {}, last=bool(choice.get("finish_reason")))

    def _read_delta(self, delta: Mapping[str, Any], *, last: bool) -> None:
        calls = delta.get("tool_calls")
        content, more = self._repair.part_content(delta.get("content"), last=last or bool(calls))
        summary = (self._repair.join_thought(delta.get("reasoning_content")) or "") + more
        if summary:
            self._think(summary)
        thought = self._repair.join_thought(delta.get("reasoning"))
        if thought and isinstance(thought, str):
            self._think_in_text(thought)
        refusal = delta.get("refusal")
        if self._thought and not summary and (content is not None or refusal or calls):
            self._thought.open = False
        self._say(content)
        if refusal:
            self._begin_text("refused").append(refusal)
            self._add("refused", refusal)
        for piece in calls or ():
            self._call(piece)
        if delta.get("audio"):
            raise ValueError("the answer is audio, which nobody has asked for")

    def _think(self, summary: str) -> None:
        self._thought = self._thought or _Thought(dict(self._source))
        if not self._thought.open:
            self._thought.parts.append("")
            self._thought.open = True
        self._thought.parts[-1] += summary
        self._add("summary", summary)

    def _think_in_text(self, thought: str) -> None:
        self._thought = self._thought or _Thought(dict(self._source))
        self._thought.text += thought
        self._add("thought", thought)

    def _say(self, content: Any) -> None:
        if content:
            self._begin_text("said").append(content)
            self._add("said", content)

    def _begin_text(self, kind: str) -> list[str]:
        if not self._texts and any(call.id and call.name for call in self._repair.calls.calls):
            self._calls_before = len(self._sources)
        return self._texts.setdefault(kind, [])

    def _call(self, piece: Mapping[str, Any]) -> None:
        function = piece.get("function") or {}
        id, name = piece.get("id") or "", function.get("name") or ""
        place, text = self._repair.calls.place(piece.get("index"), id, name, function.get("arguments"))
        if piece.get("type") == "custom":
            self._ignored.add(place)
        if place == len(self._sources):
            self._sources.append(dict(self._source))
            self._add("begun", "")
        if signature := _read_signature(piece):
            self._sources[place] = {**self._source, "thought_signature": signature}
        if text:
            self._add("arguments", text)

    def take_events(self) -> Sequence[TResponseStreamEvent]:
        """The events of the chunks since the last time. Pieces of one kind that came together are one."""
        pieces, self._pieces = self._pieces, []
        return [_event(kind, text) for kind, text in pieces]

    def _add(self, kind: Kind, text: str) -> None:
        if self._pieces and self._pieces[-1][0] == kind:
            text = self._pieces.pop()[1] + text
        self._pieces.append((kind, text))

    def finish(self) -> Response:
        """The whole answer, when the stream has ended. Raises Fault where it ended too early."""
        spoke = bool(self._texts or self._sources)
        note_end(self._response, self._reason, spoke=spoke, tags=self._repair.tags)
        if self._reason == "content_filter" and not spoke:
            self._begin_text("refused").append(WITHHELD)
            self._add("refused", WITHHELD)
        calls = [self._call_item(place) for place in range(len(self._sources)) if place not in self._ignored]
        output: list[ResponseOutputItem] = [self._thought.item()] if self._thought else []
        output += calls[: self._calls_before]
        if self._texts:
            output.append(self._message())
        self._response.output = [*output, *calls[self._calls_before :]]
        self._response.usage = _count(self._usage)
        if self._usage is None:
            _mark_request(self._response)
        return self._response

    def _message(self) -> ResponseOutputMessage:
        parts: list[Any] = [
            ResponseOutputText(text="".join(texts), type="output_text", annotations=[], logprobs=[])
            if kind == "said"
            else ResponseOutputRefusal(refusal="".join(texts), type="refusal")
            for kind, texts in self._texts.items()
        ]
        message = ResponseOutputMessage(
            id=FAKE_RESPONSES_ID, content=parts, role="assistant", type="message", status="completed"
        )
        message.provider_data = dict(self._source)  # type: ignore[attr-defined]  # an extra field
        return message

    def _call_item(self, place: int) -> ResponseFunctionToolCall:
        call = self._repair.calls.calls[place]
        item = ResponseFunctionToolCall(
            id=FAKE_RESPONSES_ID,
            call_id=ChatCmplHelpers.clean_gemini_tool_call_id(call.id, self._response.model),
            name=call.name,
            arguments=call.arguments,
            type="function_call",
        )
        item.provider_data = dict(self._sources[place])  # type: ignore[attr-defined]  # an extra field
        return item


def _read_signature(piece: Mapping[str, Any]) -> Any:
    """What Google wants back with a call's result."""
    extra = piece.get("extra_content")
    google = extra.get("google") if isinstance(extra, dict) else None
    return google.get("thought_signature") if isinstance(google, dict) else None


def _count(usage: Any) -> ResponseUsage | None:
    if usage is None:
        return None
    given, made = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    cached = {name: given.get(name) or 0 for name in ("cached_tokens", "cache_write_tokens")}
    return ResponseUsage(
        input_tokens=usage.get("prompt_tokens") or 0,
        output_tokens=usage.get("completion_tokens") or 0,
        total_tokens=usage.get("total_tokens") or 0,
        input_tokens_details=InputTokensDetails.model_validate(cached),
        output_tokens_details=OutputTokensDetails(reasoning_tokens=made.get("reasoning_tokens") or 0),
    )
