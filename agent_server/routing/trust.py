"""How likely it is that the agent with the highest score is the one that is meant."""

from typing import TYPE_CHECKING

from agent_server.late import Late
from agent_server.routing.scores import Floats

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
else:
    np = Late("numpy")

_NEIGHBOURS = 8
_WEIGHTS = (3.37, 2.0, 1.01, 1.87, 2.17, 0.63)
_OFFSET = -2.6
"""A logistic regression over the signs, from `python -m bench.routing_fit`: the sets in bench/routing_sets, each with
5, 10 and 15 examples of an agent. There the weights of a set come from the other sets."""


def read_signs(scores: Floats, cosines: Floats, owners: "NDArray[np.int64]", known: float) -> Floats:
    """What tells right guesses from wrong ones.

    `scores`: one for each agent; `cosines`: one for each text of an agent, which `owners` names; `known`: the share of the
    message's words that the workspace has. The signs are the highest score, how far ahead it is, how near the nearest text
    is, how much nearer than the nearest one of another agent, the agent's share of the nearest texts, and `known`.
    """
    second, best = np.partition(scores, -2)[-2:]
    own = owners == scores.argmax()
    nearest = np.argsort(-cosines, kind="stable")[:_NEIGHBOURS]
    ahead = cosines[own].max() - cosines[~own].max()
    return np.array([best, best - second, cosines[nearest[0]], ahead, own[nearest].mean(), known])


def estimate(signs: Floats) -> float:
    """How likely the guess is right, 0 to 1."""
    return float(1 / (1 + np.exp(-(signs @ np.array(_WEIGHTS) + _OFFSET))))


def spread(shares: Floats, likely: float) -> Floats:
    """A confidence for each agent: `likely` for the best one. `shares` say how the others compare with it.

    They add up to 1 or less.
    """
    best = int(shares.argmax())
    confidences: Floats = shares / shares[best] * likely
    others = float(confidences.sum()) - likely
    confidences *= min(1.0, (1 - likely) / others) if others > 0 else 1.0
    confidences[best] = likely
    return confidences
