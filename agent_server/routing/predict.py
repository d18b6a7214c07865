"""What the samples and the content say about a message."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from agent_server.knowledge.words import stem, words
from agent_server.late import Late
from agent_server.routing.agents import DESCRIPTION, RoutedAgent, Sample, Subject, section_text, shares_of
from agent_server.routing.scores import Floats, Vector, Vectors, list_terms, unit

if TYPE_CHECKING:
    import numpy as np
else:
    np = Late("numpy")

_WORDS = 1.0
"""What the words count for beside the embedding."""
# Chosen by leave-one-out over the examples (bench/routing.py), as the weights of the texts are.
_RIDGE = 2.0
_NEAREST = 10


class Regression:
    """Kernel ridge regression from texts to agents."""

    def __init__(self, samples: Sequence[Sample], vectors: Vectors) -> None:
        self._terms = Counter(term for sample in samples for term in list_terms(sample.text))
        self._places = {term: place for place, term in enumerate(self._terms)}
        self._n = len(samples)
        lexical = self._word_vectors([s.text for s in samples])
        dense = vectors.astype(np.float64)
        # The mean is what all messages share. Headings are no messages, and there are many more of them.
        own = [i for i, s in enumerate(samples) if s.is_example or s.weight == DESCRIPTION]
        self._mean = dense[own].mean(axis=0)
        dense = unit(dense - self._mean)
        kernel = dense @ dense.T + _WORDS * lexical @ lexical.T
        # A text of little weight gets a larger ridge: it is fitted less closely.
        inverse = np.linalg.inv(kernel + np.diag(_RIDGE / np.array([s.weight for s in samples])))
        labels = np.array([s.label for s in samples])
        # Centred: a message that is like no text is then for and against nobody.
        self._targets = labels - 1 / labels.shape[1]
        self._dual = inverse @ self._targets
        # What remains of the matrices, which take 25 MB: what each number of a vector and each term say for each agent.
        self._diagonal = np.diag(inverse).copy()
        self._by_meaning, self._by_term = dense.T @ self._dual, _WORDS * lexical.T @ self._dual

    def predict(self, message: str, vector: Vector) -> Floats:
        """A score for each agent."""
        dense = unit(vector[None].astype(np.float64) - self._mean)
        places, weights = self._weigh(message)
        scores: Floats = (dense @ self._by_meaning)[0] + weights @ self._by_term[places]
        return scores

    def leave_one_out(self, rows: Sequence[int]) -> Floats:
        """What would be predicted for samples that had not been there. `rows` are their places."""
        # The closed form of leave-one-out for kernel ridge regression: nothing is fitted again.
        scores: Floats = self._targets[rows] - self._dual[rows] / self._diagonal[rows, None]
        return scores

    def _word_vectors(self, texts: Sequence[str]) -> Floats:
        vectors = np.zeros((len(texts), len(self._places)))
        for row, text in enumerate(texts):
            places, weights = self._weigh(text)
            vectors[row, places] = weights
        return vectors

    def _weigh(self, text: str) -> tuple[list[int], Floats]:
        """The places of the text's known terms and what each weighs. The weights are a vector of length 1."""
        # Sorted: a set has another order in each process, and sums of floats depend on the order.
        terms = sorted((place, term) for term in list_terms(text) if (place := self._places.get(term)) is not None)
        weights = np.array([math.log(1 + self._n / self._terms[term]) for _, term in terms])
        return [place for place, _ in terms], unit(weights)


class Nearest:
    """The sections of the content and for whom the nearest of them speak."""

    def __init__(self, agents: Sequence[RoutedAgent], content: Sequence[Subject], vectors: Vectors) -> None:
        self._dense = vectors
        self._counts = [Counter(map(stem, words(section_text(subject)))) for subject in content]
        self._df = Counter(word for counts in self._counts for word in counts)
        lengths = np.array([counts.total() for counts in self._counts])
        # BM25 with k1 1.2 and b 0.75, as `lexvec` has it; 2.2 below is k1 + 1.
        self._length = 1.2 * (0.25 + 0.75 * lengths / max(float(lengths.mean()), 1.0))
        self._postings: dict[str, list[int]] = {}
        for place, counts in enumerate(self._counts):
            for word in counts:
                self._postings.setdefault(word, []).append(place)
        shares = shares_of(agents)
        self._shares = np.array([shares(s.collection) for s in content])
        self._silent = np.array([agent.knowledge == () or agent.knowledge == [] for agent in agents])

    def shares(self, message: str, vector: Vector) -> Floats:
        """The shares of the agents in the nearest sections. An agent without content is neither for nor against."""
        # The same sum as in the search, with the same weight (knowledge/search.py).
        scores = 0.5 * (self._dense @ vector) + self._bm25(message)
        nearest = np.argsort(-scores, kind="stable")[:_NEAREST]
        weights = np.exp((scores[nearest] - scores[nearest[0]]) / 0.05)
        shares: Floats = weights @ self._shares[nearest] / weights.sum()
        return np.where(self._silent, 1 / len(shares), shares)

    def _bm25(self, message: str) -> Floats:
        """BM25 as a share of the highest that a section could have."""
        n = len(self._counts)
        scores, bound = np.zeros(n), 0.0
        for word in {stem(word) for word in words(message)}:
            idf = math.log(1 + (n - self._df[word] + 0.5) / (self._df[word] + 0.5))
            bound += 2.2 * idf
            for place in self._postings.get(word, ()):
                tf = self._counts[place][word]
                scores[place] += 2.2 * idf * tf / (tf + self._length[place])
        return scores / bound if bound else scores
