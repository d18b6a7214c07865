"""Which agent takes a message by its meaning.

The texts of a workspace are the training set: each agent's examples, its description, what its tools are asked with,
and the headings of the content it answers from. A kernel ridge regression over them (cosine of the embeddings plus
cosine of the idf-weighted words) says how much each agent is meant; to it is added which collections the passages
nearest to the message come from. The regression's leave-one-out predictions are exact and cost nothing, so how far its
scores can be trusted is measured on the examples themselves: the spread of the confidences and how sure is sure.

Measured by bench/routing.py. The weights of texts, words and ridge were chosen by leave-one-out. The weight of the
content, the highest sharpness and the floor of sureness were set lower than leave-one-out alone would have them, after
a look at tests/routing_messages.yaml: the figures on those messages are therefore a little too good.
"""

import asyncio
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from agent_server import phrases
from agent_server.knowledge.chunk import SEPARATOR, chunk
from agent_server.knowledge.embedders.base import Embedder
from agent_server.knowledge.parse import read_content
from agent_server.knowledge.words import COMMON, stem, words
from agent_server.tool import Tool

DecidedBy = Literal["meaning", "sticky", "model", "only", "request"]
Floats = NDArray[np.float64]
Vector: TypeAlias = NDArray[np.float32]
Vectors: TypeAlias = NDArray[np.float32]

# What a text counts for; an example is 1.
_DESCRIPTION, _TOPIC, _PHRASE, _HEADING = 2.0, 0.5, 0.5, 0.3
_WORDS = 1.0
"""What the words count for beside the embedding."""
_RIDGE = 2.0
_CONTENT = 0.2
"""What the collections of the nearest passages count for beside the regression."""
_NEAREST = 10
_MOST_SUBJECTS, _MOST_HEADINGS = 2000, 600
"""What is read of a large content; the rest says the same about which collection is about what."""

_SHARPNESS, _SURE, _FAMILIAR = 8.0, 0.7, 0.75
"""Without enough examples to measure them. `_SURE` is a floor in any case: the examples of one author are more like one
another than like what people write, so that being right on all of them promises less than it seems to."""
_SHARPNESSES = (4.0, 5.0, 6.0, 7.0, 8.0)
_ENOUGH_EXAMPLES = 20
_FEW_EXAMPLES = 5
"""An agent with fewer is known by what its tools are asked with, too."""
_RIGHT_WHEN_SURE = 0.98
_CLEARLY = 0.35
"""By how much another agent must be the likelier one to break off a conversation."""

_FOLLOWS = re.compile(
    r"(and|but|or|so|also|then|yes|yeah|yep|no|nope|ok|okay|sure|right|thanks|thank you|please do|go on|go ahead|"
    r"what about|how about|what if|what else|anything else|tell me more|more|why|really|the (first|second|third|last|other))\b"
    r"|.*\b(it|that|this|these|those|them|there|one|ones)\W*$",
    re.IGNORECASE,
)
_FOLLOW_UP_WORDS = 8


@dataclass(frozen=True)
class RoutedAgent:
    """An agent as the router knows it.

    `knowledge` are its collections, its main one first (None: all), `tools` the tools whose phrases are asked of it.
    """

    name: str
    description: str
    examples: Sequence[str] = ()
    knowledge: Sequence[str] | None = ()
    tools: Sequence[Tool[..., Any]] = ()


@dataclass(frozen=True)
class Subject:
    """A section of the content. It tells what its collection is about."""

    collection: str
    heading: str
    text: str


@dataclass(frozen=True)
class Ranked:
    """An agent and how likely it is the one that is meant. `confidence` is 0 to 1."""

    name: str
    confidence: float


@dataclass(frozen=True)
class Decision:
    """Who takes the message.

    `only`: the only agent there is; `meaning`: one that is surely meant; `sticky`: the one that had the last word;
    `model`: whoever the triage agent's model says, `agent` being the best guess; `request`: the client named it.
    """

    agent: str
    confidence: float
    decided_by: DecidedBy
    ranked: Sequence[Ranked]


def subjects(content: Path) -> list[Subject]:
    """The sections of the content folder. Pages with mistakes are left out."""
    pages, _ = read_content(content)
    return [
        Subject(page.collection, piece.heading.replace(SEPARATOR, " "), piece.text)
        for page in pages
        for piece in chunk(page)
    ]


