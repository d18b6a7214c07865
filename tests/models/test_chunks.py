"""Pieces of calls and of characters, as servers send them, come out as the calls and the text that they are of."""

import itertools
import json
from collections.abc import AsyncGenerator
from types import SimpleNamespace as Namespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_server.models.chunks import Calls, Halves, repair
from agent_server.models.thoughts import Thoughts

NAMES = st.sampled_from(["create_task", "list_tasks", "search"])
VALUES = st.recursive(st.none() | st.integers() | st.text(max_size=9), lambda v: st.lists(v, max_size=3), max_leaves=4)
CALLS = st.lists(st.tuples(NAMES, st.dictionaries(st.text(max_size=5), VALUES, max_size=3)), min_size=1, max_size=5)
WAYS = st.fixed_dictionaries(
    {
        "index": st.sampled_from(["own", "same", "none"]),
        "id": st.sampled_from(["first", "each", "none"]),
        "name": st.sampled_from(["first", "each"]),
        "form": st.sampled_from(["text", "object"]),
    }
)


def _piece(index: int | None, id: str | None, name: str | None, arguments: Any) -> Any:
    return Namespace(index=index, id=id, function=Namespace(name=name, arguments=arguments))


def _sent(calls: list[tuple[str, dict[str, Any]]], way: dict[str, str], cuts: list[int]) -> list[Any]:
    """The pieces of calls as a server of this kind sends them, one call after the other."""
    pieces = []
    for n, (name, arguments) in enumerate(calls):
        text = json.dumps(arguments)
        places = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
        parts: list[Any] = [text[a:b] for a, b in itertools.pairwise(places)]
        if way["form"] == "object":
            parts = [arguments]
        for i, part in enumerate(parts):
            index = {"own": n, "same": 0, "none": None}[way["index"]]
            id = f"call_{n}" if way["id"] == "each" or (way["id"] == "first" and i == 0) else None
            pieces.append(_piece(index, id, name if i == 0 or way["name"] == "each" else None, part))
    return pieces


def _read(pieces: list[Any]) -> list[tuple[str, str]]:
    """The calls as the SDK puts them together: by index, with the last name and all arguments."""
    calls, read = Calls(), dict[int, str]()
    for piece in pieces:
        function = piece.function
        place, text = calls.place(piece.index, piece.id or "", function.name or "", function.arguments)
        read[place] = read.get(place, "") + text
    return [(calls.calls[place].name, arguments) for place, arguments in sorted(read.items())]


@given(CALLS, WAYS, st.lists(st.integers(1, 30), max_size=3))
def test_each_call_has_its_own_name_and_arguments_however_it_is_sent(
    calls: list[tuple[str, dict[str, Any]]], way: dict[str, str], cuts: list[int]
) -> None:
    read = _read(_sent(calls, way, cuts))
    assert [(name, json.loads(arguments)) for name, arguments in read] == calls


@given(st.lists(st.tuples(NAMES, st.dictionaries(st.text(max_size=5), VALUES)), min_size=2, max_size=4), st.randoms())
def test_pieces_of_several_calls_may_come_in_any_order_by_their_index(
    calls: list[tuple[str, dict[str, Any]]], random: Any
) -> None:
    queues = [
        [_piece(n, f"call_{n}", name, ""), *(_piece(n, None, None, sign) for sign in json.dumps(arguments))]
        for n, (name, arguments) in enumerate(calls)
    ]
    pieces = [queue.pop(0) for queue in queues]
    while left := [queue for queue in queues if queue]:
        pieces.append(random.choice(left).pop(0))
    assert [(name, json.loads(arguments)) for name, arguments in _read(pieces)] == calls


@pytest.mark.parametrize(
    ("pieces", "read"),
    [
        ([_piece(0, None, "a", ""), _piece(0, "x", None, "{}")], [("a", "{}")]),
        ([_piece(0, None, "a", ""), _piece(0, "x", "a", "{}")], [("a", "{}")]),
        ([_piece(0, "x", "create_", ""), _piece(0, None, "task", ""), _piece(0, None, None, "{}")], [("create_task", "{}")]),
        ([_piece(0, "x", "a", '{"b":'), _piece(0, "other", None, "1}")], [("a", '{"b":1}')]),
        ([_piece(0, "x", "a", '{"b":'), _piece(1, None, None, "1}")], [("a", '{"b":1}')]),
        ([_piece(0, "x", "a", '{"b":1}'), _piece(0, "x", "a", '{"b":1}')], [("a", '{"b":1}')]),
        ([_piece(0, "x", "a", '{"b":1}'), _piece(0, "x", "a", '{"b":2}')], [("a", '{"b":1}'), ("a", '{"b":2}')]),
        ([_piece(0, "x", "a", "{}"), _piece(0, None, None, None)], [("a", "{}")]),
        ([_piece(None, None, None, "{}")], [("", "{}")]),
    ],
    ids=[
        "the id comes later",
        "the id comes later with the name again",
        "the name comes in pieces",
        "each piece has an id of its own",
        "the rest has another index",
        "the whole call comes twice",
        "two calls have one id",
        "nothing follows",
        "no name ever",
    ],
)  # fmt: skip
def test_what_some_servers_send_is_read_as_it_was_meant(pieces: list[Any], read: list[tuple[str, str]]) -> None:
    assert _read(pieces) == read


@given(st.text(max_size=20), st.lists(st.integers(0, 40), max_size=6))
def test_a_character_that_comes_in_halves_arrives_as_one(text: str, cuts: list[int]) -> None:
    units = text.encode("utf-16-le", "surrogatepass")
    places = sorted({0, len(units), *(min(cut * 2, len(units)) for cut in cuts)})
    sent = [units[a:b].decode("utf-16-le", "surrogatepass") for a, b in itertools.pairwise(places)]
    halves = Halves()
    assert "".join(halves.join(part) for part in sent) == text


@given(st.lists(st.text(st.characters(), max_size=4) | st.text(st.characters(categories=["Cs"]), max_size=3)))
def test_what_comes_out_can_be_encoded(texts: list[str]) -> None:
    halves = Halves()
    for text in texts:
        halves.join(text).encode()


async def test_a_stream_is_put_right_in_place() -> None:
    async def stream() -> AsyncGenerator[Any]:
        yield Namespace(choices=[])
        yield Namespace(choices=[Namespace(delta=None)])
        for half in ("a \ud83d", "\ude00"):
            yield Namespace(choices=[Namespace(delta=Namespace(content=half, reasoning_content=half, tool_calls=None))])
        for n in range(2):
            pieces = [_piece(0, f"c{n}", "a", {"n": n})]
            yield Namespace(choices=[Namespace(delta=Namespace(content=None, tool_calls=pieces))])

    deltas = [choice.delta async for chunk in repair(stream(), Thoughts()) for choice in chunk.choices if choice.delta]
    assert [delta.content for delta in deltas] == ["a ", "\U0001f600", None, None]
    assert [delta.reasoning_content for delta in deltas[:2]] == ["a ", "\U0001f600"]
    pieces = [piece for delta in deltas for piece in delta.tool_calls or ()]
    assert [(piece.index, piece.function.arguments) for piece in pieces] == [(0, '{"n": 0}'), (1, '{"n": 1}')]
