"""Words and their stems.

Some words say nothing of what a text is about. All is for English, as the search's configuration is.
"""

import re
from functools import lru_cache

from agent_server.folding import WORD, fold

# Numbers with separators (1.5, 10:30) and words with an apostrophe are one word each.
_NUMBER = r"\d+(?:[.,:]\d+)+"
_WORD = re.compile(rf"{_NUMBER}|{WORD}")
# The same for plain text, in a third of the time: most messages have no other letters.
_PLAIN_WORD = re.compile(rf"{_NUMBER}|[a-z0-9]+(?:['`][a-z0-9]+)*")
# Longer endings stand before the shorter ones they end with: the first that fits is taken.
_ENDINGS = ("ations", "ation", "ments", "ment", "ings", "ing", "edly", "ers", "ies", "er", "ed", "es", "ly", "s", "e")
COMMON = frozenset(
    "a about after again all also am an and any are as at be because been before being but by can could did do does "  # noqa: SIM905
    "doing don't each else for from further give go got had has have having he her here hers him his how i i'd i'll "
    "i'm i've if in into is isn't it it's its just know let like make many may me might mine more most much must my near "
    "need no nor not now of off ok okay on once one only or other our ours out over own please put really same say shall "
    "she should so some something such take tell than thank thanks that that's the their them then there these they "
    "thing things this those through to too under until up us use very want was we were what what's when where which "
    "while who whom whose why will with without would yes you your yours".split()
)


def words(text: str) -> list[str]:
    """The words and numbers of a text, folded."""
    folded = fold(text)
    return (_PLAIN_WORD if folded.isascii() else _WORD).findall(folded)


@lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """A word without its English ending. `diver`, `dives` and `diving` are one."""
    word = word.removesuffix("'s")
    if len(word) < 3 or not word.isalpha():
        return word
    for ending in _ENDINGS:
        # "us", "ss" and "is" end words that are no plurals: bus, glass, axis.
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith(("us", "ss", "is")):
            word = word[: -len(ending)]
            break
    # "easy" becomes what is left of "easily"; in the line below "swimm", left of "swimming", becomes "swim".
    word = word[:-1] + "i" if word.endswith("y") else word
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "aeiou" else word
