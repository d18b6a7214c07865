"""How far an answer looks: one without a language model further.

It looks further than what a model is given: each quote is weighed as evidence before it is shown.
"""

from collections.abc import Sequence

from agent_server.caller import Caller
from agent_server.calls.runtime import Runtime
from agent_server.documents.models import READ
from agent_server.documents.search import add_own_words
from agent_server.knowledge.embedders.base import Embedder
from agent_server.knowledge.passages import OwnPassages, Passage, merge
from agent_server.knowledge.rarity import Rarity, count_words
from agent_server.knowledge.search import search

MORE = 3
"""So many passages more."""
SHARE = 0.6
"""The least score of a passage as a share of what a model is given."""


def widen(limit: int, min_score: float) -> tuple[int, float]:
    """How many passages are looked up for quotes, and their least score, from what they are for a model."""
    return limit + MORE, SHARE * min_score


async def look_up(
    runtime: Runtime,
    embedder: Embedder,
    query: str,
    within: Sequence[str] | None,
    caller: Caller,
    *,
    has_own: bool,
    further: bool = False,
) -> list[Passage]:
    """The passages of the collections `within` and of the caller's own documents for a model, or with `further` those
    that quotes are taken from."""
    limit, min_score = runtime.settings.search_limit, runtime.settings.search_min_score
    if further:
        limit, min_score = widen(limit, min_score)
    async with runtime.database.transaction(caller.id) as session:
        found = await search(session, embedder, query, collections=within, limit=limit, min_score=min_score)
        if has_own and (own := runtime.resources.get(OwnPassages)) is not None:
            found = merge(found, await own.search(session, caller, query, limit=limit, min_score=min_score), limit)
    return found


async def count_known(
    runtime: Runtime, words: Sequence[str], language: str, caller: Caller, *, has_own: bool
) -> Rarity:
    """How rare words are in all that the caller's questions are answered from."""
    async with runtime.database.transaction(caller.id) as session:
        rarity = await count_words(session, words, language)
        if has_own and caller.may(READ):
            rarity = await add_own_words(session, rarity, words, language, owner=caller.id)
    return rarity
