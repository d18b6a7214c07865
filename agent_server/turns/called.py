"""What is stored of a call that a model asks for."""

import json
from collections.abc import Collection, Mapping
from typing import Any

from openai.types.responses import ResponseFunctionToolCall

from agent_server.calls.refusals import repeated_call, unknown_tool
from agent_server.conversations.items import NewItem, tool_call_item, tool_output_item
from agent_server.turns.events import Event, ToolCalled, ToolReturned


def record_call(
    call: ResponseFunctionToolCall, handoffs: Mapping[str, str], known: Collection[str], *, repeated: bool
) -> tuple[list[Event], list[NewItem]]:
    """The events and items of a call. `handoffs` are agents by the names of the tools that hand over to them, `known` the
    names of the other tools.

    The outputs that the run loop makes itself are among them: no ledger records those.
    """
    item = tool_call_item(call.call_id, call.name, call.arguments)
    if call.name in handoffs:
        # Later turns need the output beside the call.
        to = json.dumps({"assistant": handoffs[call.name]})
        return [], [item, tool_output_item(call.call_id, to)]
    events: list[Event] = [ToolCalled(call.call_id, call.name, _arguments(call.arguments))]
    if call.name in known and not repeated:
        return events, [item]
    failure = repeated_call(call.name) if call.name in known else unknown_tool(call.name)
    events.append(ToolReturned(call.call_id, call.name, None, failure))
    return events, [item, tool_output_item(call.call_id, failure, failed=True)]


def _arguments(text: str) -> Any:
    try:
        return json.loads(text or "{}")
    # A model may write what is no JSON, or nest it more deeply than Python reads.
    except (ValueError, RecursionError):
        return text