async def build_router(embedder: Embedder, agents: Sequence[RoutedAgent], content: Sequence[Subject] = ()) -> "Router":
    """The router over these agents. Raises ValueError where there is none.

    It takes a second or more, for which the event loop stays free.
    """
    if not agents:
        raise ValueError("there is no agent to route to")
    if len(agents) == 1:
        return Router(embedder, [agents[0].name], None)
    content = content[:: math.ceil(len(content) / _MOST_SUBJECTS) or 1]
    samples = _samples(agents, content)
    vectors = await embedder.embed([sample.text for sample in samples])
    sections = await embedder.embed([_section_text(subject) for subject in content]) if content else None
    # inverting a matrix with a row for each text takes most of a second
    ranking = await asyncio.to_thread(_Ranking, agents, samples, vectors, content, sections)
    return Router(embedder, [agent.name for agent in agents], ranking)


class Router:
    """Ranks the agents of a workspace for a message. `ranking` is None where there is one agent."""

    def __init__(self, embedder: Embedder, names: Sequence[str], ranking: "_Ranking | None") -> None:
        self._embedder, self._names, self._ranking = embedder, names, ranking

    async def rank(self, message: str) -> list[Ranked]:
        """The agents with the likeliest one first.

        The confidences add up to 1 or, for a message unlike anything known, less.
        """
        if self._ranking is None:
            return [Ranked(self._names[0], 1.0)]
        if (certain := self._ranking.certain(message)) is not None:
            confidences = np.full(len(self._names), 0.01 / (len(self._names) - 1))
            confidences[certain] = 0.99
        else:
            (vector,) = await self._embedder.embed([message])
            confidences = self._ranking.confidences(message, vector)
        order = np.argsort(-confidences, kind="stable")
        return [Ranked(self._names[i], float(confidences[i])) for i in order]

    async def decide(self, message: str, last: str | None) -> Decision:
        """Who takes `message` in a conversation where `last` answered before."""
        ranked = await self.rank(message)
        best = ranked[0]
        if self._ranking is None:
            return Decision(best.name, 1.0, "only", ranked)
        before = next((r for r in ranked if r.name == last), None)
        sure = best.confidence >= self._ranking.sure
        if before is not None and before != best and _follows(message) and best.confidence < 0.99:
            return Decision(before.name, before.confidence, "sticky", ranked)
        if sure:
            return Decision(best.name, best.confidence, "meaning", ranked)
        if before is not None and (best.confidence - before.confidence < _CLEARLY or _follows(message)):
            return Decision(before.name, before.confidence, "sticky", ranked)
        return Decision(best.name, best.confidence, "model", ranked)


class _Ranking:
    """What is known of two or more agents. Made once from their samples and the content, with the vectors of both."""

    def __init__(
        self,
        agents: Sequence[RoutedAgent],
        samples: Sequence["_Sample"],
        vectors: Vectors,
        content: Sequence[Subject],
        sections: Vectors | None,
    ) -> None:
        self._content = _Content(agents, content, sections) if sections is not None else None
        self._known = {tuple(words(s.text)): s for s in reversed(samples) if s.is_example}
        self._owners = _owners(agents)
        self._vocabulary = _Vocabulary([*(s.text for s in samples), *(s.text for s in content)])
        self._regression = _Regression(samples, vectors)
        self._calibrate(samples, vectors)

    def confidences(self, message: str, vector: Vector) -> Floats:
        """How likely each agent is the one that is meant."""
        scores = self._regression.predict(message, vector)
        if self._content is not None:
            scores = scores + _CONTENT * self._content.shares(message, vector)
        return _softmax(self._sharpness * scores) * min(1.0, self._share_known(message) / self._familiar)

    def certain(self, message: str) -> int | None:
        """The agent that has the message as an example.

        Else it is the only one with a tool that the message plainly asks for.
        """
        if known := self._known.get(tuple(words(message))):
            return int(np.argmax(known.label))
        asked = phrases.match(message, self._owners)
        return self._owners[asked.tool] if asked else None

    def _share_known(self, message: str, *, own: bool = False) -> float:
        """The share of a message's words that the workspace has.

        Rare ones count for more. `own`: the message is a sample itself, whose words must stand elsewhere too.
        """
        said = {stem(word) for word in words(message) if word not in COMMON}
        weights = {word: self._vocabulary.idf(word) for word in said}
        known = sum(weight for word, weight in weights.items() if self._vocabulary.counts[word] > own)
        return known / sum(weights.values()) if weights else 1.0

    def _calibrate(self, samples: Sequence["_Sample"], vectors: Vectors) -> None:
        """Learn from the examples how far scores are to be trusted. Each is predicted without itself."""
        rows = [i for i, sample in enumerate(samples) if sample.is_example]
        self._sharpness, self.sure, self._familiar = _SHARPNESS, _SURE, _FAMILIAR
        if len(rows) < _ENOUGH_EXAMPLES:
            return
        scores = self._regression.leave_one_out(rows)
        if self._content is not None:
            scores = scores + _CONTENT * np.array([self._content.shares(samples[i].text, vectors[i]) for i in rows])
        truth = np.array([np.argmax(samples[i].label) for i in rows])
        shares = [self._share_known(samples[i].text, own=True) for i in rows]
        self._familiar = min(max(float(np.quantile(shares, 0.25)), 0.3), _FAMILIAR)
        self._sharpness = min(_SHARPNESSES, key=lambda t: _loss(t * scores, truth))
        confidences = _softmax(self._sharpness * scores)
        self.sure = _threshold(confidences.max(axis=1), confidences.argmax(axis=1) == truth)


