"""The items of a request: what is stored of a conversation, as far as a model takes it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agents.models.chatcmpl_converter import Converter

from agent_server.charts.telling import tell_model
from agent_server.conversations.budget import count_request, cut_outputs, fit_budget
from agent_server.conversations.history import alternate
from agent_server.db import storable
from agent_server.models.lean.request import returns_thoughts

Body = dict[str, Any]


def fit(past: Sequence[Body], present: Sequence[Body], budgets: Iterable[int], longest_output: int) -> list[Body]:
    """The items that a model is given, which are within each of these budgets of tokens."""
    past, present = _cut(past, present, longest_output)
    for budget in budgets:
        past, present = fit_budget(past, present, budget)
    return alternate(past, present)


def fit_first(
    past: Sequence[Body], present: Sequence[Body], budget: int, longest_output: int, *, halve: bool
) -> tuple[list[Body], list[int]]:
    """The same, and the budgets that have left something out. With `halve` another one is half of what was left."""
    past, present = _cut(past, present, longest_output)
    budgets = []
    for n in range(1 + halve):
        if n:
            budget = count_request([*past, *present]) // 2
        before = [*past, *present]
        past, present = fit_budget(past, present, budget)
        if n or not _are_same(before, [*past, *present]):
            budgets.append(budget)
    return alternate(past, present), budgets


def _cut(past: Sequence[Body], present: Sequence[Body], longest: int) -> tuple[Sequence[Body], Sequence[Body]]:
    return cut_outputs(_tell_all(past), longest), cut_outputs(_tell_all(present), longest)


def _tell_all(bodies: Sequence[Body]) -> list[Body]:
    # What is stored is the data, which the page draws from. It would cost a model several times the tokens.
    return [_tell(body) for body in bodies]


def _tell(body: Body) -> Body:
    output = body.get("output")
    if not isinstance(output, str) or (told := tell_model(output)) is output:
        return body
    return {**body, "output": told}


def _are_same(before: Sequence[Body], after: Sequence[Body]) -> bool:
    return len(before) == len(after) and all(a is b for a, b in zip(before, after, strict=True))


def order_of(items: Iterable[Mapping[str, Any]]) -> str:
    """The kinds of items in their order, a letter each: u(ser), a(ssistant), t(hought), c(all), o(utput)."""
    return "".join(map(_kind_of, items))


def _kind_of(item: Mapping[str, Any]) -> str:
    letters = {"function_call": "c", "function_call_output": "o", "reasoning": "t"}
    return letters.get(item.get("type", ""), str(item.get("role"))[:1])


def list_present(rows: Iterable[Mapping[str, Any]], order: str, model: str) -> list[Body]:
    """The items of a turn as one of its requests had them, which is not the order in which they are stored: an output that
    was known with the answer itself stands beside its call there, and others come as their tools end.

    `model` is the one that was given back what it thought. Raises StopIteration where there are fewer items.
    """
    of_kind: dict[str, list[Body]] = {kind: [] for kind in "uatco"}
    for row in rows:
        of_kind[_kind_of(row)].append(dict(row))
    outputs = {body["call_id"]: body for body in of_kind["o"]}
    of_kind["o"] = [outputs[call["call_id"]] for call in of_kind["c"] if call["call_id"] in outputs]
    of_kind["t"] = [body | {"provider_data": {"model": model}} for body in of_kind["t"]]
    following = {kind: iter(bodies) for kind, bodies in of_kind.items()}
    return [next(following[kind]) for kind in order]


def as_stored(items: Iterable[Mapping[str, Any]]) -> list[Body]:
    """Items of the run loop as they are stored. What is thought and not said is left out there, too."""
    return [storable(body) for item in items if (body := _as_stored(item)) is not None]


def _as_stored(item: Mapping[str, Any]) -> Body | None:
    match item:
        case {"type": "function_call", "call_id": id, "name": name, "arguments": arguments}:
            return {"type": "function_call", "call_id": id, "name": name, "arguments": arguments}
        case {"type": "function_call_output", "call_id": id, "output": output}:
            return {"type": "function_call_output", "call_id": id, "output": output}
        case {"type": "reasoning"}:
            parts = item.get("summary") or item.get("content") or ()
            text = "\n".join(part["text"] for part in parts)
            return {"type": "reasoning", "summary": [{"type": "summary_text", "text": text}]} if text.strip() else None
        case {"role": "assistant", "content": list(parts)}:
            return {"role": "assistant", "content": "".join(part.get("text", "") for part in parts)}
        case _:
            return dict(item)


def write_messages(items: Sequence[Body], model: str) -> list[Any]:
    """The messages of Chat Completions that say these items."""
    given: Any = items
    return list(Converter.items_to_messages(given, model=model, should_replay_reasoning_content=returns_thoughts))
