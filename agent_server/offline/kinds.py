"""How much a piece of text is of the kind that a question asks for: a figure, a price, a time, a telephone
number, a meaning, a list, steps."""

import re

from agent_server.knowledge.words import words
from agent_server.offline import asks
from agent_server.offline.pieces import Piece

UNIT, BARE = 1.4, 0.4
"""What a figure with the unit that is asked for counts, and one without it."""

_FIGURE = re.compile(
    r"\d|\b(two|three|four|five|six|seven|eight|nine|ten|twelve|twenty|thirty|half|once|twice|every (\w+ )?(day|week|month|year)|"
    r"zwei|drei|vier|fünf|sechs|sieben|acht|neun|zehn|zwölf|zwanzig)\b",
    re.IGNORECASE,
)
_PRICE = re.compile(
    r"[$€£¥]\s?\d|\d[\d.,]{0,15}\s?(?:[$€£¥]|(?:usd|eur|gbp|chf|dollars?|euros?|pounds?|pesos?|francs?|cents?)\b)|\d,-|"
    r"\b(?:free of charge|for free|at no cost|no charge|half price|kostenlos|kostenfrei|gratis|gratuit\w*)\b",
    re.IGNORECASE,
)
_MEANING = re.compile(r"(an? |the )?([\w'()-]++ ){1,5}(is|are|means?|describes?)\b", re.IGNORECASE)
_TIME = re.compile(
    r"\b(january|february|march|april|may|june|july|august|september|october|november|december|spring|summer|autumn|"
    r"winter|seasons?|all year)\b",
    re.IGNORECASE,
)
# With the country or the area before it, or one of the short numbers for emergencies.
_PHONE = re.compile(r"\+\d[\d ()/-]{6,20}\d|\b0\d[\d ()/-]{5,20}\d\b|\b(?:112|911|999|000|110|118|119)\b")
_YES_OR_NO = re.compile(
    r"\W*(?:[^?.]{0,80}[.,:] )?(can|could|may|must|do|does|did|is|are|am|was|were|will|would|should|shall|have|has|"
    r"kann|können|darf|dürfen|muss|müssen|soll|ist|sind|hat|habe|puedo|debo|hay|est-ce|puis-je|dois-je)\b",
    re.IGNORECASE,
)
_RULE = re.compile(
    r"\b(must|may|can|cannot|can't|only|not|never|no|don't|doesn't|won't|should|required|optional|allowed|permitted|yes|"
    r"nicht|kein\w*|nur|darf|dürfen|muss|müssen|kann|können|nunca|no|solo|debe|puede|ne|pas|seulement|doit|peut)\b",
    re.IGNORECASE,
)
_RANGE = re.compile(r"(?<!\d)(\d++(?:\.\d++)?)\s*+(?:to|and|bis|[-–])\s*+(\d++(?:\.\d++)?)")


def fits(part: str, piece: Piece) -> float:
    """How much a piece is of the kind that the part of a question asks for; 0 where it is not, 1 where it is."""
    text = piece.text
    price = bool(asks.PRICE.search(part) and has_price(text))
    time = asks.TIME.search(part)
    in_time = bool(time and _TIME.search(text)) + bool(time and asks.TIME.search(piece.heading))
    meaning = bool(asks.MEANING.match(part) and _MEANING.match(text))
    phone = bool(asks.PHONE.search(part) and _PHONE.search(text))
    listed = bool(asks.LIST.search(part) and piece.kind in ("list", "table"))
    how = bool(asks.HOW.search(part) and (piece.kind == "code" or (piece.kind == "list" and piece.marker != "-")))
    return (
        max(_figure(part, text), float(meaning or listed or price or how)) + in_time + phone + has_numbers(part, text)
    )


def _figure(part: str, text: str) -> float:
    if not asks.FIGURE.search(part) or not _FIGURE.search(text):
        return 0.0
    units = asks.find_units(part)
    if not units:
        return 1.0
    return UNIT if re.search(rf"(?<![^\W\d_])(?:{units})(?!\w)", text, re.IGNORECASE) else BARE


def gives_rule(part: str, text: str) -> bool:
    """Whether a yes-or-no question meets a text that says what may, must or cannot be."""
    return bool(_YES_OR_NO.match(part) and _RULE.search(text))


def has_price(text: str) -> bool:
    """Whether a text names a price."""
    return _PRICE.search(text) is not None


def has_numbers(part: str, text: str) -> bool:
    """Whether a text has all numbers of the question, if there are any; 22 degrees are within "20 to 24 degrees"."""
    given = [word for word in words(part) if word.isdigit()]
    ranges = _RANGE.findall(text) if given else ()
    held = words(text) if given else ()
    return bool(given) and all(
        number in held or any(float(a) <= float(number) <= float(b) for a, b in ranges) for number in given
    )
