"""The sentences of the passages that answer a question.

A passage is cut into sentences, list items, table rows and code blocks; a question into its parts. For each part the
pieces are scored by the share of the part's words they hold (rare words count for more, words of the heading above for
less), by the embedding, and by how well their passage was retrieved. Nothing is rephrased: inline markup is dropped,
and a table row is written out with the names of its columns.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent_server.folding import unify
from agent_server.knowledge.embedders.base import Embedder
from agent_server.knowledge.passages import CitedPassage
from agent_server.knowledge.words import COMMON, stem, words
from agent_server.offline.pieces import Piece, pieces_of

MOST_PIECES = 6
_MOST_LIST_ITEMS = 8

# The weights and thresholds below are chosen by bench/offline_answers.py; measure with it before you change one.
# What a piece's score is made of; the share of the part's words counts 1.
_HEADING, _LIST_HEADING, _DENSE, _PASSAGE = 0.5, 0.75, 0.5, 0.35
_FITS = 0.2
_ENOUGH = 0.7
"""A part is answered when its best piece has this score."""
_ENOUGH_WORDS = 0.25
"""... and holds this share of its words, heading included."""
_NEAR_BEST, _NEAR_BEST_BESIDE = 0.82, 0.68
"""How near to the best piece another must come, and one of the same passage."""
_CLEARLY = 1.1
_ENOUGH_OF_NEAREST = 0.5
"""What the best piece of the passage that was retrieved first must score to be quoted beside better ones."""
_ABOUT = 0.7
"""A list comes whole when its heading and lead-in hold this share of the words."""
_SAME = 0.65

_PRONOUN = re.compile(r"\b(it|they|them|this|that|these|those|there|one)\b", re.IGNORECASE)
_ASKS = (
    r"how|what|what's|when|where|which|who|whom|whose|why|can|could|should|do|does|did|is|are|am|was|were|may|might|"
    r"must|will|would|have|has|shall"
)
_QUESTION = re.compile(
    rf"\W*+(?:(?:and|but|or|so|also)\W*+)?(?:{_ASKS}|at what|in which|for how|from what)\b", re.IGNORECASE
)
_NEXT_QUESTION = re.compile(
    rf"(?:[,;]\s*+|(?<!\s)\s++)(?:and|or|but)\s++(?:also\s++)?(?=(?:{_ASKS})\b)|;\s+", re.IGNORECASE
)
_ASKS_FIGURE = re.compile(
    r"\b(how (long|deep|far|fast|many|much|often|old|high|cold|warm|hot|big|large|heavy|thick|soon|late|close|strong)|"
    r"what (depth|temperature|age|number|price|size|percentage)|minimum|maximum|limit|which number)\b",
    re.IGNORECASE,
)
_FIGURE = re.compile(
    r"\d|\b(two|three|four|five|six|seven|eight|nine|ten|twelve|twenty|thirty|half|once|twice|every (\w+ )?(day|week|month|year))\b",
    re.IGNORECASE,
)
_ASKS_HOW = re.compile(r"\bhow (\w+)")
_ASKS_PRICE = re.compile(r"\b(costs?|prices?|how much money|cheap\w*|expensive|fees?)\b", re.IGNORECASE)
_PRICE = re.compile(
    r"[$€£¥]|\b(usd|eur|gbp|dollars?|euros?|pounds?|price[ds]?|costs?|fees?|free of charge)\b", re.IGNORECASE
)
_ASKS_MEANING = re.compile(
    r"what (is|are|does|'s) (an? |the )?[\w' -]{1,200}\??$|what does .{1,200} mean|define|explain", re.IGNORECASE
)
_MEANING = re.compile(r"(an? |the )?([\w'()-]++ ){1,5}(is|are|means?|describes?)\b", re.IGNORECASE)
_ASKS_TIME = re.compile(r"\b(when|what time|best time|which (month|season|day|year)s?|season)\b", re.IGNORECASE)
_TIME = re.compile(
    r"\b(january|february|march|april|may|june|july|august|september|october|november|december|spring|summer|autumn|"
    r"winter|seasons?|all year)\b",
    re.IGNORECASE,
)
_ASKS_LIST = re.compile(
    r"\b(which|what) (\w+ ){1,3}(are|is) there\b|\b(list|best|top|names? of)\b|\bwhat are\b", re.IGNORECASE
)
_RANGE = re.compile(r"(?<!\d)(\d++(?:\.\d++)?)\s*+(?:to|and|[-–])\s*+(\d++(?:\.\d++)?)")
_ASKS_CODE = re.compile(
    r"\b(how|example|usage|syntax|code|command|snippet|install|configur\w+|call|write|run|set up|define|declare)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Answer:
    """An answer in the content's words.

    `text` is Markdown. `cited` are the passages in the order of their first mark.
    """

    text: str
    cited: tuple[int, ...]


async def select(
    question: str, passages: Sequence[CitedPassage], embedder: Embedder, *, context: str = ""
) -> Answer | None:
    """What of `passages` answers `question`.

    It is None where nothing does. `context` is what a short follow-up ("and in winter?") follows: its words count,
    but less than the question's own.
    """
    pieces = [piece for cited in passages for piece in pieces_of(cited)]
    parts, context = _parts(unify(question)), unify(context)
    if not pieces or not parts:
        return None
    vectors = await _embed(pieces, parts, embedder)
    scorer = _Scorer(pieces, {cited.n: cited.passage.score for cited in passages}, vectors)
    # Several parts share the space, so that an answer stays short; one part leaves room for the nearest passage.
    most = max(2, MOST_PIECES // len(parts)) if len(parts) > 1 else MOST_PIECES - 1
    taken: list[Piece] = []
    answers: list[tuple[str, list[Piece]]] = []
    scored = [
        scorer.score(i, part, before) for i, (part, before) in enumerate(zip(parts, [context, *parts], strict=False))
    ]
    for i, part in enumerate(parts):
        # a piece belongs to the part that it answers best
        rival = np.max(
            [other.scores for other in scored if other is not scored[i]] or [np.full(len(pieces), -1.0)], axis=0
        )
        found = _best(part, scored[i], rival, pieces, taken, most)
        if len(parts) == 1 and found:
            found = _with_nearest(found, passages, scored[i], pieces)
        taken += found
        answers.append((part, found))
    if not taken:
        return None
    return Answer(_markdown(answers), tuple(dict.fromkeys(piece.n for piece in taken)))


# The parts of a question


def _parts(question: str) -> list[str]:
    """The questions in a message. A statement goes with the question after it, or before it if it is the last."""
    parts: list[str] = []
    said = ""
    for sentence in re.split(r"(?<=[.!?])\s+", " ".join(question.split())):
        for piece in _clauses(sentence):
            if not _QUESTION.match(piece) and not piece.endswith("?"):
                said = f"{said} {piece}".strip()
                continue
            parts.append(f"{said} {piece}".strip())
            said = ""
    if said and parts:
        parts[-1] = f"{parts[-1]} {said}"
    elif said:
        parts.append(said)
    return [part for part in parts if words(part)][:4]


def _clauses(sentence: str) -> list[str]:
    """The questions of a sentence. It is cut before "and how ..." where both sides name something."""
    if not _QUESTION.match(sentence) and "?" not in sentence:
        return [sentence]
    clauses: list[str] = []
    for clause in (c.strip(" ,;") for c in _NEXT_QUESTION.split(sentence)):
        # "How deep and how long can I dive" is one question: its first half names nothing of its own.
        if clauses and sum(word not in COMMON for word in words(clauses[-1])) < 2:
            clauses[-1] += f" and {clause}"
        elif clause:
            clauses.append(clause)
    return clauses


@dataclass(frozen=True)
class _Scores:
    """How well each piece answers a part of the question.

    `held` is its share of the part's words, `about` the share that its heading and lead-in hold, and `fits` how much
    it is of the kind that is asked for.
    """

    scores: NDArray[np.float64]
    held: NDArray[np.float64]
    about: NDArray[np.float64]
    fits: NDArray[np.float64]


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


class _Scorer:
    """Scores the pieces for a part of the question."""

    def __init__(self, pieces: Sequence[Piece], scores: Mapping[int, float], vectors: _Vectors) -> None:
        self._pieces, self._vectors = pieces, vectors
        self._own = [{stem(word) for word in words(piece.text)} for piece in pieces]
        self._above = [{stem(word) for word in words(f"{piece.heading} {piece.lead}")} for piece in pieces]
        self._df = Counter(word for own in self._own for word in own)
        self._ranges = [[(float(a), float(b)) for a, b in _RANGE.findall(piece.text)] for piece in pieces]
        self._passage = _PASSAGE * np.array([scores[piece.n] for piece in pieces])

    def score(self, number: int, part: str, before: str) -> _Scores:
        wanted = self._weigh(part, before)
        total = sum(wanted.values()) or 1.0
        held = np.array(
            [sum(weight * self._holds(i, word) for word, weight in wanted.items()) for i in range(len(self._pieces))]
        )
        vector = self._vectors.parts[number]
        dense = np.maximum(self._vectors.headed @ vector, self._vectors.bare @ vector).astype(np.float64)
        fits = np.array([self._fits(part, i) for i in range(len(self._pieces))])
        about = [sum(weight for word, weight in wanted.items() if word in above) / total for above in self._above]
        return _Scores(held / total + _DENSE * dense + self._passage + fits, held / total, np.array(about), fits)

    def _weigh(self, part: str, before: str) -> dict[str, float]:
        """What each word of the part counts for.

        The words of what it follows count as well, where it only points at it.
        """
        own = list(dict.fromkeys(stem(w) for w in words(part) if w not in COMMON))
        measured = {stem(w) for w in _ASKS_HOW.findall(part.lower())}  # "how cold" asks for degrees, not for "cold"
        if _ASKS_TIME.search(part):
            measured |= {"tim", "best"}  # "the best time" asks for months
        wanted = {word: self._idf(word) * (0.2 if word in measured else 1.0) for word in own}
        if before and (len(own) < 2 or _PRONOUN.search(part)):
            for word in dict.fromkeys(stem(w) for w in words(before) if w not in COMMON):
                wanted.setdefault(word, 0.5 * self._idf(word))
        # A question of common words alone ("how are you") still has to be compared by something.
        return wanted or {stem(w): 1.0 for w in words(part)}

    def _idf(self, word: str) -> float:
        """What a word counts for. It is more if the word is rare among the pieces."""
        n, df = len(self._pieces), self._df[word]
        # A word that no piece has tells them not apart, but it must count: the question is not answered without it.
        return 0.5 + math.log(1 + (n - df + 0.5) / (df + 0.5)) if df else 1.5

    def _holds(self, i: int, word: str) -> float:
        if word in self._own[i]:
            return 1.0
        if word.replace(".", "", 1).isdigit() and any(a <= float(word) <= b for a, b in self._ranges[i]):
            return 1.0  # 22 degrees are within "20 to 24 degrees"
        above = _LIST_HEADING if self._pieces[i].kind == "item" else _HEADING
        return above if word in self._above[i] else 0.0

    def _fits(self, part: str, i: int) -> float:
        """How much a piece is of the kind that is asked for.

        Kinds are a figure, a time, a definition, an entry of a list.
        """
        piece = self._pieces[i]
        figure = _ASKS_FIGURE.search(part) and (_FIGURE.search(piece.text))
        time = _ASKS_TIME.search(part)
        # Two points: the piece names a month, and it stands under a heading about time.
        in_time = bool(time and _TIME.search(piece.text)) + bool(time and _ASKS_TIME.search(piece.heading))
        meaning = _ASKS_MEANING.match(part) and _MEANING.match(piece.text)
        listed = _ASKS_LIST.search(part) and piece.kind in ("item", "row")
        given = [word for word in words(part) if word.isdigit()]
        numbers = bool(given) and all(self._holds(i, word) == 1.0 for word in given)
        return _FITS * (bool(figure or meaning or listed) + in_time + numbers)


def _best(
    part: str, scored: _Scores, rival: NDArray[np.float64], pieces: Sequence[Piece], taken: Sequence[Piece], most: int
) -> list[Piece]:
    """The pieces that answer the part with the best first.

    A list that is the answer comes whole. `rival` is how well each piece answers another part.
    """
    code, price = _ASKS_CODE.search(part), _ASKS_PRICE.search(part)
    usable = np.array([(p.kind != "code" or code) and (not price or _PRICE.search(p.text)) for p in pieces], dtype=bool)
    scores = np.where(usable, scored.scores, -1.0)
    top = int(np.argmax(scores))
    if scores[top] < _ENOUGH or scored.held[top] < _ENOUGH_WORDS:
        return []
    chosen: list[Piece] = []
    complete = False
    for i in np.argsort(-scores, kind="stable"):
        piece = pieces[i]
        # Pieces of the same passage may be less good, because they are the context of the best one. A row of a table is
        # no context: each row is about another thing.
        beside = (
            piece.n == pieces[top].n and piece.kind != "row" and scored.fits[i] >= scored.fits[top] and not complete
        )
        if len(chosen) >= most or scores[i] < max(_NEAR_BEST_BESIDE * scores[top], _ENOUGH):
            break
        if not beside and scores[i] < _NEAR_BEST * scores[top]:
            continue
        if rival[i] > scores[i] and i != top:
            continue
        # Documentation repeats itself, and the same sentence twice looks like a mistake.
        if piece in chosen or any(_alike(piece.text, other.text) for other in (*chosen, *taken)):
            continue
        listed = piece.kind == "item" or (piece.kind == "row" and _ASKS_LIST.search(part))
        if listed and scored.about[i] >= _ABOUT:
            chosen += [p for p in pieces if (p.n, p.block) == (piece.n, piece.block)][:_MOST_LIST_ITEMS]
            # When the best piece is a whole list, sentences around it add nothing.
            complete = complete or i == top
        else:
            chosen.append(piece)
    return chosen


def _with_nearest(
    found: list[Piece], passages: Sequence[CitedPassage], scored: _Scores, pieces: Sequence[Piece]
) -> list[Piece]:
    """`found` together with the best of the nearest passage.

    That is the passage that was retrieved with clearly the highest score, where nothing of it is in `found`.
    """
    # Whoever wants to read on should be led to the page that is nearest to the question as a whole.
    nearest, *rest = sorted(passages, key=lambda cited: -cited.passage.score)
    cited = {piece.n for piece in found}
    own = [i for i, piece in enumerate(pieces) if piece.n == nearest.n and piece.kind != "code"]
    clearly = all(nearest.passage.score >= _CLEARLY * other.passage.score for other in rest if other.n in cited)
    if nearest.n in cited or not own or not clearly:
        return found
    best = max(own, key=lambda i: scored.scores[i])
    return [pieces[best], *found] if scored.scores[best] >= _ENOUGH_OF_NEAREST else found


def _alike(one: str, other: str) -> bool:
    a, b = ({stem(w) for w in words(text) if w not in COMMON} for text in (one, other))
    # The second test: a short sentence that a longer one contains.
    return len(a & b) >= _SAME * len(a | b) or len(a & b) >= 0.85 * min(len(a), len(b))


# The answer as Markdown


def _markdown(answers: Sequence[tuple[str, Sequence[Piece]]]) -> str:
    if len(answers) == 1:
        return f"From the content:\n\n{_quotes(answers[0][1])}"
    blocks = []
    for part, pieces in answers:
        title = f"**{_title(part)}**"
        blocks.append(f"{title}\n\n{_quotes(pieces)}" if pieces else f"{title}\n\nThe content has nothing on this.")
    return "From the content:\n\n" + "\n\n".join(blocks)


def _title(part: str) -> str:
    part = re.sub(r"^(and|but|or|so|also)\s+", "", part, flags=re.IGNORECASE).rstrip(" ?.!")
    return f"{part[:1].upper()}{part[1:]}?"


def _quotes(pieces: Sequence[Piece]) -> str:
    """A quotation from each passage with the best first. Neighbours in a passage stay together in their order."""
    by_passage: dict[int, list[Piece]] = {}
    for piece in pieces:
        by_passage.setdefault(piece.n, []).append(piece)
    return "\n\n".join(
        "\n".join(f"> {line}".rstrip() for line in _lines(_runs(of_one), n)) for n, of_one in by_passage.items()
    )


def _runs(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """The pieces in runs of neighbours. The run with the best piece comes first; a list is one run."""
    runs: list[list[Piece]] = []
    for piece in sorted(pieces, key=lambda p: p.place):
        before = runs[-1][-1] if runs else None
        listed = before is not None and before.block == piece.block and piece.kind in ("item", "row")
        if before is not None and (listed or (piece.place == before.place + 1 and piece.kind == before.kind)):
            runs[-1].append(piece)
        else:
            runs.append([piece])
    return sorted(runs, key=lambda run: min(pieces.index(piece) for piece in run))


def _lines(runs: Sequence[Sequence[Piece]], n: int) -> list[str]:
    """The runs as lines with a citation for each run."""
    lines: list[str] = []
    for run in runs:
        first = run[0]
        lines += [""] if lines else []
        if first.kind == "sentence":
            lines.append(f"{' '.join(piece.text for piece in run)} [{n}]")
        elif first.kind == "code":
            for piece in run:
                lines += [*([piece.lead, ""] if piece.lead else []), *piece.text.splitlines()]
            lines += ["", f"[{n}]"]
        else:
            lines += [first.lead, ""] if first.lead else []
            lines += [f"{piece.marker if len(run) > 1 and piece.marker else '-'} {piece.text}" for piece in run]
            lines[-1] += f" [{n}]"
    return lines
