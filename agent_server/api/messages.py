"""The messages of a conversation as people read them.

Each turn is one message of the user and one answer.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import Any, Literal
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel

from agent_server.api.parameters import Limit
from agent_server.audit import AuditRepository
from agent_server.calls.forms import gives_form
from agent_server.conversations.calls import read_calls, read_json
from agent_server.conversations.models import Item
from agent_server.conversations.notes import DATA, NOTES, Finish, finish_of
from agent_server.conversations.repository import ConversationRepository, ItemRepository
from agent_server.feedback.models import Feedback
from agent_server.feedback.repository import FeedbackRepository
from agent_server.http.auth import ReaderDep, ServerDep
from agent_server.results import tell_failure, tell_result
from agent_server.tool import Tool
from agent_server.turns.models import Turn
from agent_server.turns.repository import TurnRepository
from agent_server.web.render import render_blocks

router = APIRouter(tags=["conversations"])


@dataclass
class ToolUse:
    """A call of a tool in an answer. `text` is how its outcome reads, in Markdown; None where there is none yet."""

    call_id: str
    name: str
    input: Any
    output: Any = None
    error: str | None = None
    text: str | None = None


@dataclass
class ReadMessage:
    """A message with what belongs to it. `status` is its turn's. `reasoning` is what the model thought, `notes` what the
    reader should know, and `finish_reason` why the answer ends. `output` is the answer as data, where its agent answers
    with that."""

    id: str
    role: str
    text: str
    agent: str | None
    created_at: datetime
    status: str
    error: dict[str, Any] | None = None
    model: str | None = None
    prompt_sha: str | None = None
    prompt_version: str | None = None
    sources: list[dict[str, Any]] = field(default_factory=list)
    tools: list[ToolUse] = field(default_factory=list)
    reasoning: str = ""
    notes: list[dict[str, str]] = field(default_factory=list)
    finish_reason: Finish = "stop"
    output: Any = None


class MessagePage(BaseModel):
    """Messages with the oldest first."""

    items: list[dict[str, Any]]
    next_cursor: str | None


@router.get("/api/conversations/{conversation:path}/messages")
async def list_messages(
    conversation: str,
    caller: ReaderDep,
    server: ServerDep,
    limit: Limit = 100,
    cursor: str | None = None,
    render: Literal["html"] | None = None,
    replaced: bool = False,
) -> MessagePage:
    """The messages with the oldest first. With `render=html` answers are also given as sanitised HTML blocks.

    Each of an answer's `tools` has a `text`, which says its outcome in Markdown, and with `render=html` that as `html`.
    A call that gave a form has `sent`, whether it was sent since. An answer has the caller's `feedback` on it, or null.

    With `replaced` those are among them that were edited or answered anew; `replaced_by` is then the number of the turn
    that stands in their place.
    """
    async with server.database.transaction(caller.id) as session:
        conversations = ConversationRepository(session, caller)
        row = await conversations.get(conversation)
        page = await ItemRepository(conversations, row).page(limit, cursor, replaced=replaced)
        numbers = sorted({item.turn_no for item in page.items})
        turns = {turn.id: turn for turn in await TurnRepository(session, caller).list_by_number(row.id, numbers)}
        forms = _find_forms(page.items, server.workspace.tools)
        sent = await _find_sent(AuditRepository(session, caller), row.id, forms)
        feedback = await FeedbackRepository(session, caller).list_of(turns.keys())
    # Beside the event loop: a page may hold a hundred long answers and outputs of tools, and only its caller waits for it.
    html = render == "html"
    tools = server.workspace.tools
    items = await asyncio.to_thread(
        lambda: [_view(message, sent, html=html) for message in messages_of(page.items, turns, tools)]
    )
    for item in items:
        if item["role"] == "assistant":
            item["feedback"] = _show_feedback(feedback.get(UUID(item["id"])))
    if replaced:
        numbers_by_id = {str(turn.id): str(turn.turn_no) for turn in turns.values()}
        for item in items:
            item["replaced_by"] = row.replaced.get(numbers_by_id[item["id"].partition(".")[0]])
    return MessagePage(items=items, next_cursor=page.next_cursor)


def _view(message: ReadMessage, sent: Mapping[str, bool], *, html: bool) -> dict[str, Any]:
    tools = [{**vars(tool), **({"sent": sent[tool.call_id]} if tool.call_id in sent else {})} for tool in message.tools]
    view = {**vars(message), "tools": tools}
    if html:
        for tool in tools:
            tool["html"] = None if tool["text"] is None else "".join(render_blocks(tool["text"]))
    if html and message.role == "assistant":
        view["html"] = render_blocks(message.text, [source["n"] for source in message.sources])
    return view


def _show_feedback(row: Feedback | None) -> dict[str, Any] | None:
    return None if row is None else {"rating": row.rating, "comment": row.comment}


def _find_forms(items: Iterable[Item], tools: Mapping[str, Tool[..., Any]]) -> dict[str, tuple[str, datetime]]:
    """The forms that were given, by call: which tool each calls, and when it was given."""
    forms = {}
    for item in items:
        giver = tools.get(item.body.get("name", "")) if item.body.get("type") == "function_call" else None
        arguments = read_json(item.body["arguments"]) if giver is not None and gives_form(giver) else None
        if isinstance(arguments, dict):
            forms[item.body["call_id"]] = (str(arguments.get("tool")), item.created_at)
    return forms


async def _find_sent(
    audit: AuditRepository, conversation_id: UUID, forms: Mapping[str, tuple[str, datetime]]
) -> dict[str, bool]:
    """Whether each form was sent since it was given, by call."""
    if not forms:
        return {}
    # A form is sent by whoever filled it in, and its tool's own call is the only trace that every device can see.
    names, since = {name for name, _ in forms.values()}, min(at for _, at in forms.values())
    latest = await audit.find_latest(conversation_id, names, surface="rest", since=since)
    return {call: name in latest and latest[name] > at for call, (name, at) in forms.items()}


def messages_of(
    items: Iterable[Item], turns: Mapping[UUID, Turn], tools: Mapping[str, Tool[..., Any]]
) -> list[ReadMessage]:
    """The messages in `items`. These are in order, and their turns are `turns`; `tools` say how results read."""
    messages: list[ReadMessage] = []
    for turn_id, group in groupby(items, key=lambda item: item.turn_id):
        turn, of_turn = turns[turn_id], list(group)
        messages += [_read_question(item, turn) for item in of_turn if item.role == "user"]
        answer = _read_answer([item for item in of_turn if item.role != "user"], turn, tools)
        # One that has only begun has nothing to show yet. One that failed or was stopped shows why.
        if answer.text or answer.tools or turn.status in ("failed", "cancelled"):
            messages.append(answer)
    return messages


def _read_question(item: Item, turn: Turn) -> ReadMessage:
    return ReadMessage(
        id=f"{turn.id}.{item.k}",
        role="user",
        text=item.text or "",
        agent=None,
        created_at=item.created_at,
        status=turn.status,
    )


def _read_answer(items: Sequence[Item], turn: Turn, tools: Mapping[str, Tool[..., Any]]) -> ReadMessage:
    said = [item for item in items if item.role == "assistant"]
    last = said[-1] if said else None
    codes = dict.fromkeys(code for item in items for code in item.notes)
    # Several responses of a turn may cite the same passage.
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
        prompt_version=last.prompt_version if last else None,
        output=read_json(last.text) if last and DATA in last.notes else None,
        sources=[sources[n] for n in sorted(sources)],
        tools=_read_tools(items, tools),
        reasoning="\n\n".join(_read_thought(item) for item in items if item.body.get("type") == "reasoning"),
        notes=[{"code": code, "text": NOTES[code]} for code in codes if code in NOTES],
        finish_reason=finish_of(last.notes if last else ()),
    )


def _read_thought(item: Item) -> str:
    return "\n".join(part["text"] for part in item.body["summary"])


def _read_tools(items: Sequence[Item], tools: Mapping[str, Tool[..., Any]]) -> list[ToolUse]:
    uses = []
    for call in read_calls(items):
        use, tool = ToolUse(call.call_id, call.name, call.arguments, call.output, call.error), tools.get(call.name)
        if call.error is not None:
            use.text = tell_failure(use.name, tool, call.error)
        elif call.has_ended:
            use.text = tell_result(use.name, tool, use.output)
        uses.append(use)
    return uses
