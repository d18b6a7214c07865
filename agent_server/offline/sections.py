"""The pieces that are quoted together: a section, or as much of it around its best piece as fits."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from agent_server.offline.pieces import Piece


def length(pieces: Sequence[Piece]) -> int:
    """The characters of a quote, about."""
    return sum(len(piece.text) + 3 for piece in pieces)


def list_sections(pieces: Sequence[Piece]) -> list[list[int]]:
    """The pieces by the heading under which they stand, as their places in the list."""
    found: dict[tuple[int, int], list[int]] = {}
    for i, piece in enumerate(pieces):
        found.setdefault((piece.n, piece.section), []).append(i)
    return list(found.values())


def grow(
    pieces: Sequence[Piece], section: Sequence[int], best: int, scores: NDArray[np.float64], most: int
) -> list[int]:
    """The pieces of a section that are quoted with its best."""
    section = _with_below(pieces, section)
    if length([pieces[i] for i in section]) <= most:
        return list(section)
    bonds: dict[int, list[int]] = {}
    for i in section:
        bonds.setdefault(pieces[i].bond, []).append(i)
    groups = list(bonds.values())
    at = next(k for k, group in enumerate(groups) if best in group)
    chosen = _fit(pieces, groups[at], best, scores, most)
    low = high = at
    while True:
        near = [k for k in (low - 1, high + 1) if 0 <= k < len(groups)]
        near = [k for k in near if length([pieces[i] for i in [*chosen, *groups[k]]]) <= most]
        if not near:
            return sorted(chosen)
        k = max(near, key=lambda k: max(scores[i] for i in groups[k]))
        chosen = [*chosen, *groups[k]]
        low, high = min(low, k), max(high, k)


def _with_below(pieces: Sequence[Piece], section: Sequence[int]) -> Sequence[int]:
    """A section with those below its heading: sub-headings are often the steps or the list."""
    n, path = pieces[section[0]].n, pieces[section[0]].path
    if len(path) == 1:
        return section
    return [i for i, piece in enumerate(pieces) if piece.n == n and piece.path[: len(path)] == path]


def _fit(pieces: Sequence[Piece], group: Sequence[int], best: int, scores: NDArray[np.float64], most: int) -> list[int]:
    """As much of what belongs together as fits: its best piece, then what is next to it."""
    if length([pieces[i] for i in group]) <= most:
        return list(group)
    chosen = [best]
    at = group.index(best)
    # The sentence that leads to a list is shown with it.
    lead = [i for i in group[:at] if pieces[i].kind == "text"][-1:] if pieces[best].kind != "text" else []
    if lead and length([pieces[i] for i in [*lead, *chosen]]) <= most:
        chosen = [*lead, *chosen]
    low = high = at
    while True:
        near = [k for k in (low - 1, high + 1) if 0 <= k < len(group)]
        near = [k for k in near if group[k] in chosen or length([pieces[i] for i in [*chosen, group[k]]]) <= most]
        if not near:
            return sorted(chosen)
        k = max(near, key=lambda k: scores[group[k]])
        chosen = [*dict.fromkeys([*chosen, group[k]])]
        low, high = min(low, k), max(high, k)
