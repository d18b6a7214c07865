"""What was asked and the content did not answer, for the people who write the content."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from agent_server.caller import Caller
from agent_server.db import Database
from agent_server.evals.stored import read_unanswered
from agent_server.folding import fold
from agent_server.knowledge.embedders.base import Embedder
from agent_server.knowledge.passages import Passage
from agent_server.knowledge.search import search
from agent_server.log import mask
from agent_server.offline.small_talk import read_message
from agent_server.wording import one_line

ALIKE = 0.6
"""Two questions whose vectors' dot product is at least this ask the same. With the embedded embedder that holds for 21 of 30
pairs of rewordings, and for none of 1,740 pairs of different questions (tests/evals/test_gaps.py)."""


@dataclass
class Gap:
    """Questions that ask the same, the latest first, and the passage that comes nearest to the first of them."""

    questions: list[str]
    last_asked: datetime
    nearest: Passage | None = field(default=None, kw_only=True)
    count: int = 1


async def find_gaps(database: Database, embedder: Embedder, since: datetime, caller: Caller) -> Sequence[Gap]:
    """What was asked since then and not answered, of everybody where the database's owner may read it, else of the caller's.

    The gaps come with the most asked first. What looks like a secret is masked.
    """
    asked = [(one_line(mask(message)), at) for message, at in await read_unanswered(database, since, caller)]
    gaps: dict[str, Gap] = {}
    for question, at in asked:
        if (known := gaps.get(fold(question))) is not None:
            known.count += 1
        elif not read_message(question).small_talk:
            gaps[fold(question)] = Gap([question], at)
    grouped = await _group(list(gaps.values()), embedder)
    for gap in grouped:
        async with database.transaction() as session:
            gap.nearest = next(iter(await search(session, embedder, gap.questions[0], limit=1)), None)
    return sorted(grouped, key=lambda gap: (-gap.count, -gap.last_asked.timestamp()))


async def _group(gaps: Sequence[Gap], embedder: Embedder) -> Sequence[Gap]:
    """The gaps with those as one that ask the same: each joins the first one that it is like enough."""
    if not gaps:
        return []
    vectors = await embedder.embed([fold(gap.questions[0]) for gap in gaps])
    likeness = vectors @ vectors.T
    leaders: list[int] = []
    for place, gap in enumerate(gaps):
        leader = max(leaders, key=lambda other: likeness[place, other], default=None)
        if leader is None or likeness[place, leader] < ALIKE:
            leaders.append(place)
            continue
        gaps[leader].questions += gap.questions
        gaps[leader].count += gap.count
    return [gaps[place] for place in leaders]
