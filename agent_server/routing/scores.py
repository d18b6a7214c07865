"""How near texts are to one another by their words and their vectors."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from agent_server.knowledge.words import COMMON, stem, words
from agent_server.late import Late

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]
    Vector: TypeAlias = NDArray[np.float32]
    Vectors: TypeAlias = NDArray[np.float32]
else:
    np = Late("numpy")
    Floats = Vector = Vectors = Any


class Vocabulary:
    """In how many texts each stem stands."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.counts = Counter(word for text in texts for word in set(map(stem, words(text))))
        self._n = len(texts)

    def idf(self, word: str) -> float:
        return math.log(1 + (self._n - self.counts[word] + 0.5) / (self.counts[word] + 0.5))


def list_terms(said: Sequence[str]) -> set[str]:
    """The stems of a text's words and its pairs of neighbours."""
    # Common words too, and "^" for the beginning: "how do" and "remind me" tell agents apart as topics do.
    stems = [stem(word) for word in said]
    return {*stems, *(f"{a} {b}" for a, b in zip(["^", *stems], stems, strict=False))}


def list_spellings(said: Sequence[str]) -> set[str]:
    """The pieces of three and four letters of a text's words. A misspelt word has most of them."""
    bounded = [f"<{word}>" for word in said if word not in COMMON]
    return {word[i : i + size] for word in bounded for size in (3, 4) for i in range(len(word) - size + 1)}


def unit(vectors: Floats) -> Floats:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    # A text without tokens is a vector of zeros and stays one.
    unit: Floats = np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 1e-9)
    return unit


def softmax(scores: Floats) -> Floats:
    # The largest score is taken off first: exp overflows from about 710 on.
    exponents = np.exp(scores - scores.max(axis=-1, keepdims=True))
    result: Floats = exponents / exponents.sum(axis=-1, keepdims=True)
    return result
