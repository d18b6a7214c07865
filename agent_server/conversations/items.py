"""Items as a model reads them, and the one statement that appends them to a conversation.

Every body is made here, and every row of `item` is written by `insert_items`: what a provider accepts in a history is
decided in one place.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from agent_server.db import storable


@dataclass(frozen=True, kw_only=True)
class NewItem:
    """An item that is still to be written to `conversations.models.Item`."""

    body: dict[str, Any]
    role: str | None = None
    text: str | None = None
    agent: str | None = None
    model: str | None = None
    prompt_sha: str | None = None
    prompt_version: str | None = None
    sources: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def user_message(text: str) -> NewItem:
    """What a user wrote."""
    return NewItem(body={"role": "user", "content": text}, role="user", text=text)


def assistant_message(
    text: str,
    *,
    agent: str | None = None,
    model: str | None = None,
    prompt_sha: str | None = None,
    prompt_version: str | None = None,
    sources: Sequence[dict[str, Any]] = (),
    notes: Sequence[str] = (),
) -> NewItem:
    """What an agent wrote. `sources` are the passages that it cites, `notes` the codes of what its reader should know."""
    return NewItem(
        body={"role": "assistant", "content": text},
        role="assistant",
        text=text,
        agent=agent,
        model=model,
        prompt_sha=prompt_sha,
        prompt_version=prompt_version,
        sources=list(sources),
        notes=list(notes),
    )


def thought_item(text: str) -> NewItem:
    """What a model thought before it spoke."""
    return NewItem(body={"type": "reasoning", "summary": [{"type": "summary_text", "text": text}]})


def tool_call_item(call_id: str, name: str, arguments: str) -> NewItem:
    """A model's call of a tool. `arguments` is the JSON text as the model wrote it."""
    return NewItem(body={"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments})


def tool_output_item(call_id: str, output: str, *, failed: bool = False) -> NewItem:
    """What the model is told of a call's outcome."""
    body = {"type": "function_call_output", "call_id": call_id, "output": output}
    # "incomplete" is OpenAI's word for it. Readers know a failure by it, because its text looks like any other.
    return NewItem(body={**body, "status": "incomplete"} if failed else body)


def insert_items(turn: str) -> str:
    """SQL that appends the items in the parameter `new_items` to a turn. `items_json` makes the parameter.

    `turn` is what the statement selects from: one row with `owner_id`, `conversation_id`, `id` and `turn_no` of the
    turn, and its `last_item` with the new items already counted. Where it has no row, nothing is written.
    """
    # SQL and no function that writes: a turn's items must travel in the one statement that also writes its events.
    return f"""
        insert into item (owner_id, conversation_id, turn_id, turn_no, k, role, text, agent, model, prompt_sha,
                          prompt_version, body, sources, notes, created_at)
        select t.owner_id, t.conversation_id, t.id, t.turn_no,
               t.last_item - jsonb_array_length(cast(:new_items as jsonb)) + i.n, r.role, r.text, r.agent, r.model,
               r.prompt_sha, r.prompt_version, r.body, r.sources, r.notes, now()
        from {turn} t cross join jsonb_array_elements(cast(:new_items as jsonb)) with ordinality i(row, n)
        cross join jsonb_to_record(i.row)
             as r(role text, text text, agent text, model text, prompt_sha text, prompt_version text, body jsonb, sources jsonb,
                  notes jsonb)"""  # noqa: S608  # SQL of our own


BODY = "case when i.text is null then i.body else jsonb_build_object('content', i.text) || i.body end"
"""SQL of the whole body of the row `i` of `item`: that of a message may be without its text, which stands beside it."""


def items_json(items: Sequence[NewItem], *, once: bool = False) -> str:
    """The parameter `new_items` of `insert_items`. With `once` the text of a message is not in its body as well."""
    rows = [vars(item) for item in items]
    if once:
        rows = [{**row, "body": _without_text(row["body"], row["text"])} for row in rows]
    return json.dumps(storable(rows))


def _without_text(body: dict[str, Any], text: str | None) -> dict[str, Any]:
    return {k: v for k, v in body.items() if k != "content" or v != text}
