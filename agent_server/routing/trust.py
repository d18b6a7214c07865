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
"""A logistic regression over the signs, from `python -m bench.routing --fit`: the sets in bench/routing_sets, each with
5, 10 and 15 examples of an agent. There the weights of a set come from the other sets."""


def read_signs(scores: Floats, cosines: Floats, owners: "NDArray[np.int64]", known: Floats) -> Floats:
    """What tells right guesses from wrong ones, a row for each message.

    `scores`: a column for each agent; `cosines`: a column for each text of an agent, which `owners` names; `known`: the
    share of each message's words that the workspace has. The signs are the highest score, how far ahead it is, how near
    the nearest text is, how much nearer than the nearest one of another agent, the agent's share of the nearest texts,
    and `known`.
    """
    best, ordered = scores.argmax(axis=1), np.sort(scores, axis=1)
    own = owners[None] == best[:, None]
    nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :_NEIGHBOURS]
    signs: Floats = np.stack(
        [
            ordered[:, -1],
            ordered[:, -1] - ordered[:, -2],
            cosines.max(axis=1),
            np.where(own, cosines, -1).max(axis=1) - np.where(own, -1, cosines).max(axis=1),
            np.take_along_axis(own, nearest, axis=1).mean(axis=1),
            known,
        ],
        axis=1,
    )
    return signs


def estimate(signs: Floats) -> Floats:
    """How likely each message's guess is right, 0 to 1."""
    likely: Floats = 1 / (1 + np.exp(-(signs @ np.array(_WEIGHTS) + _OFFSET)))
    return likely


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
