"""What the samples and the content say about a message."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from agent_server.knowledge.words import stem, words
from agent_server.late import Late
from agent_server.routing.agents import DESCRIPTION, RoutedAgent, Sample, Subject, section_text, shares_of
from agent_server.routing.scores import Floats, Vector, Vectors, list_spellings, list_terms, unit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
else:
    np = Late("numpy")

# Chosen on the sets in bench/routing_sets, on new splits of each into examples and messages.
_MEANING, _WORDS, _SPELLING = 1.5, 1.0, 0.3
"""What the embedding, the words and the pieces of words count for."""
_RIDGE = 3.0
_ALIKE = 0.2
"""What the nearest texts of an agent count for beside the regression."""
_MOST_ALIKE = 2
_NEAREST = 10


class Regression:
    """Kernel ridge regression from texts to agents, and how near the nearest texts of each agent are."""

    def __init__(self, samples: Sequence[Sample], vectors: Vectors) -> None:
        said = [words(sample.text) for sample in samples]
        self._terms = _Terms(list(map(list_terms, said)))
        # A heading is no message, and there are many more of them.
        own = [i for i, s in enumerate(samples) if not s.is_heading]
        self._spellings = _Terms([list_spellings(said[i]) for i in own])
        dense = vectors.astype(np.float64)
        # The mean is what all messages share.
        messages = [i for i, s in enumerate(samples) if s.is_example or s.weight == DESCRIPTION]
        self._mean = dense[messages].mean(axis=0)
        dense = unit(dense - self._mean)
        lexical, spelling = self._terms.vectors, self._spellings.vectors
        kernel = _MEANING * dense @ dense.T + _WORDS * lexical @ lexical.T
        kernel[np.ix_(own, own)] += _SPELLING * spelling @ spelling.T
        labels = np.array([s.label for s in samples])
        # Centred: a message that is like no text is then for and against nobody.
        targets = labels - 1 / labels.shape[1]
        # A text of little weight gets a larger ridge: it is fitted less closely.
        dual = np.linalg.solve(kernel + np.diag(_RIDGE / np.array([s.weight for s in samples])), targets)
        # What remains of the matrices, which take 25 MB: what each number of a vector and each term say for each agent.
        self._by_meaning = _MEANING * dense.T @ dual
        self._by_term = _WORDS * lexical.T @ dual
        self._by_spelling = _SPELLING * spelling.T @ dual[own]
        self._terms.forget()
        self._spellings.forget()
        self._dense = dense[own]
        self.owners = labels[own].argmax(axis=1)
        # A row for each agent; -1 fills it up to the longest.
        self._texts = np.full((labels.shape[1], max(np.bincount(self.owners, minlength=labels.shape[1]))), -1)
        for agent, row in enumerate(self._texts):
            places = np.flatnonzero(self.owners == agent)
            row[: len(places)] = places

    def predict(self, said: Sequence[str], vector: Vector) -> tuple[Floats, Floats]:
        """A score for each agent, and the cosine of each of their texts, whose agents are `owners`.

        `said` are the words of the message and `vector` is its embedding.
        """
        dense = unit(vector[None].astype(np.float64) - self._mean)[0]
        scores: Floats = dense @ self._by_meaning
        for terms, by_term, found in (
            (self._terms, self._by_term, list_terms(said)),
            (self._spellings, self._by_spelling, list_spellings(said)),
        ):
            places, weights = terms.weigh(found)
            scores = scores + weights @ by_term[places]
        cosines: Floats = self._dense @ dense
        return scores + self._compare(cosines), cosines

    def _compare(self, cosines: Floats) -> Floats:
        """What the nearest texts of each agent add to its score."""
        # Place -1 is what is added here: no text is as far away.
        cosines = np.append(cosines, -1.0)
        most = min(_MOST_ALIKE, self._texts.shape[1])
        near = np.partition(cosines[self._texts], -most, axis=1)[:, -most:].mean(axis=1)
        alike: Floats = _ALIKE * (near - near.mean())
        return alike


class _Terms:
    """The terms of some texts and how much each of them says."""

    def __init__(self, texts: Sequence[set[str]]) -> None:
        # Sorted: a set has another order in each process, and sums of floats depend on the order.
        found = [sorted(terms) for terms in texts]
        counts = Counter(term for terms in found for term in terms)
        self._places = {term: place for place, term in enumerate(counts)}
        self._weights = np.array([math.log(1 + len(texts) / count) for count in counts.values()])
        self.vectors = np.zeros((len(texts), len(counts)))
        for row, terms in enumerate(found):
            places, weights = self.weigh(terms)
            self.vectors[row, places] = weights

    def forget(self) -> None:
        """Let go of the vectors of the texts."""
        del self.vectors

    def weigh(self, terms: Iterable[str]) -> tuple[list[int], Floats]:
        """The places of the known terms and what each weighs. The weights are a vector of length 1."""
        places = sorted(place for term in terms if (place := self._places.get(term)) is not None)
        return places, unit(self._weights[places])


class Nearest:
    """The sections of the content and for whom the nearest of them speak."""

    def __init__(self, agents: Sequence[RoutedAgent], content: Sequence[Subject], vectors: Vectors) -> None:
        self._dense = vectors
        counts = [Counter(map(stem, words(section_text(subject)))) for subject in content]
        # BM25 with k1 1.2 and b 0.75, as `lexvec` has it; 2.2 below is k1 + 1.
        lengths = np.array([count.total() for count in counts])
        norms = 1.2 * (0.25 + 0.75 * lengths / max(float(lengths.mean()), 1.0))
        postings: dict[str, list[tuple[int, int]]] = {}
        for place, count in enumerate(counts):
            for word, tf in count.items():
                postings.setdefault(word, []).append((place, tf))
        self._idf = {w: math.log(1 + (len(counts) - len(p) + 0.5) / (len(p) + 0.5)) for w, p in postings.items()}
        self._unknown = math.log(1 + (len(counts) + 0.5) / 0.5)
        self._weights = {w: _weigh(np.array(p), norms, self._idf[w]) for w, p in postings.items()}
        shares = shares_of(agents)
        self._shares = np.array([shares(s.collection) for s in content])
        self._silent = np.array([agent.knowledge == () or agent.knowledge == [] for agent in agents])

    def shares(self, said: Sequence[str], vector: Vector) -> Floats:
        """The shares of the agents in the nearest sections. An agent without content is neither for nor against."""
        # The same sum as in the search, with the same weight (knowledge/search.py).
        scores = 0.5 * (self._dense @ vector) + self._bm25(said)
        nearest = np.argsort(-scores, kind="stable")[:_NEAREST]
        weights = np.exp((scores[nearest] - scores[nearest[0]]) / 0.05)
        shares: Floats = weights @ self._shares[nearest] / weights.sum()
        return np.where(self._silent, 1 / len(shares), shares)

    def _bm25(self, said: Sequence[str]) -> Floats:
        """BM25 as a share of the highest that a section could have."""
        scores, bound = np.zeros(len(self._dense)), 0.0
        # Sorted: sums of floats depend on the order, and a set has another one in each process.
        for word in sorted(set(map(stem, said))):
            bound += 2.2 * self._idf.get(word, self._unknown)
            if found := self._weights.get(word):
                scores[found[0]] += found[1]
        return scores / bound if bound else scores


def _weigh(postings: "NDArray[np.int64]", norms: Floats, idf: float) -> tuple["NDArray[np.int32]", Floats]:
    """The sections that have a word, and what it adds to the score of each."""
    places, tf = postings[:, 0], postings[:, 1]
    return places.astype(np.int32), 2.2 * idf * tf / (tf + norms[places])
