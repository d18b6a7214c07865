"""How far an answer without a language model looks.

It looks further than what a model is given: each quote is weighed as evidence before it is shown.
"""

MORE = 3
"""So many passages more."""
SHARE = 0.6
"""The least score of a passage as a share of what a model is given."""


def widen(limit: int, min_score: float) -> tuple[int, float]:
    """How many passages are looked up for quotes, and their least score, from what they are for a model."""
    return limit + MORE, SHARE * min_score
