"""What a model answered, as it is kept and sent back."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import structlog
from openai.types.responses import (
    Response,
    ResponseFunctionToolCall,
    ResponseOutputItem,
    ResponseOutputMessage,
    ResponseReasoningItem,
)

from agent_server.calls.refusals import SAME_CALLS
from agent_server.conversations.notes import DECLINED
from agent_server.db import storable
from agent_server.model_calls import clean_arguments, clean_name, is_clean_name
from agent_server.models.answer import message_text, with_text
from agent_server.models.endings import THOUGHT_IN_TEXT

log = structlog.get_logger()

REFUSED = {"refused": "true"}
"""Metadata of a response in which the model refused."""

CALLS_TAKEN = 20
"""How many tool calls of one response are made."""


def clean_response(response: Response, n: int, input: Sequence[Mapping[str, Any]]) -> Response:
    """The answer of model call `n` of a turn with calls that can be kept, made and sent back.

    `input` is what the model was given. No call has an id that one in it has.
    """
    outputs = _clean(_first_calls(response.output), cut_off=_is_cut_off(response))
    refused = any(_is_refusal(output) for output in outputs)
    if response.metadata and THOUGHT_IN_TEXT.items() <= response.metadata.items():
        outputs = [output for output in outputs if not isinstance(output, ResponseReasoningItem)]
    kept = {"output": _with_new_ids([_say_refusal(output) for output in outputs], n, input)}
    return _storable(response.model_copy(update=kept | ({"metadata": REFUSED} if refused else {})))


def note_codes(response: Response) -> list[str]:
    """The codes of what a reader should know of this answer (`conversations.notes`)."""
    if response.metadata == REFUSED:
        return [DECLINED]
    match response.incomplete_details and response.incomplete_details.reason:
        case "max_output_tokens":
            return ["length"]
        case "content_filter":
            return ["content_filter"]
    return []


def _is_refusal(output: ResponseOutputItem) -> bool:
    return isinstance(output, ResponseOutputMessage) and any(part.type == "refusal" for part in output.content)


def _say_refusal(output: ResponseOutputItem) -> ResponseOutputItem:
    # The run loop takes a refusal for an error.
    if isinstance(output, ResponseOutputMessage) and _is_refusal(output):
        return with_text(output, message_text(output))
    return output


def find_repeats(input: Iterable[Mapping[str, Any]], outputs: Iterable[ResponseOutputItem]) -> frozenset[str]:
    """The ids of the calls in `outputs` that have been made so often that they are not made again.

    `input` are the items of the turn before them. Two calls are the same that have the same name and arguments.
    """
    made = Counter(_key(item["name"], item["arguments"]) for item in input if item.get("type") == "function_call")
    repeats = set()
    for output in outputs:
        if isinstance(output, ResponseFunctionToolCall):
            key = _key(output.name, output.arguments)
            made[key] += 1
            if made[key] > SAME_CALLS:
                repeats.add(output.call_id)
    return frozenset(repeats)


def _key(name: str, arguments: str) -> tuple[str, str]:
    try:
        return name, json.dumps(json.loads(arguments), sort_keys=True)
    except (ValueError, RecursionError):
        return name, arguments


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
            if (name, arguments) != (output.name, output.arguments):
                cleaned[i] = output.model_copy(update={"name": name, "arguments": arguments})
    return cleaned


def _storable(response: Response) -> Response:
    """`response` without what cannot be stored or encoded."""
    written = response.model_dump(mode="python", exclude_unset=True, warnings=False)
    kept = storable(written)
    return response if kept == written else Response.model_validate(kept)


def _with_new_ids(
    outputs: Sequence[ResponseOutputItem], n: int, input: Sequence[Mapping[str, Any]]
) -> list[ResponseOutputItem]:
    """`outputs` with call ids that no call before them has."""
    # Some providers number the calls of each answer anew, but the ledger and the run loop know a call by its id.
    used: set[Any] = {"", *(item.get("call_id") for item in input)}
    renamed = list(outputs)
    for i, output in enumerate(outputs):
        if isinstance(output, ResponseFunctionToolCall):
            taken = output.call_id in used or not is_clean_name(output.call_id)
            id = f"{clean_name(output.call_id or 'call')[:40]}_{n}_{i}" if taken else output.call_id
            if taken:
                renamed[i] = output.model_copy(update={"call_id": id})
            used.add(id)
    return renamed
