"""What models answered, kept in files, at the interface by which the run loop asks any model.

    evals/recordings/<file of cases>     for each case what was answered, in its order

A recording has the digests of all that reached the model: one that is asked something else has no recording. What was
asked is not in it, but for the user's last message. It has no header, and what has the shape of a secret is masked as in
the log; what an answer takes from its request (an id, an address) is kept as a reference to it.
"""

import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from agents.items import ModelResponse, TResponseStreamEvent
from agents.models.interface import Model
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseFunctionToolCall,
    ResponseOutputItem,
    ResponseOutputMessage,
    ResponseOutputRefusal,
    ResponseOutputText,
    ResponseReasoningItem,
    ResponseReasoningSummaryTextDeltaEvent,
    ResponseRefusalDeltaEvent,
    ResponseTextDeltaEvent,
    ResponseUsage,
)
from openai.types.responses.response import IncompleteDetails
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails

from agent_server.errors import InvalidInput, ModelFailed
from agent_server.evals.cases import FOLDER, Case
from agent_server.evals.requests import PARTS, Asked
from agent_server.evals.yaml_text import dump_yaml
from agent_server.models.answer import make_thought, message_text, thought_text
from agent_server.models.providers import Models
from agent_server.settings import Settings
from agent_server.wording import join_words, shorten

Mode = Literal["replay", "record", "auto", "off"]
MODES: Mapping[Mode, str] = {
    "replay": "answers are those of the recordings",
    "record": "models are asked, and what they answer is kept in place of what was",
    "auto": "answers are those of the recordings; where there is none, the model is asked and its answer kept",
    "off": "models are asked, and nothing is kept",
}
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SHOWN = 200

Entry = dict[str, Any]


def recording_of(root: Path, case: Case) -> Path:
    """The file that has the recordings of a case."""
    return root / FOLDER / "recordings" / f"{Path(case.file).stem}.yaml"


@dataclass
class Recordings:
    """The recordings of a run. `begin` says whose turn it is: cases are run one after the other.

    `missing` says of each request that has no recording which it was.
    """

    root: Path
    mode: Mode
    missing: list[str] = field(default_factory=list)
    _files: dict[Path, dict[str, list[Entry]]] = field(default_factory=dict)
    _changed: set[Path] = field(default_factory=set)
    _recorded: set[tuple[Path, str, str]] = field(default_factory=set)
    _case: Case | None = None

    def begin(self, case: Case | None) -> None:
        """Take the answers that follow for those of `case`."""
        self._case = case

    def list_models(self, cases: Sequence[Case]) -> Sequence[str]:
        """The models that these cases are recorded with."""
        entries = [entry for case in cases for entry in self._read(recording_of(self.root, case)).get(case.name, ())]
        return sorted({str(entry["model"]) for entry in entries})

    def find(self, asked: Asked) -> Entry | None:
        """The recording of a request."""
        return next((entry for entry in self._entries() if entry.get("key") == asked.key), None)

    def explain_missing(self, asked: Asked) -> str:
        """What is different about a request that has no recording."""
        message = f"no recording for {shorten(asked.last_message, 60)!r} of {asked.model}"
        entries = [entry for entry in self._entries() if entry.get("model") == asked.model]
        if not entries:
            return f"{message}: nothing is recorded for this case; `agent-server eval run --recordings record` does it"
        changed = [[part for part in PARTS if entry["parts"].get(part) != asked.parts[part]] for entry in entries]
        return f"{message}: {join_words(min(changed, key=len))} changed; record it again, or take the change back"

    def keep(self, asked: Asked, response: Response) -> Entry:
        """Keep an answer."""
        assert self._case is not None
        file = recording_of(self.root, self._case)
        entries = self._read(file).setdefault(self._case.name, [])
        this = (file, self._case.name, asked.model)
        if self.mode == "record" and this not in self._recorded:
            # what was recorded before of this model is not what it answers now
            entries[:] = [entry for entry in entries if entry["model"] != asked.model]
        self._recorded.add(this)
        entry = _entry_of(asked, response)
        entries[:] = [other for other in entries if other["key"] != asked.key] + [entry]
        self._changed.add(file)
        return entry

    def save(self) -> None:
        """Write the files of what was recorded."""
        for file in self._changed:
            file.parent.mkdir(parents=True, exist_ok=True)
            kept = {name: entries for name, entries in sorted(self._files[file].items()) if entries}
            file.write_text(dump_yaml(kept), encoding="utf-8")
        self._changed.clear()

    def _entries(self) -> Sequence[Entry]:
        if self._case is None:
            return ()
        return self._read(recording_of(self.root, self._case)).get(self._case.name, ())

    def _read(self, file: Path) -> dict[str, list[Entry]]:
        if file not in self._files:
            try:
                self._files[file] = yaml.load(file.read_text(encoding="utf-8"), _LOADER) or {}  # noqa: S506  # a safe loader
            except FileNotFoundError:
                self._files[file] = {}
            except yaml.YAMLError as error:
                raise InvalidInput(f"{file}: is not YAML; delete it and record again") from error
        return self._files[file]


class RecordedModels(Models):
    """The clients of models with the recordings before them."""

    def __init__(self, settings: Settings, recordings: Recordings, transport: Any = None) -> None:
        super().__init__(settings, transport=transport)
        self._recordings = recordings

    async def get(self, name: str, sent: Callable[[bytes], None] | None = None) -> Model:
        if self._recordings.mode == "off":
            return await super().get(name, sent)
        # Nobody is told what is sent: most answers are recorded, and then nothing is.
        return _RecordedModel(name, self._recordings, super().get)


