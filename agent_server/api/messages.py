"""Items -> messages as people read them: one of the user's and one answer per turn."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import Any
from uuid import UUID

from agent_server.conversations.models import Item
from agent_server.turns.models import Turn

HANDOFF = "transfer_to_"


@dataclass
class ToolUse:
    """A call of a tool in an answer."""

    call_id: str
    name: str
    input: Any
    output: Any = None
    error: str | None = None


@dataclass
class ReadMessage:
    """A message with what belongs to it; `status` is its turn's."""

    id: str
    role: str
    text: str
    agent: str | None
    created_at: datetime
    status: str
    error: dict[str, Any] | None = None
    model: str | None = None
    prompt_sha: str | None = None
    sources: list[dict[str, Any]] = field(default_factory=list)
    tools: list[ToolUse] = field(default_factory=list)


def messages_of(items: Iterable[Item], turns: Mapping[UUID, Turn]) -> list[ReadMessage]:
    """The messages in `items` (in order), whose turns are `turns`."""
    messages: list[ReadMessage] = []
    for turn_id, group in groupby(items, key=lambda item: item.turn_id):
        turn, of_turn = turns[turn_id], list(group)
        messages += [_said(item, turn) for item in of_turn if item.role == "user"]
        answer = _answer([item for item in of_turn if item.role != "user"], turn)
        if answer.text or answer.tools or turn.status in ("failed", "cancelled"):
            messages.append(answer)
    return messages


def _said(item: Item, turn: Turn) -> ReadMessage:
    return ReadMessage(
        id=f"{turn.id}.{item.k}",
        role="user",
        text=item.text or "",
        agent=None,
        created_at=item.created_at,
        status=turn.status,
    )


def _answer(items: Sequence[Item], turn: Turn) -> ReadMessage:
    said = [item for item in items if item.role == "assistant"]
    last = said[-1] if said else None
    sources = {source["n"]: source for item in said for source in item.sources}
    return ReadMessage(
        id=str(turn.id),
        role="assistant",
        text="\n\n".join(item.text.strip() for item in said if item.text),
        agent=turn.agent or (last.agent if last else None),
        created_at=last.created_at if last else turn.finished_at or turn.created_at,
        status=turn.status,
        error=turn.error,
        model=last.model if last else None,
        prompt_sha=last.prompt_sha if last else None,
        sources=[sources[n] for n in sorted(sources)],
        tools=_tools(items),
    )


def _tools(items: Sequence[Item]) -> list[ToolUse]:
    outputs = {i.body["call_id"]: i.body for i in items if i.body.get("type") == "function_call_output"}
    uses = []
    for item in items:
        body = item.body
        if body.get("type") != "function_call" or body["name"].startswith(HANDOFF):
            continue
        use = ToolUse(body["call_id"], body["name"], _json(body["arguments"]))
        returned = outputs.get(body["call_id"], {})
        if returned.get("status") == "incomplete":
            use.error = returned["output"]
        else:
            use.output = _json(returned.get("output"))
        uses.append(use)
    return uses


def _json(text: Any) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return text
