"""The parts of the passages that answer a question.

A passage is cut into pieces (`pieces`), a question into its parts. For each part the pieces are scored by the words that
they hold (rare words of the whole content count for more, words of the headings above for less), by the embedding, and
by how well their passage was retrieved. What is quoted is the section of the best piece, or as much around it as fits
and belongs together. Nothing is rephrased.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent_server.folding import unify
from agent_server.knowledge.embedders.base import Embedder
from agent_server.knowledge.passages import CitedPassage
from agent_server.knowledge.rarity import Rarity
from agent_server.knowledge.words import EVERYDAY, content_words, language_of, stem_in, words
from agent_server.offline import asks
from agent_server.offline.evidence import Wanted, find_forms, share, stems
from agent_server.offline.pieces import Piece, pieces_of

MOST_CHARACTERS = 800
"""What a quote has at most."""
MOST_TOGETHER = 1050
"""What all quotes of an answer have at most."""

# The numbers below are chosen by hand on judged questions of five collections; measure before you change one.
# What the score of a piece is made of, where the share of the part's words counts 1; then what a whole quote adds.
HEADING, DENSE, FITS = 0.6, 0.8, 0.3
PASSAGE, COVER = 2.0, 0.3
UNIT, TRUST = 1.4, 0.4
"""How much a figure with the unit that is asked for fits (without one it is .4), and how far that counts by itself."""
# Evidence is the passage's score with these: the share of words met, how many are met, the rarest word that is not met.
ENOUGH, SHARE, COUNT, MISSING = 0.45, 0.3, 0.87, 0.94
MET = 0.5
"""A word is met that is held so surely."""
NEAR = 0.6
"""How near to the best another quote must come."""
MOST_QUOTES, MOST_OF_PAGE = 3, 2
SAME = 0.65

_PRONOUN = re.compile(r"\b(it|they|them|this|that|these|those|there|one)\b", re.IGNORECASE)
_FIGURE = re.compile(
    r"\d|\b(two|three|four|five|six|seven|eight|nine|ten|twelve|twenty|thirty|half|once|twice|every (\w+ )?(day|week|month|year)|"
    r"zwei|drei|vier|fünf|sechs|sieben|acht|neun|zehn|zwölf|zwanzig)\b",
    re.IGNORECASE,
)
_ASKS_HOW = re.compile(r"\bhow (\w+)")
_PRICE = re.compile(
    r"[$€£¥]\s?\d|\d[\d.,]{0,15}\s?(?:[$€£¥]|(?:usd|eur|gbp|chf|dollars?|euros?|pounds?|pesos?|francs?)\b)|\d,-|"
    r"\b(?:free of charge|for free|at no cost|no charge|kostenlos|gratis|gratuit\w*)\b",
    re.IGNORECASE,
)
_MEANING = re.compile(r"(an? |the )?([\w'()-]++ ){1,5}(is|are|means?|describes?)\b", re.IGNORECASE)
_TIME = re.compile(
    r"\b(january|february|march|april|may|june|july|august|september|october|november|december|spring|summer|autumn|"
    r"winter|seasons?|all year)\b",
    re.IGNORECASE,
)
_RANGE = re.compile(r"(?<!\d)(\d++(?:\.\d++)?)\s*+(?:to|and|bis|[-–])\s*+(\d++(?:\.\d++)?)")


@dataclass(frozen=True)
class Answer:
    """An answer in the content's words.

    `text` is Markdown. `cited` are the passages in the order of their first mark.
    """

    text: str
    cited: tuple[int, ...]


@dataclass(frozen=True)
class Quote:
    """Pieces of one passage that are quoted together, and how well they answer."""

    pieces: tuple[Piece, ...]
    score: float
    met: Mapping[str, float]
    covered: float


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
        answers.append((part, scorer.find(number, part, before, taken, parts=len(parts))))
    cited = [quote.pieces[0].n for _, found in answers for quote in found]
    return Answer(_markdown(answers), tuple(dict.fromkeys(cited))) if cited else None


@dataclass(frozen=True)
class _Vectors:
    """The vectors of the pieces and of the question's parts. A piece has one with its heading and one without."""

    headed: NDArray[np.float32]
    bare: NDArray[np.float32]
    parts: NDArray[np.float32]


