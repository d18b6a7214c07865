"""How well the sections of passages answer a part of a question."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from agent_server.knowledge.passages import CitedPassage
from agent_server.knowledge.rarity import Rarity
from agent_server.knowledge.synonyms import spellings, synonyms
from agent_server.knowledge.words import EVERYDAY, content_words, language_of, stem_in, words
from agent_server.offline import asks
from agent_server.offline.evidence import Wanted, find_forms, measure_share, share, stems
from agent_server.offline.kinds import fits, gives_rule, has_price
from agent_server.offline.pieces import Piece
from agent_server.offline.sections import grow, list_sections

# The numbers are chosen by hand on the judged questions of seven contents; measure before you change one.
# What the score of a piece is made of, where the share of the part's words counts 1.
HEADING, DENSE, FITS = 0.6, 0.8, 0.3
# What a section adds: its passage's score and those of the page's other passages, the words that are met by all that is
# quoted, by the page's title and by the headings below it, and whether its best piece gives a rule to a yes-or-no question.
PASSAGE, PAGE, COVER, TITLE, PATH, RULE = 2.0, 0.2, 0.3, 0.4, 0.3, 0.25
UNKNOWN = 0.6
"""How rare a word is taken to be where the rest of the content is not known."""
TRUST = 0.4
"""How far it counts by itself that a piece is of the kind that is asked for, without any of the words."""

_PRONOUN = re.compile(r"\b(it|they|them|this|that|these|those|there|one)\b", re.IGNORECASE)
_ASKS_HOW = re.compile(r"\bhow (\w+)")


@dataclass(frozen=True)
class Vectors:
    """The vectors of the pieces and of the question's parts. A piece has one with its heading and one without."""

    headed: NDArray[np.float32]
    bare: NDArray[np.float32]
    parts: NDArray[np.float32]


@dataclass(frozen=True)
class Quote:
    """Pieces of one passage that are quoted together.

    `met` says how surely each asked word is met, `dense` how near the meaning of the best piece is to the question.
    """

    pieces: tuple[Piece, ...]
    score: float
    met: Mapping[str, float]
    dense: float


@dataclass(frozen=True)
class Ranking:
    """A part of a question against all pieces: what is asked, and how well each piece answers."""

    part: str
    wanted: Wanted
    forms: Mapping[str, Mapping[str, float]]
    held: NDArray[np.float64]
    dense: NDArray[np.float64]
    scores: NDArray[np.float64]


