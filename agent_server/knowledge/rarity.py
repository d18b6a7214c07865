"""How rare words are in the whole content."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import text

from agent_server.db import SYSTEM, Executor, storable
from agent_server.knowledge.asked import DICTIONARIES
from agent_server.knowledge.words import forms_of

MAX_WORDS = 60
"""Words of a question that are looked up."""

# By exact lexemes, which the primary key finds: a search for beginnings reads all terms of a large content.
_COUNT = text(f"""
    select c.n_chunks, f.word, coalesce(sum(t.n), 0)
    from corpus c
    left join lateral (
        select distinct u.word, coalesce((ts_lexize(cast({DICTIONARIES} as regdictionary), u.form))[1], u.form) as lexeme
        from unnest(cast(:words as text[]), cast(:forms as text[])) u(word, form), unnest(c.configs) config) f on true
    left join term t on t.owner_id = c.owner_id and t.lexeme = f.lexeme
    where c.owner_id = :owner_id group by 1, 2""")  # noqa: S608  # a constant of ours

CONTENT_PASSAGES = f"coalesce((select n_chunks from corpus where owner_id = '{SYSTEM}'), 0)"  # noqa: S608  # a constant
"""SQL of how many passages the content has."""
CONTENT_COUNT = f"coalesce((select t.n from term t where t.owner_id = '{SYSTEM}' and t.lexeme = {{lexeme}}), 0)"  # noqa: S608  # a constant
"""SQL of how many passages of the content have a lexeme."""


@dataclass(frozen=True)
class Rarity:
    """How many passages the content has, and how many of them have each word."""

    passages: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)

    def weigh(self, word: str) -> float:
        """The inverse document frequency of a word as a share of the highest there can be."""
        n = max(self.passages, 1)
        df = min(self.counts.get(word, 0), n)
        return math.log(1 + (n - df + 0.5) / (df + 0.5)) / math.log(1 + (n + 0.5) / 0.5)


async def count_words(session: Executor, words: Sequence[str], language: str, *, owner: UUID = SYSTEM) -> Rarity:
    """How rare these words are. Forms of a word count as the word."""
    pairs = [
        (word, form) for word in dict.fromkeys(map(storable, words[:MAX_WORDS])) for form in forms_of(word, language)
    ]
    values = {"owner_id": owner, "words": [word for word, _ in pairs], "forms": [form for _, form in pairs]}
    rows = (await session.execute(_COUNT, values)).all()
    passages = rows[0][0] if rows else 0
    return Rarity(passages, {word: int(n) for _, word, n in rows if word is not None})