async def _embed(pieces: Sequence[Piece], parts: Sequence[str], embedder: Embedder) -> _Vectors:
    # Both, because a heading helps a short item and waters down a sentence that says it all.
    headed, bare = [f"{piece.heading}. {piece.text}" for piece in pieces], [piece.text for piece in pieces]
    # one call: an embedder may be a round trip over a network
    vectors = await embedder.embed([*headed, *bare, *parts])
    return _Vectors(*np.split(vectors, [len(pieces), 2 * len(pieces)]))


class Scorer:
    """Finds quotes for a part of the question."""

    def __init__(
        self, pieces: Sequence[Piece], passages: Sequence[CitedPassage], vectors: _Vectors, rarity: Rarity | None
    ) -> None:
        self._pieces, self._vectors, self._rarity = pieces, vectors, rarity
        self._passages = {cited.n: cited.passage for cited in passages}
        self._texts: dict[str, tuple[list[frozenset[str]], list[frozenset[str]]]] = {}

    def find(self, number: int, part: str, before: str, taken: Sequence[Quote], *, parts: int) -> list[Quote]:
        """The quotes that answer the part, the best first; none where they hold too little of it.

        `number` is that of the part's vector, `before` what it follows, `taken` what is quoted for the parts before it,
        `parts` how many share the space.
        """
        wanted, forms = self._want(part, before)
        own, above = self._read(wanted.language)
        met = [share(wanted, forms, ((own[i], 1.0), (above[i], HEADING))) for i in range(len(self._pieces))]
        held = np.array([sum(wanted.weights[w] * m for w, m in one.items()) for one in met]) / wanted.total
        vector = self._vectors.parts[number]
        dense = np.maximum(self._vectors.headed @ vector, self._vectors.bare @ vector).astype(np.float64)
        fits = np.array([self._fits(part, piece) for piece in self._pieces])
        scores = held + DENSE * dense + FITS * fits * np.minimum(1, TRUST + held)
        most = MOST_CHARACTERS if parts == 1 else MOST_TOGETHER // parts
        quotes = []
        for section in self._sections():
            best = max(section, key=lambda i: scores[i])
            chosen = self._grow(section, best, scores, most)
            texts = [(own[i], 1.0) for i in chosen] + [(above[best], HEADING)]
            covers = share(wanted, forms, texts)
            covered = sum(wanted.weights[w] * m for w, m in covers.items()) / wanted.total
            passage = self._passages[self._pieces[best].n]
            score = float(scores[best] + COVER * covered + PASSAGE * passage.score)
            quotes.append(Quote(tuple(self._pieces[i] for i in chosen), score, covers, covered))
        if asks.PRICE.search(part):
            quotes = [quote for quote in quotes if any(_PRICE.search(piece.text) for piece in quote.pieces)]
        quotes.sort(key=lambda quote: -quote.score)
        if not quotes:
            return []
        found = self._choose(quotes, taken, MOST_TOGETHER if parts == 1 else most)
        return found if self._is_enough(found, wanted) else []

    def _choose(self, quotes: Sequence[Quote], taken: Sequence[Quote], together: int) -> list[Quote]:
        found = [quotes[0]]
        length = _length(quotes[0].pieces)
        for quote in quotes[1:]:
            if quote.score < NEAR * quotes[0].score or len(found) >= MOST_QUOTES:
                break
            size = _length(quote.pieces)
            same = sum(other.pieces[0].path[0] == quote.pieces[0].path[0] for other in found)
            if (
                same >= MOST_OF_PAGE
                or length + size > together
                or any(_alike(quote, other) for other in (*found, *taken))
            ):
                continue
            found.append(quote)
            length += size
        return found

    def _is_enough(self, quotes: Sequence[Quote], wanted: Wanted) -> bool:
        """Whether the quotes of the best page hold enough of what is asked, its rarest word above all."""
        document = self._passages[quotes[0].pieces[0].n].document
        of_page = [quote for quote in quotes if self._passages[quote.pieces[0].n].document == document]
        score = max(self._passages[quote.pieces[0].n].score for quote in of_page)
        met = {word: max(quote.met[word] for quote in of_page) for word in wanted.weights}
        covered = sum(weight * met[word] for word, weight in wanted.weights.items()) / wanted.total
        missing = max((weight for word, weight in wanted.weights.items() if met[word] < MET), default=0.0)
        count = sum(factor * met[word] for word, factor in wanted.factors.items())
        evidence = score + SHARE * covered + COUNT * math.log1p(count) - MISSING * missing
        return evidence >= ENOUGH

    def _want(self, part: str, before: str) -> tuple[Wanted, dict[str, dict[str, float]]]:
        language = language_of(part)
        own = content_words(part, language)
        measured = set(_ASKS_HOW.findall(part.lower()))  # "how cold" asks for degrees, not for "cold"
        if asks.TIME.search(part):
            measured |= {"time", "best", "year"}  # "the best time" asks for months
        weights: dict[str, float] = {}
        factors: dict[str, float] = {}
        unknown: set[str] = set()
        for word in own or words(part):
            factor = 0.2 if word in measured else 0.35 if word in EVERYDAY[language] else 1.0
            weights.setdefault(stem_in(word, language), self._weigh(word) * factor)
            factors.setdefault(stem_in(word, language), factor)
            if self._rarity is not None and not self._rarity.counts.get(word):
                unknown.add(stem_in(word, language))
        if before and (len(own) < 2 or _PRONOUN.search(part)):
            for word in content_words(before, language):
                weights.setdefault(stem_in(word, language), 0.5 * self._weigh(word))
        wanted = Wanted(weights, factors, frozenset(unknown), language)
        texts, headings = self._read(language)
        return wanted, find_forms(wanted, frozenset().union(*texts, *headings))

    def _weigh(self, word: str) -> float:
        return 0.15 + (self._rarity.weigh(word) if self._rarity is not None else 0.85)

    def _read(self, language: str) -> tuple[list[frozenset[str]], list[frozenset[str]]]:
        if language not in self._texts:
            above = {}
            for piece in self._pieces:
                key = (piece.n, piece.path)
                if key not in above:
                    above[key] = stems(f"{piece.heading} {self._passages[piece.n].document}", language)
            self._texts[language] = (
                [stems(piece.text, language) for piece in self._pieces],
                [above[piece.n, piece.path] for piece in self._pieces],
            )
        return self._texts[language]

    def _sections(self) -> list[list[int]]:
        sections: dict[tuple[int, int], list[int]] = {}
        for i, piece in enumerate(self._pieces):
            sections.setdefault((piece.n, piece.section), []).append(i)
        return list(sections.values())

    def _grow(self, section: Sequence[int], best: int, scores: NDArray[np.float64], most: int) -> list[int]:
        """The pieces of a section that are quoted with its best."""
        section = self._with_below(section)
        if _length([self._pieces[i] for i in section]) <= most:
            return list(section)
        bonds: dict[int, list[int]] = {}
        for i in section:
            bonds.setdefault(self._pieces[i].bond, []).append(i)
        groups = list(bonds.values())
        at = next(k for k, group in enumerate(groups) if best in group)
        chosen = self._fit(groups[at], best, scores, most)
        low = high = at
        while True:
            near = [k for k in (low - 1, high + 1) if 0 <= k < len(groups)]
            near = [k for k in near if _length([self._pieces[i] for i in [*chosen, *groups[k]]]) <= most]
            if not near:
                return sorted(chosen)
            k = max(near, key=lambda k: max(scores[i] for i in groups[k]))
            chosen = [*chosen, *groups[k]]
            low, high = min(low, k), max(high, k)

    def _with_below(self, section: Sequence[int]) -> Sequence[int]:
        """A section with those below its heading: sub-headings are often the steps or the list."""
        n, path = self._pieces[section[0]].n, self._pieces[section[0]].path
        if len(path) == 1:
            return section
        return [i for i, piece in enumerate(self._pieces) if piece.n == n and piece.path[: len(path)] == path]

    def _fit(self, group: Sequence[int], best: int, scores: NDArray[np.float64], most: int) -> list[int]:
        """As much of what belongs together as fits: its best piece, then what is next to it."""
        if _length([self._pieces[i] for i in group]) <= most:
            return list(group)
        chosen = [best]
        at = group.index(best)
        # The sentence that leads to a list is shown with it.
        lead = (
            [i for i in group[:at] if self._pieces[i].kind == "text"][-1:] if self._pieces[best].kind != "text" else []
        )
        if lead and _length([self._pieces[i] for i in [*lead, *chosen]]) <= most:
            chosen = [*lead, *chosen]
        low = high = at
        while True:
            near = [k for k in (low - 1, high + 1) if 0 <= k < len(group)]
            near = [
                k for k in near if group[k] in chosen or _length([self._pieces[i] for i in [*chosen, group[k]]]) <= most
            ]
            if not near:
                return sorted(chosen)
            k = max(near, key=lambda k: scores[group[k]])
            chosen = [*dict.fromkeys([*chosen, group[k]])]
            low, high = min(low, k), max(high, k)

    def _fits(self, part: str, piece: Piece) -> float:
        """How much a piece is of the kind that is asked for."""
        text = piece.text
        figure = 0.0
        if asks.FIGURE.search(part) and _FIGURE.search(text):
            units = asks.find_units(part)
            figure = (
                1.0
                if not units
                else UNIT
                if re.search(rf"(?<![^\W\d_])(?:{units})(?!\w)", text, re.IGNORECASE)
                else 0.4
            )
        price = bool(asks.PRICE.search(part) and _PRICE.search(text))
        time = asks.TIME.search(part)
        in_time = bool(time and _TIME.search(text)) + bool(time and asks.TIME.search(piece.heading))
        meaning = bool(asks.MEANING.match(part) and _MEANING.match(text))
        listed = bool(asks.LIST.search(part) and piece.kind in ("list", "table"))
        how = bool(asks.HOW.search(part) and (piece.kind == "code" or (piece.kind == "list" and piece.marker != "-")))
        given = [word for word in words(part) if word.isdigit()]
        numbers = bool(given) and all(self._has(text, word) for word in given)
        return max(figure, float(meaning or listed or price or how)) + in_time + numbers

    def _has(self, text: str, number: str) -> bool:
        # 22 degrees are within "20 to 24 degrees"
        return number in words(text) or any(float(a) <= float(number) <= float(b) for a, b in _RANGE.findall(text))


