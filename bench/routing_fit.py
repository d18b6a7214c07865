"""The weights of agent_server/routing/trust.py, fitted anew

python -m bench.routing_fit

Each set of bench/routing_sets gives messages whose best guess is right or wrong, and messages for nobody, where any is
wrong. Agents have 5, 10 or 15 of their examples and messages as examples, drawn anew, and the rest are messages. The
figures of a set come from weights that were fitted to the other sets.
"""

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent_server.knowledge.embedders.wordllama import WordLlama
from agent_server.routing import RoutedAgent, build_router
from bench.routing import LabelledSet, load_sets

_EXAMPLES = (15, 15, 10, 5)
_NOBODY = 0.5
"""What a message for nobody counts for: there are fewer of them in life than in the sets."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Guesses:
    """The signs of some guesses, whether each is right, and which are of messages for nobody."""

    signs: Floats
    right: NDArray[np.bool_]
    nobody: NDArray[np.bool_]


def draw(labelled: LabelledSet, seed: int) -> Iterator[LabelledSet]:
    """The set as it stands, then with other messages as examples."""
    yield labelled
    drawn = random.Random(seed)  # the same sets each time
    nobody = [row for row in labelled.messages if row[1] is None]
    for count in _EXAMPLES:
        agents: list[RoutedAgent] = []
        messages: list[tuple[str, str | None]] = []
        for agent in labelled.agents:
            said = [*agent.examples, *(m for m, name in labelled.messages if name == agent.name)]
            drawn.shuffle(said)
            agents.append(replace(agent, examples=said[:count]))
            messages += [(m, agent.name) for m in said[count:]]
        yield LabelledSet(labelled.name, agents, [*messages, *nobody])


async def read_guesses(labelled: LabelledSet) -> Guesses:
    router = await build_router(WordLlama(), labelled.agents)
    read = [(await router.read_signs(message), agent) for message, agent in labelled.messages]
    return Guesses(
        np.array([signs for (_, signs), _ in read]),
        np.array([name == agent for (name, _), agent in read]),
        np.array([agent is None for _, agent in read]),
    )


def fit(all_guesses: list[Guesses]) -> Floats:
    """Logistic regression by Newton's method, with a small ridge. The last number is the offset."""
    signs = np.concatenate([g.signs for g in all_guesses])
    right = np.concatenate([g.right for g in all_guesses]).astype(float)
    counts = np.where(np.concatenate([g.nobody for g in all_guesses]), _NOBODY, 1.0)
    mean, deviation = signs.mean(axis=0), signs.std(axis=0)
    rows = np.c_[(signs - mean) / deviation, np.ones(len(signs))]
    ridge = np.r_[np.ones(signs.shape[1]), 1e-6]
    weights = np.zeros(rows.shape[1])
    for _ in range(30):
        likely = 1 / (1 + np.exp(-rows @ weights))
        slope = rows.T @ (counts * (likely - right)) + ridge * weights
        curve = rows.T @ (rows * (counts * likely * (1 - likely))[:, None]) + np.diag(ridge)
        weights -= np.linalg.solve(curve, slope)
    scaled = weights[:-1] / deviation
    return np.r_[scaled, weights[-1] - scaled @ mean]


def show(name: str, guesses: list[Guesses], weights: Floats) -> None:
    """Of the guesses that are 90 % likely: their share, how many are right, and how many messages for nobody are there."""
    for guess in guesses[:1]:
        likely = 1 / (1 + np.exp(-(guess.signs @ weights[:-1] + weights[-1])))
        sure, inside = likely >= 0.9, ~guess.nobody
        precision = guess.right[sure & inside].mean() if (sure & inside).any() else float("nan")
        print(
            f"{name}: accuracy {guess.right[inside].mean():.3f}, of these sure {sure[inside].mean():.3f} "
            f"and right {precision:.3f}; for nobody {sure[guess.nobody].mean():.3f}"
        )


async def main() -> None:
    found: dict[str, list[Guesses]] = {}
    for seed, labelled in enumerate(load_sets()):
        found[labelled.name] = [await read_guesses(one) for one in draw(labelled, seed)]
    for name, guesses in found.items():
        show(name, guesses, fit([g for other, of_other in found.items() if other != name for g in of_other]))
    weights: Any = fit([g for guesses in found.values() for g in guesses])
    print("_WEIGHTS =", tuple(round(float(w), 2) for w in weights[:-1]))
    print("_OFFSET =", round(float(weights[-1]), 2))


if __name__ == "__main__":
    asyncio.run(main())
