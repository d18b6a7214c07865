"""What is stored of the requests to models, in few bytes: with the turn, and each text once.

The recipe of a request is in `turn.requests`, in the order of writing, with semicolons between: `n1 fkNq0v2aX t12,840,310`.
As such text it is a third of what Postgres makes of JSON. It names texts by a part of their hash: those of the workspace
are in `shared_text`, those that hold words of the owner's in `conversation_text`.

    n     the number of the model call; of two recipes for one call the later one counts
    f     shared: the agent, its prompt, the server's rules, and the request without messages (`requests.recipe`)
    d     the date that the agent was told, where it is not that of `t`
    p v s the conversation's: the profile, the inputs of the request, and the summary of what was said before
    e a   shared: the emergency advice that had been shown, and what the assistant says of itself
    c i   shared: the passages in their order, all keys as one text; the number of each, where these are not 1, 2, 3 ...
    h     the first earlier turn, and the numbers from and to which others were left out
    o     the kinds of the turn's own items (`requests.fit.order_of`), where these are not the message alone
    l     the conversation's: the items of the turn, where those that are stored say it in other words
    b     the budgets of tokens that something was left out for
    x     a part of the hash of the body as it was sent
    t u   when it was sent, in milliseconds after the turn's id, and how long the answer and its first words took; the
          tokens in and out
    r     of the first request: the agents that the message was compared with, the likeliest first

A recipe without `f` is as the one before but for what it names.
"""

import base64
import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import text

from agent_server.db import Database, Executor

KEY_LENGTH = 8
"""Characters of the name of a text."""
REMEMBER_SECONDS = 86_400.0
"""For so long a process does not store a text again. What is not stored again for a day longer than calls are kept is
removed."""
_MOST_REMEMBERED = 20_000
_LISTS = frozenset("ihbtur")
"""Fields that are lists. Their values have no space and no semicolon."""
_ITS_OWN = frozenset({"n", "x", "t", "u", "r"})
"""What a recipe never has from the one before."""

STORED = text("""
    select conversation_id, turn_no, calls_kept, requests from turn where owner_id = :owner_id and id = :id""")
"""The recipes of a turn, and where it stands."""
TEXTS = text("""
    select key, text from shared_text where key = any(cast(:keys as text[]))
    union all
    select key, text from conversation_text
    where owner_id = :owner_id and conversation_id = :conversation_id and key = any(cast(:keys as text[]))""")
"""The texts that recipes name."""
_STORE_SHARED = text("""
    insert into shared_text (key, text, used_at) select t.key, t.text, now()
    from unnest(cast(:keys as text[]), cast(:texts as text[])) t(key, text) order by t.key
    on conflict (key) do update set used_at = excluded.used_at""")
_STORE_OWN = text("""
    insert into conversation_text (owner_id, conversation_id, key, text)
    select :owner_id, :conversation_id, t.key, t.text
    from unnest(cast(:keys as text[]), cast(:texts as text[])) t(key, text) order by t.key
    on conflict (owner_id, conversation_id, key) do nothing""")


def began_at(turn_id: UUID) -> float:
    """When a turn's id was made (`time.time`)."""
    return (turn_id.int >> 80) / 1000


def key_of(text: str | bytes) -> str:
    """The name that a text is stored under: 48 bits of its hash. Where two texts had the same, the hash of a request that
    is made again would tell."""
    data = text if isinstance(text, bytes) else text.encode()
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()[:6]).decode()


@dataclass(kw_only=True)
class Recipe:
    """What a request is made again from. `fields` are those above; `shared` and `own` are the texts that it names."""

    fields: dict[str, Any]
    shared: Mapping[str, str] = field(default_factory=dict)
    own: Mapping[str, str] = field(default_factory=dict)


class KnownTexts:
    """The texts of which this process knows that they are stored."""

    def __init__(self) -> None:
        self._until: dict[tuple[UUID | None, str], float] = {}

    def find_new(self, place: UUID | None, texts: Mapping[str, str]) -> dict[str, str]:
        """Those of `texts` that are to be stored: in this conversation, or with None for all."""
        now = time.monotonic()
        return {key: text for key, text in texts.items() if self._until.get((place, key), 0.0) <= now}

    def add(self, place: UUID | None, texts: Mapping[str, str]) -> None:
        """Note that these are stored."""
        if len(self._until) + len(texts) > _MOST_REMEMBERED:
            self._until.clear()
        until = time.monotonic() + REMEMBER_SECONDS
        self._until.update({(place, key): until for key in texts})


