"""How far an answer without a language model looks.

It looks further than what a model is given: each quote is weighed as evidence before it is shown.
"""

from collections.abc import Sequence
from uuid import UUID

from agent_server.calls.runtime import Runtime
from agent_server.knowledge.embedders.base import Embedder
from agent_server.knowledge.passages import Passage
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
    caller: UUID,
    *,
    further: bool = False,
) -> list[Passage]:
    """The passages of the collections `within` for a model, or with `further` those that quotes are taken from."""
    limit, min_score = runtime.settings.search_limit, runtime.settings.search_min_score
    if further:
        limit, min_score = widen(limit, min_score)
    async with runtime.database.transaction(caller) as session:
        return await search(session, embedder, query, collections=within, limit=limit, min_score=min_score)
