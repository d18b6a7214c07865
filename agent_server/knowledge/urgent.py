"""Which messages hold an `urgent` phrase, also where they are typed in haste.

    [numb after dive]   without a negation: all its words, in any order and inflection; small words do not count
    [isn't breathing]   with one: its words as they stand, side by side; in any order in a sentence of nothing else

"isn't", "isnt", "isn t" and "is not" are the same words. One wrong letter in a word of four letters or more (another
one, one too many or too few, two that changed places) makes it the word of a phrase, and so do a gap within a word and
one that is missing between two. A word that stands in the English dictionary or in the content is never taken for
another: "more" is not "move", and "conscious" not "unconscious".
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TypeAlias

from spellchecker import SpellChecker

from agent_server.folding import WORD, drop_accents, fold

_SHORTEST = 4
"""Letters of the shortest word that may have a wrong one."""
_SHORTEST_SPLIT = 5
_SHORTEST_JOINED, _LONGEST_JOINED = 7, 40
_WORD = re.compile(WORD)
_SENTENCE = re.compile(r"[.!?;:\n]+")
# "breatheeee": no English word has a letter three times in a row.
_HELD_KEY = re.compile(r"([^\W\d_])\1\1+")
_VERBS = ("is", "are", "was", "were", "do", "does", "did", "has", "have", "had", "could", "would", "should", "must")
_NEGATED = {f"{verb}nt": (verb, "not") for verb in _VERBS} | {
    "cant": ("can", "not"),
    "cannot": ("can", "not"),
    "wont": ("will", "not"),
    "aint": ("is", "not"),
    "nt": ("not",),
}
_NEGATIONS = frozenset({"not", "no", "never"})
# Of whom it is said, in a sentence of nothing else.
_PEOPLE = frozenset({"i", "he", "she", "we", "they", "you", "my", "his", "her", "our", "their", "the", "a", "an"})

_Meanings: TypeAlias = frozenset[str]
"""The words that one word of a message may stand for, itself among them."""


def list_words(text: str) -> list[str]:
    """The words of a text as they are compared here: folded, without accents and apostrophes."""
    found = _WORD.findall(_HELD_KEY.sub(r"\1\1", drop_accents(fold(text))))
    return [word.replace("'", "") for word in found]


@dataclass(frozen=True)
class Lexicon:
    """What the database knows of words.

    `stems` has those of the phrases and of the message, without the small words, which have none. `known` are the words
    that the content has.
    """

    stems: Mapping[str, str]
    known: Collection[str]


class Phrases:
    """Phrases that are ready to be looked for. `compile_phrases` makes them."""

    def __init__(self, phrases: Iterable[str]) -> None:
        written = {phrase: list_words(phrase) for phrase in phrases}
        self._words = {
            phrase: [part for word in words for part in _NEGATED.get(word, (word,))]
            for phrase, words in written.items()
        }
        held = {word for words in (*written.values(), *self._words.values()) for word in words}
        # Each negation in all its forms: "isnt" and "is not".
        self.words = frozenset(held.union(short for short, parts in _NEGATED.items() if held.issuperset(parts)))
        """All that the phrases may be written with."""

    @cached_property
    def ordinary(self) -> frozenset[str]:
        """The words of the dictionary that are a letter away from a word of a phrase."""
        # Only these are kept, a few hundred: the dictionary takes 40 MB.
        dictionary = SpellChecker(language="en")
        near = {other for word in self.words if len(word) >= _SHORTEST for other in dictionary.edit_distance_1(word)}
        return frozenset(dictionary.known(near))

    def find(self, message: str, phrases: Iterable[str], lexicon: Lexicon) -> str | None:
        """The first of `phrases` that the message holds."""
        reader = _Reader(self, lexicon)
        meanings = reader.read(list_words(message))
        spoken = frozenset().union(*meanings)
        stems = {lexicon.stems[word] for word in spoken if word in lexicon.stems}
        for phrase in phrases:
            words = self._words[phrase]
            if _NEGATIONS.isdisjoint(words):
                wanted = {lexicon.stems[word] for word in words if word in lexicon.stems}
                if wanted and wanted <= stems:
                    return phrase
            elif spoken.issuperset(words) and (
                _stand_in(words, meanings)
                or any(
                    self._are_all_of(words, reader.read(list_words(sentence)))
                    for sentence in _SENTENCE.split(fold(message))
                )
            ):
                return phrase
        return None

    def _are_all_of(self, words: Sequence[str], sentence: Sequence[_Meanings]) -> bool:
        """Whether a sentence says the words and else only of whom: "breathing he is not"."""
        beside = _PEOPLE | self.words
        return all(not beside.isdisjoint(meant) for meant in sentence) and all(
            any(word in meant for meant in sentence) for word in words
        )


class _Reader:
    """Says what the words of one message may mean."""

    def __init__(self, phrases: Phrases, lexicon: Lexicon) -> None:
        self._words, self._lexicon = phrases.words, lexicon
        # "divee" has the stem of "dive", and is in the content no more than in the dictionary.
        own = {lexicon.stems[word] for word in phrases.words if word in lexicon.stems}
        # Of "needes" the content knows the stem alone, that of "need"; words that are no dictionary's stand as they are.
        self._ordinary = phrases.ordinary.union(
            word for word in lexicon.known if (stem := lexicon.stems[word]) not in own and word in (stem, f"{stem}s")
        )
        self._by_length: defaultdict[int, list[str]] = defaultdict(list)
        for word in phrases.words:
            self._by_length[len(word)].append(word)
        self._places: dict[str, Sequence[_Meanings]] = {}

    def read(self, said: Sequence[str]) -> list[_Meanings]:
        """What each word may mean. A negation is two words: "isnt" is "is" and "not"."""
        meanings: list[_Meanings] = []
        place = 0
        while place < len(said):
            pair = said[place : place + 2]
            joined = "".join(pair)
            if len(pair) == 2 and joined in _NEGATED:
                meanings += _take_apart({joined})
            elif len(pair) == 2 and len(joined) >= _SHORTEST_SPLIT and joined in self._words:
                meanings.append(frozenset({joined, *pair}))
            else:
                meanings += self._read_word(said[place])
                place -= 1
            place += 2
        return meanings

    def _read_word(self, word: str) -> Sequence[_Meanings]:
        # A long message says the same words again and again.
        if word not in self._places:
            near = [
                other
                for more in (-1, 0, 1)
                for other in self._by_length[len(word) + more]
                # Words that are a letter apart begin or end alike; most are not compared further.
                if other[0] == word[0] or other[-1] == word[-1]
            ]
            meant = {word, *(other for other in near if self._is_meant(word, other))}
            if len(meant) == 1 and word not in self._words and word not in self._ordinary:
                self._places[word] = [meaning for part in self._split(word) for meaning in _take_apart({part})]
            else:
                self._places[word] = _take_apart(meant)
        return self._places[word]

    def _is_meant(self, word: str, other: str) -> bool:
        """Whether `word` is `other` with a wrong letter."""
        if min(len(word), len(other)) < _SHORTEST or not differ_by_one(word, other):
            return False
        if word not in self._ordinary:
            return True
        # Another form of the word is no other word: "breath" for "breathe", "paralyzed" for "paralysed".
        stems = self._lexicon.stems
        return stems.get(word, word) == stems.get(other, other) or word.replace("z", "s") == other.replace("z", "s")

    def _split(self, word: str) -> Sequence[str]:
        """The words of phrases that `word` is made of. It is the word itself where it is not."""
        if not _SHORTEST_JOINED <= len(word) <= _LONGEST_JOINED:
            return [word]
        parts: dict[int, list[str]] = {0: []}
        for end in range(1, len(word) + 1):
            for start in range(end):
                part = word[start:end]
                if start in parts and (part in self._words or part in _PEOPLE or part in _NEGATED):
                    parts[end] = [*parts[start], part]
                    break  # the longest part: "cannot" and not "can" and "not"
        return parts.get(len(word), [word])


@lru_cache(maxsize=8)
def compile_phrases(phrases: tuple[str, ...]) -> Phrases:
    """`phrases` made ready. It takes about half a second for phrases that were not asked for before."""
    compiled = Phrases(phrases)
    _ = compiled.ordinary
    return compiled


def _take_apart(meant: Collection[str]) -> list[_Meanings]:
    """What is meant at one place of a message: at two places where it is a negation."""
    negated = [_NEGATED[word] for word in meant if word in _NEGATED]
    first, *rest = zip(*negated, strict=False) if negated else [()]
    return [frozenset(meant).difference(_NEGATED).union(first), *map(frozenset, rest)]


def _stand_in(words: Sequence[str], meanings: Sequence[_Meanings]) -> bool:
    """Whether the words stand side by side."""
    return any(
        all(word in meant for word, meant in zip(words, meanings[start:], strict=False))
        for start in range(len(meanings) - len(words) + 1)
    )


def differ_by_one(one: str, other: str) -> bool:
    """Whether one letter is another, missing or too many, or two neighbours have changed places."""
    if abs(len(one) - len(other)) > 1 or one == other:
        return False
    start = 0
    while start < min(len(one), len(other)) and one[start] == other[start]:
        start += 1
    a, b = one[start:], other[start:]
    return a[1:] == b[1:] or a[1:] == b or a == b[1:] or (a[:2] == b[1::-1] and a[2:] == b[2:])