@dataclass(frozen=True)
class _Sample:
    """A text and for whom it speaks. `label` has a share for each agent, 1 in all."""

    text: str
    label: Floats
    weight: float
    is_example: bool = False


def _samples(agents: Sequence[RoutedAgent], content: Sequence[Subject]) -> list[_Sample]:
    samples = []
    owners = _owners(agents)  # a tool that several agents have says nothing about which of them is meant
    for agent, label in zip(agents, np.eye(len(agents)), strict=True):
        topics = [t for t in re.split(r"[,;:.\n]| and ", agent.description) if t.strip()]
        asked = [
            p
            for tool in agent.tools
            if tool in owners
            for p in (tool.description.partition("\n")[0], *map(_bare, tool.phrases))
        ]
        samples += [_Sample(text, label, 1.0, True) for text in agent.examples]
        samples += [_Sample(agent.description, label, _DESCRIPTION)]
        samples += [_Sample(text, label, _TOPIC) for text in topics]
        samples += [_Sample(text, label, _PHRASE) for text in dict.fromkeys(asked)]
    headings = {subject.heading: subject.collection for subject in content}
    shares = _shares(agents)
    kept = list(headings.items())[:: math.ceil(len(headings) / _MOST_HEADINGS) or 1]
    return samples + [_Sample(text, shares(collection), _HEADING) for text, collection in kept]


def _bare(phrase: str) -> str:
    """A phrase without its arguments and signs."""
    return re.sub(r"\{[^}]*\}|[\[\]|]", " ", phrase)


def _shares(agents: Sequence[RoutedAgent]) -> Any:
    """Collection -> for whom it speaks. It speaks for those that answer from it, more for one that names it earlier."""

    def shares(collection: str) -> Floats:
        weights = np.array([_claim(agent.knowledge, collection) for agent in agents])
        return weights / weights.sum() if weights.any() else np.full(len(agents), 1 / len(agents))

    return shares


def _claim(knowledge: Sequence[str] | None, collection: str) -> float:
    if knowledge is None:
        return 0.25
    return 1 / (1 + list(knowledge).index(collection)) if collection in knowledge else 0.0


def _owners(agents: Sequence[RoutedAgent]) -> Mapping[Tool[..., Any], int]:
    """The tools that one agent alone has with the agent's place."""
    owners: dict[Tool[..., Any], int] = {}
    count = Counter(tool for agent in agents for tool in agent.tools)
    for place, agent in enumerate(agents):
        owners.update({tool: place for tool in agent.tools if count[tool] == 1})
    return owners


