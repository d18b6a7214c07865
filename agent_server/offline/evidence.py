"""How much of what is asked a text holds.

A word counts for more if few passages of the whole content have it. It is met in another form too: inflected, as a part
of a compound, or with one letter wrong where the content does not know it.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from agent_server.knowledge.urgent import differ_by_one
from agent_server.knowledge.words import stem_in, words

SYNONYM = 0.7
"""How surely a synonym is meant."""
# Evidence is the passage's score with these: the share of words met, how many are met, how near the best piece is, and
# the rarest word that is not met (times the decimal logarithm of how many passages there are).
ENOUGH, SHARE, COUNT, NEARNESS, MISSING = 0.46, 0.3, 0.87, 0.4, 0.45
MET = 0.5
"""A word is met that is held so surely."""
USUAL, LEAST = 100, 20
"""Passages of a content that is not known, and the least that count."""

_CAMEL = re.compile(r"[A-Z]?[a-z]{2,}|[A-Z]{2,}(?![a-z])")
_IDENTIFIER = re.compile(r"\b[A-Za-z]+[a-z][A-Z]\w*\b")


@dataclass(frozen=True)
class Wanted:
    """The words that are asked for by their stems, and what each counts for.

    `factors` are what they count for before their rarity: everyday words less than others. `unknown` are those that the
    content does not have, `others` the words that stand for one.
    """

    weights: Mapping[str, float]
    factors: Mapping[str, float]
    unknown: frozenset[str]
    others: Mapping[str, frozenset[str]]
    language: str

    @property
    def total(self) -> float:
        return sum(self.weights.values()) or 1.0


def stems(text: str, language: str) -> frozenset[str]:
    """The stems of a text's words and of the parts of its identifiers."""
    found = {stem_in(word, language) for word in words(text)}
    for name in _IDENTIFIER.findall(text):
        found |= {stem_in(part.lower(), language) for part in _CAMEL.findall(name)}
    return frozenset(found)


def find_forms(wanted: Wanted, vocabulary: Iterable[str]) -> dict[str, dict[str, float]]:
    """For each wanted word the words of `vocabulary` that stand for it, and how surely."""
    forms: dict[str, dict[str, float]] = {word: {word: 1.0} for word in wanted.weights}
    for word, others in wanted.others.items():
        forms[word] |= dict.fromkeys(others - {word}, SYNONYM)
    known = [word for word in vocabulary if len(word) > 3 and word.isalpha()]
    for word, found in forms.items():
        if len(word) < 4 or not word.isalpha():
            continue
        unknown = word in wanted.unknown
        for other in known:
            if other != word and (sure := _likeness(word, other, wanted.language, unknown=unknown)):
                found[other] = sure
    return forms


def _likeness(word: str, other: str, language: str, *, unknown: bool) -> float:
    shorter, longer = (word, other) if len(word) <= len(other) else (other, word)
    if shorter[:4] == longer[:4]:
        same = next((i for i, (a, b) in enumerate(zip(shorter, longer, strict=False)) if a != b), len(shorter))
        if same >= 5 and same >= 0.7 * len(longer):
            return 0.85
        if same == len(shorter) and same >= 4 and len(longer) - same <= 2:
            return 0.85
    if language == "de" and len(shorter) >= 4 and (longer.startswith(shorter) or longer.endswith(shorter)):
        return 0.6
    if unknown and len(word) >= 5 and differ_by_one(word, other):
        return 0.85
    return 0.0


def share(
    wanted: Wanted, forms: Mapping[str, Mapping[str, float]], held: Sequence[tuple[frozenset[str], float]]
) -> dict[str, float]:
    """How surely each wanted word is met by the texts in `held`, given as their stems and what a word in them counts."""
    return {
        word: max(
            (sure * factor for text, factor in held for form, sure in forms[word].items() if form in text), default=0.0
        )
        for word in wanted.weights
    }


def measure_share(wanted: Wanted, met: Mapping[str, float]) -> float:
    """How much of what is asked is met, where all of it is 1."""
    return sum(wanted.weights[word] * sure for word, sure in met.items()) / wanted.total


def is_enough(met: Mapping[str, float], wanted: Wanted, *, score: float, dense: float, size: int | None) -> bool:
    """Whether what is quoted holds enough of what is asked, its rarest word above all.

    `met` says how surely each asked word is met, `score` how well the passage was found, `dense` how near its meaning
    is, `size` how many passages the content has. In a small content it says less that a word is missing: there may be
    another word for the same.
    """
    missing = max((weight for word, weight in wanted.weights.items() if met[word] < MET), default=0.0)
    count = sum(factor * met[word] for word, factor in wanted.factors.items())
    evidence = score + SHARE * measure_share(wanted, met) + COUNT * math.log1p(count) + NEARNESS * dense
    return evidence - MISSING * math.log10(max(size or USUAL, LEAST)) * missing >= ENOUGH
