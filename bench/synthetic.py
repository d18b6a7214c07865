"""A content of any size, and questions about it: words of the English dictionary, as often as people use them, and topics.

It is the same for the same size. Each page has sections of one topic; a question takes words of a topic, every tenth one
with a letter wrong.
"""

import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import spellchecker

SECTIONS = 10
"""Sections of a page, each of which becomes one passage."""
SHARES = (("large", 0.4), ("middle", 0.1), ("small", 0.01))
"""Collections and their share of the pages; the rest is in `rest`."""
_FREQUENT, _RARE = 4_000, 30_000
_WORDS_OF_TOPIC = 40
_ASKED = ("How do I {}?", "What is {}?", "Why does {} fail?", "where can I find {}", "{}")


@dataclass(frozen=True)
class _Words:
    frequent: Sequence[str]
    weights: "np.ndarray[tuple[int], np.dtype[np.float64]]"
    topics: Sequence[Sequence[str]]


def write_content(folder: Path, passages: int) -> None:
    """Write pages that become so many passages."""
    random = np.random.default_rng(1)
    words = _load_words(passages)
    pages = passages // SECTIONS
    for number in range(pages):
        topic = words.topics[random.integers(len(words.topics))]
        text = "\n\n".join(_write_section(random, words, topic) for _ in range(SECTIONS))
        file = folder / _collection_of(number / pages) / f"{number:06}.md"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"# {' '.join(random.choice(topic, 3)).title()}\n\n{text}\n", encoding="utf-8")


def list_questions(passages: int, count: int) -> list[str]:
    random = np.random.default_rng(2)
    words = _load_words(passages)
    return list(_ask(random, words, count))


def _ask(random: np.random.Generator, words: _Words, count: int) -> Iterator[str]:
    for number in range(count):
        topic = words.topics[random.integers(len(words.topics))]
        said = [*random.choice(topic, random.integers(1, 4), replace=False), *random.choice(words.frequent[100:], 2)]
        if number % 10 == 0:
            said[0] = said[0][:2] + said[0][3:]
        yield _ASKED[number % len(_ASKED)].format(" ".join(random.permutation(said)))


def _collection_of(place: float) -> str:
    for name, share in SHARES:
        if place < share:
            return name
        place -= share
    return "rest"


def _write_section(random: np.random.Generator, words: _Words, topic: Sequence[str]) -> str:
    length = int(random.integers(60, 140))
    said = random.choice(words.frequent, length, p=words.weights)
    of_topic = random.random(length) < 0.3
    said[of_topic] = random.choice(topic, int(of_topic.sum()))
    sentences = [" ".join(said[first : first + 12]).capitalize() + "." for first in range(0, length, 12)]
    return f"## {' '.join(random.choice(topic, 2)).title()}\n\n{' '.join(sentences)}"


def _load_words(passages: int) -> _Words:
    file = Path(spellchecker.__file__).parent / "resources" / "en.json.gz"
    counts = json.loads(gzip.decompress(file.read_bytes()))
    known = sorted((word for word in counts if word.isalpha()), key=lambda word: (-counts[word], word))
    frequent, rare = known[:_FREQUENT], known[_FREQUENT // 4 : _RARE]
    rare = np.array(rare, dtype=object)
    weights = np.array([counts[word] for word in frequent], dtype=float)
    random = np.random.default_rng(0)
    topics = [list(random.choice(rare, _WORDS_OF_TOPIC)) for _ in range(max(passages // 50, 20))]
    return _Words(np.array(frequent, dtype=object), weights / weights.sum(), topics)
