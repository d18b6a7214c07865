"""The pieces that are quoted together: a section, or as much of it around its best piece as fits."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from agent_server.offline.pieces import Piece

# What begins so takes back or limits what stands before it.
_LIMITS = re.compile(
    r"\W*(?:but|however|except|exceptions?|unless|otherwise|instead|though|although|not so|this does not|this is not|that does not|"
    r"these do not|only (?:if|when|where|with)|aber|jedoch|allerdings|außer|ausgenommen|ausnahmen?|sonst|dies gilt nicht|das gilt nicht|"
    r"pero|sin embargo|excepto|salvo|mais|cependant|toutefois|sauf|excepté)\b",
    re.IGNORECASE,
)


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
    needs = {i: _need(pieces, section, i) for i in section}
    bonds: dict[int, list[int]] = {}
    for i in section:
        bonds.setdefault(pieces[i].bond, []).append(i)
    groups = list(bonds.values())
    at = next(k for k, group in enumerate(groups) if best in group)
    chosen = _fit(pieces, groups[at], best, scores, most, needs)
    low = high = at
    while True:
        near = [k for k in (low - 1, high + 1) if 0 <= k < len(groups)]
        wider = {k: _close([*chosen, *groups[k]], needs) for k in near}
        near = [k for k in near if length([pieces[i] for i in wider[k]]) <= most]
        if not near:
            return chosen
        k = max(near, key=lambda k: max(scores[i] for i in groups[k]))
        chosen = wider[k]
        low, high = min(low, k), max(high, k)


def _with_below(pieces: Sequence[Piece], section: Sequence[int]) -> Sequence[int]:
    """A section with those below its heading: sub-headings are often the steps or the list."""
    n, path = pieces[section[0]].n, pieces[section[0]].path
    if len(path) == 1:
        return section
    return [i for i, piece in enumerate(pieces) if piece.n == n and piece.path[: len(path)] == path]


def _need(pieces: Sequence[Piece], section: Sequence[int], i: int) -> list[int]:
    """What has to be quoted with a piece, because the piece alone may say the opposite.

    These are the sentence that leads to its list, table or code, the item that it stands under, the sentence that limits
    it, and, where it limits itself, the one before it.
    """
    at, piece = section.index(i), pieces[i]
    before = section[:at]
    needed = [k for k in before if piece.kind != "text" and pieces[k].bond == piece.bond and pieces[k].kind == "text"][
        -1:
    ]
    needed += [k for k in before if pieces[k].block == piece.block and pieces[k].depth < piece.depth][-1:]
    if before and _limits(piece):
        needed.append(before[-1])
    after = section[at + 1 : at + 2]
    return needed + [k for k in after if _limits(pieces[k])]


def _limits(piece: Piece) -> bool:
    return piece.kind == "text" and _LIMITS.match(piece.text) is not None


def _close(chosen: Sequence[int], needs: Mapping[int, Sequence[int]]) -> list[int]:
    """The pieces with all that has to be quoted with them, in order."""
    closed = dict.fromkeys(chosen)
    waiting = list(closed)
    while waiting:
        new = [k for k in needs[waiting.pop()] if k not in closed]
        closed |= dict.fromkeys(new)
        waiting += new
    return sorted(closed)


def _fit(
    pieces: Sequence[Piece],
    group: Sequence[int],
    best: int,
    scores: NDArray[np.float64],
    most: int,
    needs: Mapping[int, Sequence[int]],
) -> list[int]:
    """As much of what belongs together as fits: its best piece, then what is next to it."""
    whole = _close(group, needs)
    if length([pieces[i] for i in whole]) <= most:
        return whole
    # This much is quoted also where it is longer: without it the piece may mislead.
    chosen = _close([best], needs)
    low = high = group.index(best)
    while True:
        near = [k for k in (low - 1, high + 1) if 0 <= k < len(group)]
        wider = {k: _close([*chosen, group[k]], needs) for k in near}
        near = [k for k in near if group[k] in chosen or length([pieces[i] for i in wider[k]]) <= most]
        if not near:
            return chosen
        k = max(near, key=lambda k: scores[group[k]])
        chosen = wider[k]
        low, high = min(low, k), max(high, k)
