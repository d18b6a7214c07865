"""Which agent takes a message by its meaning.

The texts of a workspace are the training set: each agent's examples, its description, what its tools are asked with,
and the headings of the content it answers from. A kernel ridge regression over them (cosine of the embeddings, of the
idf-weighted words and of their pieces) says how much each agent is meant; to it are added how near the nearest texts of
the agent are, and which collections the passages nearest to the message come from. How far the scores can be trusted was
measured on other agents' messages (trust.py).

Measured by bench/routing.py.
"""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from agent_server import phrases
from agent_server.folding import unify
from agent_server.knowledge.embedders.base import Embedder
from agent_server.knowledge.words import COMMON, stem, words
from agent_server.late import Late
from agent_server.routing.agents import RoutedAgent, Sample, Subject, list_samples, owners_of, section_text, subjects
from agent_server.routing.follow_ups import follows
from agent_server.routing.predict import Nearest, Regression
from agent_server.routing.scores import Floats, Vector, Vectors, Vocabulary, softmax
from agent_server.routing.trust import estimate, read_signs, spread

if TYPE_CHECKING:
    import numpy as np
else:
    np = Late("numpy")

__all__ = ["Decision", "Ranked", "RoutedAgent", "Router", "Subject", "build_router", "subjects"]

DecidedBy = Literal["meaning", "sticky", "model", "only", "request"]

# Chosen after a look at tests/routing_messages.yaml: the figures on those messages are a little too good.
_CONTENT = 0.2
"""What the collections of the nearest passages count for beside the regression."""
_MOST_SUBJECTS = 2000
"""What is read of a large content; the rest says the same about which collection is about what."""

_SHARPNESS = 6.0
"""How quickly the agents behind the best one fall off."""
_SURE = 0.9
_CERTAIN = 0.99
_CLEARLY = 0.15
"""By how much another agent must be the likelier one to break off a conversation."""


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


async def build_router(embedder: Embedder, agents: Sequence[RoutedAgent], content: Sequence[Subject] = ()) -> "Router":
    """The router over these agents. Raises ValueError where there is none.

    It takes a second or more, for which the event loop stays free.
    """
    if not agents:
        raise ValueError("there is no agent to route to")
    if len(agents) == 1:
        return Router(embedder, [agents[0].name], None)
    # Every n-th section and not the first ones: each collection keeps its share.
    content = content[:: math.ceil(len(content) / _MOST_SUBJECTS) or 1]
    samples = list_samples(agents, content)
    vectors = await embedder.embed([unify(sample.text) for sample in samples])
    sections = await embedder.embed([unify(section_text(subject)) for subject in content]) if content else None
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
        return (await self._rank(message))[0]

    async def _rank(self, message: str) -> tuple[list[Ranked], bool]:
        """The agents with the likeliest one first, and whether that one is sure."""
        if self._ranking is None:
            return [Ranked(self._names[0], 1.0)], True
        if (certain := self._ranking.certain(message)) is not None:
            # Never quite 1: the rest keeps the others in the ranking, and 0.99 is what `decide` takes for certain.
            confidences = np.full(len(self._names), 0.01 / (len(self._names) - 1))
            confidences[certain] = _CERTAIN
            scores, sure = confidences, True
        else:
            (vector,) = await self._embedder.embed([unify(message)])
            scores, confidences, sure = self._ranking.score(message, vector)
        # By the scores: a message unlike anything known has no confidence in any agent, and still fits one best.
        order = np.argsort(-scores, kind="stable")
        return [Ranked(self._names[i], float(confidences[i])) for i in order], sure

    async def read_signs(self, message: str) -> tuple[str, Floats]:
        """The best guess by its score, and the signs that tell whether it is right (see trust.py).

        Raises ValueError where there is one agent: nothing is guessed.
        """
        if self._ranking is None:
            raise ValueError("there is one agent, and nothing to guess")
        (vector,) = await self._embedder.embed([unify(message)])
        scores, signs = self._ranking.read(message, vector)
        return self._names[int(scores.argmax())], signs

    async def decide(self, message: str, last: str | None) -> Decision:
        """Who takes `message` in a conversation where `last` answered before."""
        ranked, sure = await self._rank(message)
        best = ranked[0]
        if self._ranking is None:
            return Decision(best.name, 1.0, "only", ranked)
        before = next((r for r in ranked if r.name == last), None)
        # Before the test for sure: "and in winter?" may look like the subject of another agent, and is a follow-up.
        if before is not None and before != best and follows(message) and best.confidence < _CERTAIN:
            return Decision(before.name, before.confidence, "sticky", ranked)
        if sure:
            return Decision(best.name, best.confidence, "meaning", ranked)
        if before is not None and (best.confidence - before.confidence < _CLEARLY or follows(message)):
            return Decision(before.name, before.confidence, "sticky", ranked)
        return Decision(best.name, best.confidence, "model", ranked)


class _Ranking:
    """What is known of two or more agents. Made once from their samples and the content, with the vectors of both."""

    def __init__(
        self,
        agents: Sequence[RoutedAgent],
        samples: Sequence["Sample"],
        vectors: Vectors,
        content: Sequence[Subject],
        sections: Vectors | None,
    ) -> None:
        self._content = Nearest(agents, content, sections) if sections is not None else None
        # Reversed, so that the first of two equal examples counts.
        self._known = {tuple(words(s.text)): s for s in reversed(samples) if s.is_example}
        self._owners = owners_of(agents)
        self._vocabulary = Vocabulary([*(s.text for s in samples), *(s.text for s in content)])
        self._regression = Regression(samples, vectors)

    def score(self, message: str, vector: Vector) -> tuple[Floats, Floats, bool]:
        """A score for each agent, how likely it is the one that is meant, and whether the likeliest is sure."""
        scores, signs = self.read(message, vector)
        likely = estimate(signs)
        return scores, spread(softmax(_SHARPNESS * scores), likely), likely >= _SURE

    def read(self, message: str, vector: Vector) -> tuple[Floats, Floats]:
        """A score for each agent, and the signs that tell whether the highest one is right."""
        said = words(message)
        scores, cosines = self._regression.predict(said, vector)
        if self._content is not None:
            scores = scores + _CONTENT * self._content.shares(said, vector)
        return scores, read_signs(scores, cosines, self._regression.owners, self._share_known(said))

    def certain(self, message: str) -> int | None:
        """The agent that has the message as an example.

        Else it is the only one with a tool that the message plainly asks for.
        """
        if known := self._known.get(tuple(words(message))):
            return int(np.argmax(known.label))
        asked = phrases.match(message, self._owners)
        return self._owners[asked.tool] if asked else None

    def _share_known(self, said: Sequence[str]) -> float:
        """The share of a message's words that the workspace has. Rare ones count for more."""
        weights = {word: self._vocabulary.idf(word) for word in {stem(w) for w in said if w not in COMMON}}
        known = sum(weight for word, weight in weights.items() if self._vocabulary.counts[word])
        return known / sum(weights.values()) if weights else 1.0
