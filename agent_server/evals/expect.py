"""What differs between an answer and what is expected of it, in one line each."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from agent_server.errors import cut
from agent_server.evals.answer import ToolCall
from agent_server.evals.ask import Reply
from agent_server.evals.format import Expected, ExpectedCall
from agent_server.wording import one_line

_LONGEST = 160
_REFUSES = re.compile(
    r"\b(?:I|we)(?:['’]m| am| are)? ?(?:can(?:not|['’]t| not)|won['’]t|will not|unable to|not able to|not allowed to|may not)\b"
    r"|\bdecline[ds]? to\b|\bnot something (?:I|we) can\b",
    re.IGNORECASE,
)
"""How an answer begins that refuses, in English."""


def list_differences(expected: Expected, reply: Reply, find_cost: Callable[[Reply], float | None]) -> Iterator[str]:
    """Each difference. `find_cost` gives US dollars, None where a price is not known."""
    answer = reply.answer
    if reply.failure is not None:
        yield f"the turn failed: {reply.failure}"
        return
    if expected.agent is not None and answer.agent != expected.agent:
        yield f"agent: {answer.agent} answered, expected {expected.agent}"
    yield from _compare_calls(expected, answer.calls)
    yield from _compare_citations(expected, [citation.document for citation in answer.citations])
    yield from _compare_text(expected, answer.text)
    if expected.refusal is not None and refuses(reply) != expected.refusal:
        yield f"refusal: {'it refuses' if not expected.refusal else 'it does not refuse'}: {_quote(answer.text)}"
    if expected.declined is not None and declines(reply) != expected.declined:
        what = "it answers" if expected.declined else "it cites nothing and no tool has given it a result"
        yield f"declined: {what}: {_quote(answer.text)}"
    yield from _compare_use(expected, reply, find_cost)


def refuses(reply: Reply) -> bool:
    """Whether the model or its provider refused, or the first sentence of the answer says that it cannot."""
    first = re.split(r"(?<=[.!?])\s", reply.answer.text.strip(), maxsplit=1)[0]
    return reply.finish == "content_filter" or _REFUSES.search(first) is not None


def declines(reply: Reply) -> bool:
    """Whether the answer rests on nothing: no citation and no result of a tool."""
    return not reply.answer.citations and not any(call.error is None for call in reply.answer.calls)


def _compare_calls(expected: Expected, made: Sequence[ToolCall]) -> Iterator[str]:
    wanted = () if expected.no_tool else expected.calls
    if expected.no_tool is False and not made:
        yield "calls: none, expected some"
    if wanted is None:
        return
    if not wanted:
        if made:
            yield f"calls: {_list(made)}, expected none"
        return
    if not _fits(wanted, made, expected.order):
        named = ", ".join(_describe(call) for call in wanted)
        yield f"calls: {_list(made)}, expected {named}{_ORDERS[expected.order]}"


_ORDERS = {"exact": "", "in_order": " (in this order)", "any_order": " (in any order)"}


def _fits(wanted: Sequence[ExpectedCall], made: Sequence[ToolCall], order: str) -> bool:
    if order == "exact":
        return len(wanted) == len(made) and all(_is(*pair) for pair in zip(wanted, made, strict=True))
    if order == "in_order":
        rest = iter(made)
        return all(any(_is(call, one) for one in rest) for call in wanted)
    return _assign(list(wanted), list(made))


def _assign(wanted: list[ExpectedCall], made: list[ToolCall]) -> bool:
    """Whether each wanted call is a made one of its own."""
    if not wanted:
        return True
    first, *rest = wanted
    return any(_is(first, call) and _assign(rest, made[:n] + made[n + 1 :]) for n, call in enumerate(made))


def _is(wanted: ExpectedCall, call: ToolCall) -> bool:
    given = call.arguments if isinstance(call.arguments, dict) else {}
    return (
        wanted.tool == call.name
        and (wanted.arguments is None or wanted.arguments == call.arguments)
        and all(name in given and given[name] == value for name, value in wanted.some_arguments.items())
    )


def _describe(call: ExpectedCall) -> str:
    if call.arguments is not None:
        return f"{call.tool} {_json(call.arguments)}"
    return f"{call.tool} with {_json(call.some_arguments)}" if call.some_arguments else call.tool


def _list(made: Sequence[ToolCall]) -> str:
    return ", ".join(f"{call.name} {_json(call.arguments)}" for call in made) or "none"


def _compare_citations(expected: Expected, cited: Sequence[str]) -> Iterator[str]:
    if expected.citations is None:
        return
    found = ", ".join(dict.fromkeys(cited)) or "none"
    if not expected.citations and cited:
        yield f"citations: {found}, expected none"
    if missing := [document for document in expected.citations if document not in cited]:
        yield f"citations: {found}, expected {', '.join(missing)}"


def _compare_text(expected: Expected, text: str) -> Iterator[str]:
    folded = text.casefold()
    for part in expected.contains:
        if part.casefold() not in folded:
            yield f"contains: {part!r} is not in {_quote(text)}"
    for part in expected.not_contains:
        if part.casefold() in folded:
            yield f"not_contains: {part!r} is in {_quote(text)}"
    for pattern in expected.matches:
        if re.search(pattern, text) is None:
            yield f"matches: {pattern!r} is not found in {_quote(text)}"
    for pattern in expected.not_matches:
        if found := re.search(pattern, text):
            yield f"not_matches: {pattern!r} is found: {_quote(found[0])}"


def _compare_use(expected: Expected, reply: Reply, find_cost: Callable[[Reply], float | None]) -> Iterator[str]:
    if expected.max_tokens is not None and reply.tokens > expected.max_tokens:
        yield f"max_tokens: {reply.tokens}, expected at most {expected.max_tokens}"
    if expected.max_seconds is not None and reply.seconds > expected.max_seconds:
        yield f"max_seconds: {reply.seconds:.2f}, expected at most {expected.max_seconds:g}"
    if expected.max_cost is not None:
        cost = find_cost(reply)
        if cost is None:
            yield f"max_cost: the price of {reply.usage.get('model')} is not known"
        elif cost > expected.max_cost:
            yield f"max_cost: {_dollars(cost)}, expected at most {_dollars(expected.max_cost)}"


def _dollars(amount: float) -> str:
    return "$" + f"{amount:.9f}".rstrip("0").rstrip(".")


def _quote(text: str) -> str:
    return repr(cut(one_line(text), _LONGEST))


def _json(value: Any) -> str:
    return cut(json.dumps(value, ensure_ascii=False), _LONGEST)
