"""The parts of the passages that answer a question.

A passage is cut into pieces (`pieces`), a question into its parts. For each part the pieces are scored by the words that
they hold (rare words of the whole content count for more, words of the headings above for less), by the embedding, and
by how well their passage was retrieved. What is quoted is the section of the best piece, or as much around it as fits
and belongs together, and after it the next best. Nothing is rephrased.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agent_server.folding import unify
from agent_server.knowledge.embedders.base import Embedder
from agent_server.knowledge.passages import CitedPassage
from agent_server.knowledge.rarity import Rarity
from agent_server.knowledge.words import words
from agent_server.offline import asks
from agent_server.offline.evidence import is_enough
from agent_server.offline.markdown import write_answer, write_quote
from agent_server.offline.pieces import Piece, pieces_of
from agent_server.offline.scorer import Quote, Ranking, Scorer, Vectors

MOST_CHARACTERS = 800
"""What a quote has at most."""
MOST_TOGETHER = 1150
"""What all quotes of an answer have at most, as they are written."""
LEAST = 80
"""What must be left for a further quote."""
NEAR = 0.5
"""How near to the best another quote must come."""
MOST_QUOTES, MOST_OF_PAGE = 5, 4
SAME = 0.65


@dataclass(frozen=True)
class Answer:
    """An answer in the content's words.

    `text` is Markdown. `cited` are the passages in the order of their first mark.
    """

    text: str
    cited: tuple[int, ...]


async def select(
    question: str,
    passages: Sequence[CitedPassage],
    embedder: Embedder,
    *,
    context: str = "",
    rarity: Rarity | None = None,
) -> Answer | None:
    """What of `passages` answers `question`.

    It is None where nothing does. `context` is what a short follow-up ("and in winter?") follows: its words count,
    but less than the question's own. `rarity` is what the whole content knows of the question's words.
    """
    pieces = [piece for cited in passages for piece in pieces_of(cited)]
    parts, context = asks.split_parts(unify(question)), unify(context)
    if not pieces or not parts:
        return None
    vectors = await _embed(pieces, parts, embedder)
    scorer = Scorer(pieces, passages, vectors, rarity)
    answers: list[tuple[str, list[Quote]]] = []
    for number, (part, before) in enumerate(zip(parts, [context, *parts], strict=False)):
        taken = [quote for _, found in answers for quote in found]
        together = MOST_TOGETHER // len(parts)
        ranking = scorer.rank(number, part, before)
        found = _choose(scorer, ranking, taken, min(MOST_CHARACTERS, together), together)
        answers.append((part, found if _answers(scorer, found, ranking) else []))
    cited = [quote.pieces[0].n for _, found in answers for quote in found]
    return (
        Answer(
            write_answer([(part, [q.pieces for q in found]) for part, found in answers]), tuple(dict.fromkeys(cited))
        )
        if cited
        else None
    )


async def _embed(pieces: Sequence[Piece], parts: Sequence[str], embedder: Embedder) -> Vectors:
    # Both, because a heading helps a short item and waters down a sentence that says it all.
    headed, bare = [f"{piece.heading}. {piece.text}" for piece in pieces], [piece.text for piece in pieces]
    # one call: an embedder may be a round trip over a network
    vectors = await embedder.embed([*headed, *bare, *parts])
    return Vectors(*np.split(vectors, [len(pieces), 2 * len(pieces)]))


def _choose(scorer: Scorer, ranking: Ranking, taken: Sequence[Quote], most: int, together: int) -> list[Quote]:
    """The best quote, and others that are nearly as good, say something else and have room."""
    quotes = scorer.list_quotes(ranking, most)
    found: list[Quote] = []
    room = together
    for quote in quotes:
        if len(found) >= MOST_QUOTES or room < LEAST or quote.score < NEAR * quotes[0].score:
            break
        if sum(other.pieces[0].path[0] == quote.pieces[0].path[0] for other in found) >= MOST_OF_PAGE:
            continue
        fitting = _fit(scorer, ranking, quote, room)
        if found and (
            len(write_quote(fitting.pieces)) > room or any(_alike(fitting, other) for other in (*found, *taken))
        ):
            continue
        found.append(fitting)
        room -= len(write_quote(fitting.pieces)) + 2
    return found


def _fit(scorer: Scorer, ranking: Ranking, quote: Quote, room: int) -> Quote:
    """The quote, shorter where it is longer than the room; its headings and marks count as well."""
    if (size := len(write_quote(quote.pieces))) <= room:
        return quote
    marks = size - sum(len(piece.text) for piece in quote.pieces)
    return scorer.shorten(ranking, quote, max(room - marks, LEAST))


def _answers(scorer: Scorer, found: Sequence[Quote], ranking: Ranking) -> bool:
    """Whether the quotes of the best page are enough of an answer."""
    if not found:
        return False
    document = scorer.passages[found[0].pieces[0].n].document
    of_page = [quote for quote in found if scorer.passages[quote.pieces[0].n].document == document]
    return is_enough(
        {word: max(quote.met[word] for quote in of_page) for word in ranking.wanted.weights},
        ranking.wanted,
        score=max(scorer.passages[quote.pieces[0].n].score for quote in of_page),
        dense=found[0].dense,
        size=scorer.size,
    )


def _alike(one: Quote, other: Quote) -> bool:
    """Documentation repeats itself, and the same text twice looks like a mistake."""
    a, b = ({w for piece in quote.pieces for w in words(piece.text)} for quote in (one, other))
    return len(a & b) >= SAME * len(a | b) or len(a & b) >= 0.85 * min(len(a), len(b))