class _RecordedModel(Model):
    """A model whose answers are recorded."""

    def __init__(self, name: str, recordings: Recordings, open: Any) -> None:
        self._name, self._recordings, self._open = name, recordings, open

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        raise ModelFailed("Turns are streamed; a recording has no other way")

    async def stream_response(  # type: ignore[override]  # the parts of a request are handed on as they are
        self,
        instructions: str | None,
        input: Any,
        settings: Any,
        tools: Any,
        schema: Any,
        handoffs: Any,
        *args: Any,
        **more: Any,
    ) -> AsyncIterator[TResponseStreamEvent]:
        """The events of the recorded answer with its text a few words at a time."""
        asked = Asked(self._name, instructions or "", input, settings, tools, schema, handoffs)
        mode = self._recordings.mode
        entry = None if mode == "record" else self._recordings.find(asked)
        if entry is None and mode == "replay":
            why = self._recordings.explain_missing(asked)
            self._recordings.missing.append(why)
            raise ModelFailed(why)
        if entry is None:
            model = await self._open(self._name)
            stream = model.stream_response(instructions, input, settings, tools, schema, handoffs, *args, **more)
            response = None
            async for event in stream:
                if isinstance(event, ResponseCompletedEvent):
                    response = event.response
                elif event.type in ("response.failed", "response.incomplete", "error"):
                    yield event  # which ends the answer
            if response is None:
                return
            entry = self._recordings.keep(asked, response)
        # What was just recorded as well: the verdict must be that of the replay.
        for event in _stream(_response_of(entry, asked)):
            yield event


def _entry_of(asked: Asked, response: Response) -> Entry:
    usage = response.usage
    entry: Entry = {
        "asked": shorten(asked.without_values(asked.last_message), _SHOWN),
        "model": asked.model,
        "output": [item for output in response.output if (item := _output_json(output, asked))],
    }
    if usage is not None:
        entry["usage"] = {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
    if response.incomplete_details is not None:
        entry["ended"] = response.incomplete_details.reason
    if response.metadata:
        entry["notes"] = dict(response.metadata)
    return entry | {"key": asked.key, "parts": dict(asked.parts)}


def _output_json(output: ResponseOutputItem, asked: Asked) -> dict[str, Any] | None:
    match output:
        case ResponseFunctionToolCall():
            return {"call": output.name, "arguments": asked.without_values_of(output.arguments), "id": output.call_id}
        case ResponseOutputMessage():
            kind = "refusal" if any(part.type == "refusal" for part in output.content) else "text"
            return {kind: asked.without_values(message_text(output))}
        case ResponseReasoningItem():
            return {"thought": asked.without_values(thought_text(output))}
    return None  # what only one provider has


def _response_of(entry: Mapping[str, Any], asked: Asked) -> Response:
    kept = entry.get("usage") or {}
    read, wrote = int(kept.get("input_tokens", 0)), int(kept.get("output_tokens", 0))
    ended = entry.get("ended")
    return Response(
        id=f"resp_{entry['key']}",
        created_at=0,
        model=asked.model.partition("/")[2] or asked.model,
        object="response",
        output=[_output_of(item, n, asked) for n, item in enumerate(entry["output"])],
        parallel_tool_calls=False,
        tool_choice="auto",
        tools=[],
        metadata=entry.get("notes"),
        incomplete_details=IncompleteDetails(reason=ended) if ended else None,
        usage=ResponseUsage(
            input_tokens=read,
            output_tokens=wrote,
            total_tokens=read + wrote,
            input_tokens_details=InputTokensDetails(cached_tokens=0, cache_write_tokens=0),
            output_tokens_details=OutputTokensDetails(reasoning_tokens=0),
        ),
    )


def _output_of(item: Mapping[str, Any], n: int, asked: Asked) -> ResponseOutputItem:
    if "call" in item:
        arguments = asked.with_values(item["arguments"])
        return ResponseFunctionToolCall(
            id=f"fc_{n}", call_id=item["id"], name=item["call"], arguments=arguments, type="function_call"
        )
    if "thought" in item:
        return make_thought(asked.with_values(item["thought"]))
    part: Any = (
        ResponseOutputRefusal(refusal=asked.with_values(item["refusal"]), type="refusal")
        if "refusal" in item
        else ResponseOutputText(text=asked.with_values(item["text"]), annotations=[], type="output_text", logprobs=[])
    )
    return ResponseOutputMessage(id=f"msg_{n}", content=[part], role="assistant", status="completed", type="message")


def _stream(response: Response) -> Sequence[TResponseStreamEvent]:
    events: list[Any] = []
    where: dict[str, Any] = {"item_id": "", "output_index": 0, "sequence_number": 0}
    for output in response.output:
        if isinstance(output, ResponseReasoningItem):
            events.append(
                ResponseReasoningSummaryTextDeltaEvent(
                    delta=thought_text(output), summary_index=0, type="response.reasoning_summary_text.delta", **where
                )
            )
        elif isinstance(output, ResponseOutputMessage):
            if output.content[0].type == "refusal":
                text = message_text(output)
                events.append(
                    ResponseRefusalDeltaEvent(delta=text, content_index=0, type="response.refusal.delta", **where)
                )
                continue
            # Each piece keeps its spaces, so that the pieces together are the text. An event for each word would take
            # a tenth of the time of a turn.
            events += [
                ResponseTextDeltaEvent(
                    delta=words, content_index=0, logprobs=[], type="response.output_text.delta", **where
                )
                for words in re.findall(r"(?:\s*\S+\s*){1,8}", message_text(output))
            ]
    return [*events, ResponseCompletedEvent(response=response, sequence_number=0, type="response.completed")]
