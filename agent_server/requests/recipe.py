"""The recipe of a request: what is stored of it, so that it can be made again (`turns.requests` has the fields).

What a request has in common with all others of its agent is a text of its own, the frame: the prompt's source, the
server's rules, and the body of the request without messages. Nothing of it is looked up later: prompts, rules, tools and
pages may have changed since.
"""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice, pairwise
from typing import Any
from uuid import UUID

from agents.agent_output import AgentOutputSchemaBase
from agents.handoffs import Handoff
from agents.model_settings import ModelSettings
from agents.models.interface import Model
from agents.tool import Tool
from openai.types.responses import ResponseUsage

from agent_server.models.providers import Models
from agent_server.prompts import AgentPrompt
from agent_server.requests.fit import Body, as_stored, fit, list_present, order_of, write_messages
from agent_server.requests.instructions import RULES, Told
from agent_server.requests.sources import source_of
from agent_server.turns.requests import Recipe, began_at, key_of

_MOST_FRAMES = 1000
_MOST_RANKED = 3


@dataclass(frozen=True)
class Frame:
    """A frame, and the key that it is stored under. `model` is as its provider calls it."""

    key: str
    text: str
    model: str


@dataclass(frozen=True)
class Asked:
    """Who asks which model, and with what beside instructions and messages. `name` has the provider's in it."""

    agent: str
    name: str
    model: Model
    settings: ModelSettings
    tools: list[Tool]
    schema: AgentOutputSchemaBase | None
    handoffs: list[Handoff[Any, Any]]


def date_of(began: float, times: Sequence[int]) -> str:
    """The day (UTC) on which a request was sent."""
    return datetime.fromtimestamp(began + times[0] / 1000, UTC).date().isoformat()


class Frames:
    """The frames of this process. That of an agent is written down once. `longest_output` is how long outputs of tools
    may be in a request, characters."""

    def __init__(self, longest_output: int) -> None:
        self.longest_output = longest_output
        self._found: dict[tuple[str, str, str, bytes], tuple[ModelSettings, Frame]] = {}

    def get(self, models: Models, prompt: AgentPrompt, asked: Asked) -> Frame:
        """The frame of an agent's requests."""
        key = (prompt.name, prompt.sha, asked.name, models.tool_sets.write(asked.tools, asked.handoffs))
        settings, frame = self._found.get(key, (None, None))
        if frame is None or settings != asked.settings:
            if len(self._found) >= _MOST_FRAMES:
                self._found.clear()
            frame = self._write(models, prompt, asked)
            self._found[key] = (asked.settings, frame)
        return frame

    def _write(self, models: Models, prompt: AgentPrompt, asked: Asked) -> Frame:
        empty = models.write_empty(asked.model, asked.name, asked.settings, asked.tools, asked.schema, asked.handoffs)
        frame = {
            "prompt": source_of(prompt),
            "rules": RULES,
            "longest_output": self.longest_output,
            "provider": asked.name,
            "body": empty.decode(),
        }
        text = json.dumps(frame, ensure_ascii=False)
        return Frame(key_of(text), text, json.loads(empty)["model"])


class Sent:
    """The recipe of the request that is under way. `note` has it stored."""

    def __init__(self, turn_id: UUID, note: Callable[[Recipe], None]) -> None:
        self._began, self._note = began_at(turn_id), note
        self._recipe, self._at = Recipe(fields={}), 0.0

    def begin(self, recipe: Recipe) -> None:
        """Have the recipe of a request stored that is sent now."""
        self._recipe, self._at = recipe, time.time()
        recipe.fields["t"] = [round((self._at - self._began) * 1000)]
        if recipe.fields["d"] == date_of(self._began, recipe.fields["t"]):
            del recipe.fields["d"]
        self._note(recipe)

    def add_body(self, body: bytes) -> None:
        """Add the hash of what was sent."""
        self._recipe.fields["x"] = key_of(body)

    def add_ranked(self, ranked: Iterable[tuple[str, float]]) -> None:
        """Add the agents that the message was compared with, the likeliest first."""
        likely = ([name, round(confidence, 2)] for name, confidence in islice(ranked, _MOST_RANKED))
        self._recipe.fields["r"] = [each for n, each in enumerate(likely) if not n or each[1]]

    def add_answer(self, usage: ResponseUsage | None, first_at: float | None) -> None:
        """Add how long the answer took and its tokens. `first_at` is when its first words came (`time.time`)."""
        taken = [at if at is None else round((at - self._at) * 1000) for at in (time.time(), first_at)]
        self._recipe.fields["t"][1:] = taken
        if usage is not None:
            self._recipe.fields["u"] = [usage.input_tokens, usage.output_tokens]