class SentRequests:
    """The recipes of one attempt until they are written, with the responses that they led to or the end of the turn."""

    def __init__(self, database: Database, owner_id: UUID, conversation_id: UUID, known: KnownTexts) -> None:
        self._database, self._owner_id, self._conversation_id, self._known = database, owner_id, conversation_id, known
        self._waiting: dict[int, Recipe] = {}
        self._last: dict[str, Any] = {}

    def note(self, recipe: Recipe) -> None:
        """Have the recipe of a request written. It may be completed until the answer has come."""
        self._waiting[recipe.fields["n"]] = recipe

    async def begin(self, last: int | None) -> "Written":
        """What is to be written of the requests up to a model call, or of all. Texts that all share are stored already.

        Raises Unavailable."""
        taken = {n: recipe for n, recipe in sorted(self._waiting.items()) if last is None or n <= last}
        shared = {key: text for recipe in taken.values() for key, text in recipe.shared.items()}
        if new := self._known.find_new(None, shared):
            await self._database.single(_STORE_SHARED, {"keys": list(new), "texts": list(new.values())})
            self._known.add(None, new)
        own = {key: text for recipe in taken.values() for key, text in recipe.own.items()}
        return Written(self, taken, self._known.find_new(self._conversation_id, own))

    async def store_own(self, session: Executor, own: Mapping[str, str]) -> None:
        """Store texts of the conversation."""
        if own:
            values = {"owner_id": self._owner_id, "conversation_id": self._conversation_id}
            await session.execute(_STORE_OWN, {**values, "keys": list(own), "texts": list(own.values())})

    def shorten(self, recipes: Mapping[int, Recipe]) -> list[dict[str, Any]]:
        """The recipes as they are stored."""
        last, short = self._last, []
        for recipe in recipes.values():
            lasting = {name: value for name, value in recipe.fields.items() if name not in _ITS_OWN}
            is_whole = lasting.get("f") != last.get("f") or not last.keys() <= lasting.keys()
            short.append(
                {n: v for n, v in recipe.fields.items() if is_whole or n in _ITS_OWN or last.get(n, self) != v}
            )
            last = lasting
        return short

    def forget(self, recipes: Mapping[int, Recipe], own: Mapping[str, str]) -> None:
        """Note that these are written."""
        self._known.add(self._conversation_id, own)
        for n, recipe in recipes.items():
            if self._waiting.get(n) is recipe:
                del self._waiting[n]
            self._last = {name: value for name, value in recipe.fields.items() if name not in _ITS_OWN}


@dataclass(frozen=True)
class Written:
    """Recipes that go with one write, and the texts of the conversation's that are new."""

    requests: SentRequests
    recipes: Mapping[int, Recipe]
    own: Mapping[str, str]

    def spell(self) -> str:
        """The parameter `requests` of the write."""
        return spell(self.requests.shorten(self.recipes))

    async def store(self, session: Executor) -> None:
        """Store the texts in the transaction of the write."""
        await self.requests.store_own(session, self.own)

    def forget(self) -> None:
        """Note that the write is committed."""
        self.requests.forget(self.recipes, self.own)


def spell(recipes: Iterable[Mapping[str, Any]]) -> str:
    """Recipes as they are stored."""
    return ";".join(" ".join(map(_spell_field, recipe.items())) for recipe in recipes)


def _spell_field(field: tuple[str, Any]) -> str:
    name, value = field
    return name + (json.dumps(value, ensure_ascii=False, separators=(",", ":"))[1:-1] if name in _LISTS else str(value))


def _read_field(spelt: str) -> tuple[str, Any]:
    name, value = spelt[0], spelt[1:]
    return name, json.loads(f"[{value}]") if name in _LISTS else int(value) if name == "n" else value


def expand(stored: str | None) -> dict[int, dict[str, Any]]:
    """The fields of each request by the number of its call, from `turn.requests`."""
    found: dict[int, dict[str, Any]] = {}
    last: dict[str, Any] = {}
    for spelt in stored.split(";") if stored else ():
        short = dict(map(_read_field, spelt.split(" ")))
        whole = short if "f" in short else {**last, **short}
        found[whole["n"]] = whole
        last = {name: value for name, value in whole.items() if name not in _ITS_OWN}
    return found
