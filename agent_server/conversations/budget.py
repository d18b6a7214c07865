"""How much of a conversation a model is given.

A request has a budget of tokens. Old turns are left out whole, the oldest first. The last question with its answer and
all of the present turn stay; where those alone are too much, their outputs of tools are cut, and then their texts.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

_ASCII_PER_TOKEN = 3.0
"""Characters of ASCII per token. Prose has about four in the tokenizers of today, JSON and code about three."""
_OVERHEAD = 8
"""Tokens around each item of a request: its role, ids and names of fields."""
_SHORTEST = 200
"""Characters that are left of a text in any case."""

Body = dict[str, Any]


def count_tokens(text: str) -> int:
    """About how many tokens a text is, rather too many than too few. A character that is not ASCII counts as one."""
    if text.isascii():
        return int(len(text) / _ASCII_PER_TOKEN) + 1
    plain = len(text.encode("ascii", "ignore"))
    return int(plain / _ASCII_PER_TOKEN) + 1 + len(text) - plain


def count_request(bodies: Sequence[Body]) -> int:
    """About how many tokens the items of a request are."""
    return sum(map(_count_body, bodies))


def cut_outputs(bodies: Sequence[Body], longest: int) -> list[Body]:
    """`bodies` with outputs of tools that have at most about `longest` characters."""
    return [_cut(body, longest) if "output" in body else body for body in bodies]


def fit_budget(past: Sequence[Body], present: Sequence[Body], budget: int) -> tuple[list[Body], list[Body]]:
    """What is given of the earlier turns and of the present one, of at most about `budget` tokens.

    `present` begins with the user's message, which is kept as it is.
    """
    turns = _split_turns(past)
    left = budget - count_request(present)
    first, last = len(turns), len(turns) - 1
    # Each turn is counted once: counting is most of the work.
    while first > 0 and (left := left - count_request(turns[first - 1])) >= 0:
        first -= 1
    kept = [body for turn in turns[max(min(first, last), 0) :] for body in turn]
    bodies = [*kept, *present]
    if left >= 0:
        return kept, list(present)
    for is_cut in (_is_output, _is_text):
        bodies = _shrink(bodies, budget, lambda n, body, is_cut=is_cut: n != len(kept) and is_cut(body))  # type: ignore[misc]  # a default binds it
    return bodies[: len(kept)], bodies[len(kept) :]


def _split_turns(bodies: Sequence[Body]) -> list[list[Body]]:
    """`bodies` by the messages of the user's that begin them."""
    turns: list[list[Body]] = []
    for body in bodies:
        if body.get("role") == "user" or not turns:
            turns.append([])
        turns[-1].append(body)
    return turns


def _shrink(bodies: list[Body], budget: int, may_cut: Callable[[int, Body], bool]) -> list[Body]:
    """`bodies` with texts cut to one length, the longest at which all fit into the budget."""
    if count_request(bodies) <= budget:
        return bodies

    def cut_to(longest: int) -> list[Body]:
        return [_cut(body, longest) if may_cut(n, body) else body for n, body in enumerate(bodies)]

    low, high = _SHORTEST, max((len(_text_of(body)) for body in bodies), default=0)
    while low < high:
        middle = (low + high + 1) // 2
        if count_request(cut_to(middle)) <= budget:
            low = middle
        else:
            high = middle - 1
    return cut_to(low)


def _is_output(body: Body) -> bool:
    return "output" in body


def _is_text(body: Body) -> bool:
    return isinstance(body.get("content"), str)


def _text_of(body: Body) -> str:
    for name in ("content", "output"):
        if isinstance(text := body.get(name), str):
            return text
    return ""


def _cut(body: Body, longest: int) -> Body:
    text = _text_of(body)
    if len(text) <= longest:
        return body
    head = longest * 2 // 3
    left_out = f"\n[... {len(text) - longest:,} characters are left out here ...]\n"
    name = "output" if "output" in body else "content"
    return {**body, name: text[:head] + left_out + text[len(text) - (longest - head) :]}


def _count_body(body: Body) -> int:
    text = _text_of(body)
    rest = {
        key: value for key, value in body.items() if key not in ("content", "output", "id", "status", "provider_data")
    }
    if not text and (other := body.get("content") or body.get("output")):
        rest["content"] = other
    return (
        _OVERHEAD
        + (count_tokens(text) if text else 0)
        + count_tokens(json.dumps(rest, default=str, ensure_ascii=False))
    )