class Scorer:
    """Scores the pieces of passages, and the sections that they are of."""

    def __init__(
        self, pieces: Sequence[Piece], passages: Sequence[CitedPassage], vectors: Vectors, rarity: Rarity | None
    ) -> None:
        self._pieces, self._vectors, self._rarity = pieces, vectors, rarity
        self.passages = {cited.n: cited.passage for cited in passages}
        self._texts: dict[str, tuple[list[frozenset[str]], list[frozenset[str]]]] = {}

    @property
    def size(self) -> int | None:
        """How many passages the whole content has, where that is known."""
        return None if self._rarity is None else self._rarity.passages

    def rank(self, number: int, part: str, before: str) -> Ranking:
        """How well each piece answers the part. `number` is that of its vector, `before` what the part follows."""
        wanted, forms = self._want(part, before)
        own, above = self._read(wanted.language)
        met = (share(wanted, forms, ((own[i], 1.0), (above[i], HEADING))) for i in range(len(self._pieces)))
        level = _level(wanted)
        held = np.array([measure_share(level, one) for one in met])
        vector = self._vectors.parts[number]
        dense = np.maximum(self._vectors.headed @ vector, self._vectors.bare @ vector).astype(np.float64)
        kind = np.array([fits(part, piece) for piece in self._pieces]) * np.minimum(1, TRUST + held)
        return Ranking(part, wanted, forms, held, dense, held + DENSE * dense + FITS * kind)

    def list_quotes(self, ranking: Ranking, most: int) -> list[Quote]:
        """A quote of so many characters at most for each section, the best first."""
        quotes = [self._quote(ranking, section, most) for section in list_sections(self._pieces)]
        if asks.PRICE.search(ranking.part):
            quotes = [quote for quote in quotes if any(has_price(piece.text) for piece in quote.pieces)]
        return sorted(quotes, key=lambda quote: -quote.score)

    def shorten(self, ranking: Ranking, quote: Quote, most: int) -> Quote:
        """The same quote in so many characters at most, where its best piece has room in them."""
        first = quote.pieces[0]
        section = next(
            of
            for of in list_sections(self._pieces)
            if any(self._pieces[i] in quote.pieces for i in of) and self._pieces[of[0]].n == first.n
        )
        return self._quote(ranking, section, most)

    def _quote(self, ranking: Ranking, section: Sequence[int], most: int) -> Quote:
        wanted, forms, pieces = ranking.wanted, ranking.forms, self._pieces
        own, above = self._read(wanted.language)
        best = max(section, key=lambda i: ranking.scores[i])
        chosen = grow(pieces, section, best, ranking.scores, most)
        met = share(wanted, forms, [*((own[i], 1.0) for i in chosen), (above[best], HEADING)])
        passage = self.passages[pieces[best].n]
        others = sum(p.score for p in self.passages.values() if p.document == passage.document) - passage.score
        title, *below = pieces[best].path
        level = _level(wanted)
        # What stands below no other heading is what the title says.
        heard = [
            measure_share(level, share(wanted, forms, [(stems(text, wanted.language), 1.0)]))
            for text in (f"{title} {passage.document}", " ".join(below) or title)
        ]
        score = (
            float(ranking.scores[best])
            + PASSAGE * passage.score
            + PAGE * others
            + COVER * measure_share(level, met)
            + TITLE * heard[0]
            + PATH * heard[1]
            + RULE * gives_rule(ranking.part, pieces[best].text)
        )
        return Quote(tuple(pieces[i] for i in chosen), score, met, float(ranking.dense[best]))

    def _want(self, part: str, before: str) -> tuple[Wanted, dict[str, dict[str, float]]]:
        language = language_of(part)
        own = content_words(part, language)
        measured = set(_ASKS_HOW.findall(part.lower()))  # "how cold" asks for degrees, not for "cold"
        if asks.TIME.search(part):
            measured |= {"time", "best", "year"}  # "the best time" asks for months
        weights: dict[str, float] = {}
        factors: dict[str, float] = {}
        unknown: set[str] = set()
        others: dict[str, frozenset[str]] = {}
        for word in own or words(part):
            stem = stem_in(word, language)
            factor = 0.2 if word in measured else 0.35 if word in EVERYDAY[language] else 1.0
            weights.setdefault(stem, self._weigh(word) * factor)
            factors.setdefault(stem, factor)
            others.setdefault(
                stem,
                frozenset(
                    stem_in(other, language) for other in (*synonyms(word, language), *spellings(word, language))
                ),
            )
            if self._rarity is not None and not self._rarity.counts.get(word):
                unknown.add(stem)
        if before and (len(own) < 2 or _PRONOUN.search(part)):
            for word in content_words(before, language):
                weights.setdefault(stem_in(word, language), 0.5 * self._weigh(word))
        wanted = Wanted(weights, factors, frozenset(unknown), others, language)
        texts, headings = self._read(language)
        return wanted, find_forms(wanted, frozenset().union(*texts, *headings))

    def _weigh(self, word: str) -> float:
        return 0.15 + (self._rarity.weigh(word) if self._rarity is not None else UNKNOWN)

    def _read(self, language: str) -> tuple[list[frozenset[str]], list[frozenset[str]]]:
        """The stems of each piece, and of the headings above it."""
        if language not in self._texts:
            above = {}
            for piece in self._pieces:
                key = (piece.n, piece.path)
                if key not in above:
                    above[key] = stems(f"{piece.heading} {self.passages[piece.n].document}", language)
            self._texts[language] = (
                [stems(piece.text, language) for piece in self._pieces],
                [above[piece.n, piece.path] for piece in self._pieces],
            )
        return self._texts[language]


def _level(wanted: Wanted) -> Wanted:
    """The same with words that the content lacks counting as much as its rarest. They are met by others that are like them,
    which says less than a word that is there."""
    most = max((weight for word, weight in wanted.weights.items() if word not in wanted.unknown), default=None)
    if most is None:
        return wanted
    return replace(
        wanted,
        weights={
            word: min(weight, most) if word in wanted.unknown else weight for word, weight in wanted.weights.items()
        },
    )
