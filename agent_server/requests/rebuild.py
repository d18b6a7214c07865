"""Makes the requests of a stored turn again, as they were sent."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from agent_server.conversations.history import OF_EARLIER_TURNS, OF_TURN, history
from agent_server.db import Executor
from agent_server.errors import NotFound
from agent_server.models.lean.request import fill_body
from agent_server.requests.fit import Body, fit, list_present, order_of
from agent_server.requests.instructions import Section, Told, ToldPassage, list_sections
from agent_server.requests.recipe import date_of
from agent_server.requests.sources import render_source
from agent_server.turns.requests import KEY_LENGTH, STORED, TEXTS, Recipe, began_at, expand, key_of


@dataclass(frozen=True, kw_only=True)
class SentRequest:
    """A request as it was sent. `body` is the JSON of it, `model` as its provider calls it and `provider` with the
    provider's name; `order` are the kinds of the turn's own items in it (`fit.order_of`).

    `is_exact` says whether the body has the hash that was stored as it was sent; it is None where the client of that
    provider does not tell what it sends.
    """

    no: int
    agent: str
    prompt_sha: str
    provider: str
    model: str
    told: Told
    sections: Sequence[Section]
    items: Sequence[Body]
    body: bytes
    is_exact: bool | None
    order: str
    sent_at: float | None = None
    seconds: float | None = None
    first_text_seconds: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    ranked: Sequence[tuple[str, float]] = ()

    @property
    def instructions(self) -> str:
        return "".join(section.text for section in self.sections)


class _Row(NamedTuple):
    """An item of the turn itself."""

    role: str | None
    model: str | None
    body: Body


@dataclass(frozen=True)
class _Stored:
    """What is stored that the requests of a turn are made of."""

    began: float
    present: Sequence[Any]
    past: Sequence[Any]
    texts: Mapping[str, str]


async def rebuild_requests(session: Executor, owner_id: UUID, turn_id: UUID) -> list[SentRequest]:
    """Every request of a turn whose answer was stored, in order. Raises NotFound, also where they are past retention."""
    key = {"owner_id": owner_id, "id": turn_id}
    turn = (await session.execute(STORED, key)).one_or_none()
    if turn is None:
        raise NotFound(f"There is no turn {turn_id}")
    if not turn.calls_kept:
        raise NotFound("What models were sent for this turn is past AGENT_SERVER_CALL_HOURS; ask for a later one")
    recipes = expand(turn.requests)
    values: dict[str, Any] = {
        "owner_id": owner_id,
        "conversation_id": turn.conversation_id,
        "turn_no": turn.turn_no,
    }
    present = (await session.execute(OF_TURN, values)).all()
    past = await _read_past(session, values, recipes.values())
    keys = {key for recipe in recipes.values() for key in _list_keys(recipe)}
    texts = {row.key: row.text for row in await session.execute(TEXTS, {**values, "keys": sorted(keys)})}
    if missing := keys - texts.keys():
        raise NotFound(f"{len(missing)} texts of what models were sent for this turn are past retention")
    stored = _Stored(began_at(turn_id), present, past, texts)
    return [_rebuild(recipe, stored) for _, recipe in sorted(recipes.items())]


async def rebuild_unsent(
    session: Executor, owner_id: UUID, conversation_id: UUID, turn_id: UUID, turn_no: int, message: str, recipe: Recipe
) -> SentRequest:
    """The first request of a turn that is not stored, with this message."""
    values = {"owner_id": owner_id, "conversation_id": conversation_id, "turn_no": turn_no}
    past = await _read_past(session, values, [recipe.fields])
    present = [_Row("user", None, {"role": "user", "content": message})]
    return _rebuild(recipe.fields, _Stored(began_at(turn_id), present, past, {**recipe.shared, **recipe.own}))


async def _read_past(
    session: Executor, values: Mapping[str, Any], recipes: Iterable[Mapping[str, Any]]
) -> Sequence[Any]:
    firsts = [recipe["h"][0] for recipe in recipes if "h" in recipe]
    return (await session.execute(OF_EARLIER_TURNS, {**values, "first": min(firsts)})).all() if firsts else []


def calls_of_items(bodies: Sequence[tuple[int, Body]], requests: Sequence[SentRequest]) -> dict[int, int]:
    """Which model call made each item of a turn, by the items' numbers. `bodies` are what models said and called, in
    order."""
    made: dict[int, int] = {}
    seen = {"a": 0, "c": 0}
    thoughts: list[int] = []
    for k, body in bodies:
        if (kind := order_of([body])) == "t":
            thoughts.append(k)
            continue
        # Made by the last call that was not given it yet.
        before = [request.no for request in requests if request.order.count(kind) <= seen[kind]]
        seen[kind] += 1
        if before:
            made.update(dict.fromkeys([*thoughts, k], before[-1]))
        thoughts = []
    return made


def _list_keys(recipe: Mapping[str, Any]) -> list[str]:
    return [recipe[name] for name in "fpvseal" if name in recipe] + _keys_of_passages(recipe)


def _keys_of_passages(recipe: Mapping[str, Any]) -> list[str]:
    keys: str = recipe.get("c", "")
    return [keys[start : start + KEY_LENGTH] for start in range(0, len(keys), KEY_LENGTH)]


def _rebuild(recipe: Mapping[str, Any], stored: _Stored) -> SentRequest:
    frame = json.loads(stored.texts[recipe["f"]])
    empty = frame["body"].encode()
    model = json.loads(empty)["model"]
    told = _read_told(recipe, stored, frame["prompt"].get("shape"))
    sections = list_sections(render_source(frame["prompt"], told), told, frame["rules"])
    present = _find_present(recipe, stored, model)
    items = fit(_find_past(recipe, stored), present, recipe.get("b", ()), frame["longest_output"])
    body = fill_body(empty, "".join(section.text for section in sections), items)  # type: ignore[arg-type]  # as stored
    (sent, *took), tokens = recipe["t"], recipe.get("u") or (None, None)
    return SentRequest(
        no=recipe["n"],
        agent=frame["prompt"]["name"],
        prompt_sha=frame["prompt"]["sha"],
        provider=frame["provider"],
        model=model,
        told=told,
        sections=sections,
        items=items,
        body=body,
        is_exact=key_of(body) == recipe["x"] if "x" in recipe else None,
        order=recipe.get("o", "u"),
        sent_at=stored.began + sent / 1000,
        seconds=took[0] / 1000 if took else None,
        first_text_seconds=took[1] / 1000 if took and took[1] is not None else None,
        input_tokens=tokens[0],
        output_tokens=tokens[1],
        ranked=[(name, confidence) for name, confidence in recipe.get("r", ())],
    )


def _read_told(recipe: Mapping[str, Any], stored: _Stored, shape: Mapping[str, Any] | None) -> Told:
    texts = stored.texts
    found = {name: texts[recipe[name]] for name in "pvsea" if name in recipe}
    passages = None
    if "c" in recipe:
        keys = _keys_of_passages(recipe)
        numbers = recipe.get("i") or range(1, len(keys) + 1)
        passages = [ToldPassage(n, *json.loads(texts[key])) for n, key in zip(numbers, keys, strict=True)]
    return Told(
        today=recipe.get("d") or date_of(stored.began, recipe["t"]),
        profile=json.loads(found.get("p", "{}")),
        inputs=json.loads(found.get("v", "{}")),
        summary=found.get("s"),
        emergency=found.get("e"),
        about=json.loads(found["a"]) if "a" in found else None,
        passages=passages,
        shape=shape,
    )


def _find_present(recipe: Mapping[str, Any], stored: _Stored, model: str) -> list[Body]:
    """What the request had of its own turn."""
    if "l" in recipe:
        return list(json.loads(stored.texts[recipe["l"]]))
    rows = list(stored.present)
    if "e" in recipe:
        # The advice comes before the first call and is in the instructions.
        advice = next((n for n, row in enumerate(rows) if row.role == "assistant" and row.model is None), None)
        rows = [row for n, row in enumerate(rows) if n != advice]
    return list_present([row.body for row in rows], recipe.get("o", "u"), model)


def _find_past(recipe: Mapping[str, Any], stored: _Stored) -> list[Body]:
    """What the request had of earlier turns."""
    if "h" not in recipe:
        return []
    first, *gaps = recipe["h"]
    return history(
        [row for row in stored.past if row.turn_no >= first and not any(a <= row.turn_no <= b for a, b in gaps)]
    )
