"""Stored items -> what a model is given of the earlier turns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import TextClause, text

from agent_server.conversations.items import BODY
from agent_server.model_calls import clean_arguments, clean_name

_LATEST = f"""
    select i.turn_no, {BODY} as body from item i
    where i.owner_id = c.owner_id and i.conversation_id = c.id and i.turn_no < :before
      and i.turn_no > coalesce(cast(c.summary ->> 'until' as int), 0)
      and not jsonb_exists(c.replaced, cast(i.turn_no as text))
    order by i.turn_no desc, i.k desc"""  # noqa: S608  # SQL of our own


class Said(Protocol):
    """An item, as far as a model is given it."""

    @property
    def body(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Entry:
    """An item of an earlier turn."""

    turn_no: int
    body: dict[str, Any]


def conversation_statement(**more: str) -> TextClause:
    """A statement that reads the conversation `:id` of `:owner_id` up to the turn `:before`, and scalars of other tables
    by their names. Its `latest` are items for `cut_latest`, one more than `:most`."""
    scalars = "".join(f", {query} as {name}" for name, query in more.items())
    return text(f"""
        select c.agent, c.summary, c.replaced{scalars},
            (select json_agg(json_build_array(l.turn_no, l.body)) from ({_LATEST} limit :most + 1) l) as latest
        from conversation c where c.owner_id = :owner_id and c.id = :id""")  # noqa: S608  # SQL of our own


ALL_OF_LATEST = text(f"""
    select l.turn_no, l.body from conversation c cross join lateral ({_LATEST}) l
    where c.owner_id = :owner_id and c.id = :id and l.turn_no >= :first""")  # noqa: S608  # SQL of our own
"""The same items from the turn `:first` on, the last one first."""


OF_TURN = text(f"""
    select i.k, i.role, i.model, {BODY} as body from item i
    where i.owner_id = :owner_id and i.conversation_id = :conversation_id and i.turn_no = :turn_no order by i.k""")  # noqa: S608  # SQL of our own
"""All items of a turn in order."""
OF_EARLIER_TURNS = text(f"""
    select i.turn_no, {BODY} as body from item i
    where i.owner_id = :owner_id and i.conversation_id = :conversation_id and i.turn_no >= :first
      and i.turn_no < :turn_no order by i.turn_no, i.k""")  # noqa: S608  # SQL of our own
"""All items from one turn to before another one, in order."""
SOURCES_OF_EARLIER_TURNS = text("""
    select s.source from item i cross join lateral jsonb_array_elements(i.sources) s(source)
    where i.owner_id = :owner_id and i.conversation_id = :conversation_id and i.turn_no >= :first
      and i.turn_no < :turn_no order by i.turn_no, i.k""")
"""What the answers of those turns cite."""


def cut_latest(latest: Sequence[tuple[int, dict[str, Any]]], most: int) -> list[Entry] | None:
    """The items of whole turns in their order, at most so many. None where the last turn alone has more."""
    rows = [Entry(turn_no, body) for turn_no, body in latest]
    if len(rows) > most:
        if (cut := rows[most].turn_no) == rows[0].turn_no:
            return None
        rows = [row for row in rows if row.turn_no > cut]
    return rows[::-1]


def history(items: Sequence[Said]) -> list[dict[str, Any]]:
    """The bodies of `items` that a model can be given, in order.

    A call without its output and an output without its call are left out. The history starts with a user's message.
    """
    open: dict[str, int] = {}
    paired: set[int] = set()
    for n, item in enumerate(items):
        match item.body:
            case {"type": "function_call", "call_id": id}:
                open[id] = n
            case {"type": "function_call_output", "call_id": id} if id in open:
                paired |= {open.pop(id), n}  # by place: some models use the same ids in every answer
    # Providers refuse one without the other. Both occur: where the bound on history cuts a turn in two, and where a
    # turn was stopped between a call and its result.
    kept = [
        _clean(item.body)
        for n, item in enumerate(items)
        # What was thought in an earlier turn helps no model, and only its own would understand it.
        if item.body.get("type") != "reasoning" and ("call_id" not in item.body or n in paired)
    ]
    # The bound may also have cut off the user's message, and providers refuse a history without it at the start.
    first = next((n for n, body in enumerate(kept) if body.get("role") == "user"), len(kept))
    return _calls_first(kept[first:])


def _calls_first(bodies: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """`bodies` with the calls of an answer before all of their outputs and nothing between. Each call has its output."""
    # An output that was known with the answer itself is stored beside its call, and others of that answer come later.
    # Providers refuse a call between another one and its output.
    ordered: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    outputs: dict[str, dict[str, Any]] = {}
    for body in bodies:
        if body.get("type") == "function_call_output":
            outputs[body["call_id"]] = body
            continue
        if len(calls) == len(outputs):
            ordered += _pair(calls, outputs)
            calls, outputs = [], {}
        (calls if body.get("type") == "function_call" else ordered).append(body)
    return [*ordered, *_pair(calls, outputs)]


def _pair(calls: Sequence[dict[str, Any]], outputs: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    # In the order of the calls: those that run side by side end in any order.
    return [*calls, *(outputs[call["call_id"]] for call in calls)]


UNANSWERED = "(interrupted)"
"""What a model is given as its answer where it gave none: the turn failed or was stopped, or another message came in."""


def alternate(past: Sequence[dict[str, Any]], present: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The items of earlier turns and of the present one with messages of the user and of the assistant by turns.

    The templates of Mistral, Gemma and others refuse anything else, with every later request of the conversation.
    """
    spoken: list[dict[str, Any]] = []
    role = "assistant"  # whose turn to speak has passed
    for n, body in enumerate([*past, *present]):
        before = spoken[-1] if spoken else {}
        match body.get("role"):
            case "user" if role == "user" and before.get("role") == "user" and before == body:
                continue  # the question of a turn that failed, asked again
            case "user" if n > len(past) and before.get("role") == "user" and _are_texts(before, body):
                spoken[-1] = _join(before, body)  # several that were put into the turn
                continue
            case "user" if role == "user":
                spoken.append({"role": "assistant", "content": UNANSWERED})
            case "assistant" if before.get("role") == "assistant" and _are_texts(before, body):
                spoken[-1] = _join(before, body)
                continue
        # Words beside a call are no answer: templates do not count them.
        role = "user" if body.get("type") == "function_call" else body.get("role") or role
        spoken.append(body)
    return spoken


def _join(before: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    return {**before, "content": f"{before['content'].rstrip()}\n\n{body['content']}"}


def _are_texts(*bodies: dict[str, Any]) -> bool:
    return all(isinstance(body.get("content"), str) for body in bodies)


def _clean(body: dict[str, Any]) -> dict[str, Any]:
    """A body that every provider accepts. Those of earlier versions hold calls as their models wrote them."""
    if "call_id" not in body:
        return body
    clean = {**body, "call_id": clean_name(body["call_id"])}
    if body.get("type") == "function_call":
        name = clean_name(body["name"])
        clean |= {"name": name, "arguments": clean_arguments(name, body["arguments"])}
    return clean