class _Vocabulary:
    """In how many texts each stem stands."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.counts = Counter(word for text in texts for word in set(map(stem, words(text))))
        self._n = len(texts)

    def idf(self, word: str) -> float:
        return math.log(1 + (self._n - self.counts[word] + 0.5) / (self.counts[word] + 0.5))


class _Regression:
    """Kernel ridge regression from texts to agents."""

    def __init__(self, samples: Sequence[_Sample], vectors: Vectors) -> None:
        self._terms = Counter(term for sample in samples for term in _terms(sample.text))
        self._places = {term: place for place, term in enumerate(self._terms)}
        self._n = len(samples)
        lexical = self._word_vectors([s.text for s in samples])
        # by term: a message has a few of the thousands, and only their rows are read (all of them take 20 ms)
        self._by_term = np.ascontiguousarray(lexical.T)
        dense = vectors.astype(np.float64)
        own = [i for i, s in enumerate(samples) if s.is_example or s.weight == _DESCRIPTION]
        self._mean = dense[own].mean(axis=0)
        self._dense = _unit(dense - self._mean)
        kernel = self._dense @ self._dense.T + _WORDS * lexical @ lexical.T
        self._inverse = np.linalg.inv(kernel + np.diag(_RIDGE / np.array([s.weight for s in samples])))
        labels = np.array([s.label for s in samples])
        self._targets = labels - 1 / labels.shape[1]
        self._dual = self._inverse @ self._targets

    def predict(self, message: str, vector: Vector) -> Floats:
        """A score for each agent."""
        dense = _unit(vector[None].astype(np.float64) - self._mean)
        places, weights = self._weigh(message)
        near = (dense @ self._dense.T)[0] + _WORDS * weights @ self._by_term[places]
        scores: Floats = near @ self._dual
        return scores

    def leave_one_out(self, rows: Sequence[int]) -> Floats:
        """What would be predicted for samples that had not been there. `rows` are their places."""
        scores: Floats = self._targets[rows] - self._dual[rows] / np.diag(self._inverse)[rows, None]
        return scores

    def _word_vectors(self, texts: Sequence[str]) -> Floats:
        vectors = np.zeros((len(texts), len(self._places)))
        for row, text in enumerate(texts):
            places, weights = self._weigh(text)
            vectors[row, places] = weights
        return vectors

    def _weigh(self, text: str) -> tuple[list[int], Floats]:
        """The places of the text's known terms and what each weighs. The weights are a vector of length 1."""
        terms = sorted((place, term) for term in _terms(text) if (place := self._places.get(term)) is not None)
        weights = np.array([math.log(1 + self._n / self._terms[term]) for _, term in terms])
        return [place for place, _ in terms], _unit(weights)


def _section_text(subject: Subject) -> str:
    """What a section is compared by. Its heading counts twice."""
    return f"{subject.heading} {subject.heading}\n{subject.text}"


class _Content:
    """The sections of the content and for whom the nearest of them speak."""

    def __init__(self, agents: Sequence[RoutedAgent], content: Sequence[Subject], vectors: Vectors) -> None:
        self._dense = vectors
        self._counts = [Counter(map(stem, words(_section_text(subject)))) for subject in content]
        self._df = Counter(word for counts in self._counts for word in counts)
        lengths = np.array([counts.total() for counts in self._counts])
        self._length = 1.2 * (0.25 + 0.75 * lengths / max(float(lengths.mean()), 1.0))
        self._postings: dict[str, list[int]] = {}
        for place, counts in enumerate(self._counts):
            for word in counts:
                self._postings.setdefault(word, []).append(place)
        shares = _shares(agents)
        self._shares = np.array([shares(s.collection) for s in content])
        self._silent = np.array([agent.knowledge == () or agent.knowledge == [] for agent in agents])

    def shares(self, message: str, vector: Vector) -> Floats:
        """The shares of the agents in the nearest sections. An agent without content is neither for nor against."""
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


def _terms(text: str) -> set[str]:
    """The stems of a text and its pairs of neighbours. "How do" and "remind me" tell agents apart as topics do."""
    stems = [stem(word) for word in words(text)]
    return {*stems, *(f"{a} {b}" for a, b in zip(["^", *stems], stems, strict=False))}


def _follows(message: str) -> bool:
    """Whether a message only makes sense after another.

    Such a message is short, and it begins or ends like one, or names nothing.
    """
    said = words(message)
    if len(said) > _FOLLOW_UP_WORDS:
        return False
    return bool(_FOLLOWS.match(message.strip())) or all(word in COMMON for word in said)


def _unit(vectors: Floats) -> Floats:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: Floats = np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 1e-9)
    return unit


def _softmax(scores: Floats) -> Floats:
    exponents = np.exp(scores - scores.max(axis=-1, keepdims=True))
    result: Floats = exponents / exponents.sum(axis=-1, keepdims=True)
    return result


def _loss(scores: Floats, truth: NDArray[np.int64]) -> float:
    return float(-np.log(_softmax(scores)[np.arange(len(truth)), truth] + 1e-9).mean())


def _threshold(confidences: Floats, right: NDArray[np.bool_]) -> float:
    """The lowest confidence above which the examples are nearly always right. It is `_SURE` or more."""
    order = np.argsort(-confidences)
    precision = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    good = np.flatnonzero(precision >= _RIGHT_WHEN_SURE)
    return max(_SURE, float(confidences[order[good[-1]]])) if len(good) else 0.95