@dataclass(frozen=True, kw_only=True)
class Given:
    """The items of a request. `past` are those of the turns with the numbers `earlier`, `present` those of its own turn,
    which has the number `turn_no`; `budgets` are those that something was left out for. `is_apart` says that some of the
    present are not stored, or may be stored in other words."""

    past: Sequence[Body]
    present: Sequence[Body]
    earlier: Sequence[int]
    turn_no: int
    budgets: Sequence[int] = ()
    is_apart: bool = False


def make_recipe(n: int, frame: Frame, told: Told, given: Given, longest_output: int) -> Recipe:
    """The recipe of the request of model call `n`."""
    shared, own = {frame.key: frame.text}, dict[str, str]()
    fields: dict[str, Any] = {"n": n, "f": frame.key, "d": told.today}
    for name, text, texts in (
        ("p", json.dumps(told.profile, ensure_ascii=False) if told.profile else None, own),
        ("v", json.dumps(told.inputs, ensure_ascii=False) if told.inputs else None, own),
        ("s", told.summary, own),
        ("e", told.emergency, shared),
        ("a", json.dumps(told.about, ensure_ascii=False) if told.about else None, shared),
    ):
        if text:
            fields[name] = key_of(text)
            texts[fields[name]] = text
    if told.passages is not None:
        passages = {p.n: json.dumps([p.heading, p.text], ensure_ascii=False) for p in told.passages}
        keys = [key_of(text) for text in passages.values()]
        shared.update(zip(keys, passages.values(), strict=True))
        fields["c"] = "".join(keys)
        if list(passages) != list(range(1, len(passages) + 1)):
            fields["i"] = list(passages)
    if given.past:
        fields["h"] = _describe_past(given)
    if given.budgets:
        fields["b"] = list(given.budgets)
    if len(given.present) > 1:
        _describe_present(fields, own, frame.model, given, longest_output)
    return Recipe(fields=fields, shared=shared, own=own)


def _describe_past(given: Given) -> list[Any]:
    """The first turn, and from where to where turns are left out."""
    known = [*given.earlier, given.turn_no]
    gaps = [[a + 1, b - 1] for a, b in pairwise(known) if b > a + 1]
    return [known[0], *gaps]


def _describe_present(
    fields: dict[str, Any], own: dict[str, str], model: str, given: Given, longest_output: int
) -> None:
    """Say what a request has of its own turn: so many of the items that are stored, where they say the same."""
    # Without a budget the earlier turns are the same either way.
    whole = given if given.budgets else replace(given, past=())
    items = fit(whole.past, whole.present, whole.budgets, longest_output)
    stored = as_stored(given.present)
    order = order_of(stored)
    # What was thought is given back to few models.
    orders = () if given.is_apart else (order.replace("t", ""), order)
    for short in dict.fromkeys(orders):
        again = fit(whole.past, list_present(stored, short, model), whole.budgets, longest_output)
        if write_messages(again, model) == write_messages(items, model):
            fields["o"] = short
            return
    text = json.dumps(given.present, ensure_ascii=False)
    fields |= {"l": key_of(text), "o": order}
    own[fields["l"]] = text