def _length(pieces: Sequence[Piece]) -> int:
    return sum(len(piece.text) + 3 for piece in pieces)


def _alike(one: Quote, other: Quote) -> bool:
    """Documentation repeats itself, and the same text twice looks like a mistake."""
    a, b = ({w for piece in quote.pieces for w in words(piece.text)} for quote in (one, other))
    return len(a & b) >= SAME * len(a | b) or len(a & b) >= 0.85 * min(len(a), len(b))


# The answer as Markdown


def _markdown(answers: Sequence[tuple[str, Sequence[Quote]]]) -> str:
    if len(answers) == 1:
        return f"From the content:\n\n{_quotes(answers[0][1])}"
    blocks = []
    for part, quotes in answers:
        title = f"**{_title(part)}**"
        blocks.append(f"{title}\n\n{_quotes(quotes)}" if quotes else f"{title}\n\nThe content has nothing on this.")
    return "From the content:\n\n" + "\n\n".join(blocks)


def _title(part: str) -> str:
    part = re.sub(r"^(and|but|or|so|also)\s+", "", part, flags=re.IGNORECASE).rstrip(" ?.!")
    return f"{part[:1].upper()}{part[1:]}?"


def _quotes(quotes: Sequence[Quote]) -> str:
    return "\n\n".join("\n".join(f"> {line}".rstrip() for line in _lines(quote.pieces)) for quote in quotes)


def _lines(pieces: Sequence[Piece]) -> list[str]:
    """A quote as lines: the path of headings, the pieces in their order, the citation."""
    lines = [f"**{' › '.join(pieces[0].path)}**"] if len(pieces[0].path) > 1 else []
    before: Piece | None = None
    for piece in pieces:
        if before is not None and before.section != piece.section:
            lines += ["", f"**{piece.path[-1]}**"]
        same = before is not None and before.block == piece.block
        if same and piece.kind == "text":
            lines[-1] += f" {piece.text}"
        else:
            lines += [] if same or not lines else [""]
            indent = "   " * piece.depth
            first, *rest = piece.text.splitlines()
            lines.append(f"{indent}{piece.marker} {first}" if piece.marker else first)
            lines += [f"{indent}   {line}" if piece.marker else line for line in rest]
        before = piece
    if pieces[-1].kind == "code" or pieces[-1].text.endswith(("```", "~~~")):
        return [*lines, "", f"[{pieces[-1].n}]"]
    return [*lines[:-1], f"{lines[-1]} [{pieces[-1].n}]"]
