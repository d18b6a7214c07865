"""What a message asks for: its parts, and for each the kind of answer."""

import re

from agent_server.knowledge.words import FUNCTION_WORDS, language_of, words

_ASKS = (
    r"how|what|what's|when|where|which|who|whom|whose|why|can|could|should|do|does|did|is|are|am|was|were|may|might|"
    r"must|will|would|have|has|shall|"
    r"wie|was|wann|wo|woher|wohin|welche[rsnm]?|wer|wen|wem|warum|wieso|womit|kann|darf|muss|soll|gibt|"
    r"¿?\s?(?:cómo|qué|cuándo|dónde|cuál|cuáles|quién|cuánt[oa]s?|por qué|puedo|debo)|"
    r"comment|quand|où|quel(?:le)?s?|qui|combien|pourquoi|est-ce|puis-je|dois-je"
)
_QUESTION = re.compile(
    rf"\W*+(?:(?:and|but|or|so|also|und|aber|oder|y|et)\W*+)?(?:{_ASKS}|at what|in which|for how|from what)\b",
    re.IGNORECASE,
)
_NEXT_QUESTION = re.compile(
    rf"(?:[,;]\s*+|(?<!\s)\s++)(?:and|or|but|und|oder|aber)\s++(?:also\s++)?(?=(?:{_ASKS})\b)|;\s+", re.IGNORECASE
)
PHONE = re.compile(
    r"\b(?:(?:tele)?phone numbers?|hotline|numbers? [^.?!]{0,40}\b(?:call|dial|phone|ring)|(?:call|dial|phone|ring) [^.?!]{0,40}numbers?|"
    r"telefonnummer|notruf\w*|teléfono|téléphone)\b",
    re.IGNORECASE,
)
FIGURE = re.compile(
    r"\b(how (long|deep|far|fast|many|much|often|old|high|cold|warm|hot|big|large|heavy|thick|soon|late|close|strong|wide|tall)|"
    r"what (depth|temperature|age|number|price|size|percentage|time)|minimum|maximum|limit|which number|"
    r"wie (lange?|tief|viele?|hoch|oft|groß|gross|alt|weit|schnell|teuer|schwer)|mindest\w*|höchst\w*|"
    r"cuánt[oa]s?|combien)\b",
    re.IGNORECASE,
)
UNITS = {
    "old": r"age|years?|months?|alter|jahre?",
    "long": r"seconds?|minutes?|hours?|days?|weeks?|months?|years?|nights?|sekunden?|minuten?|stunden?|tagen?|wochen?|monate?|jahre?",
    "often": r"daily|weekly|monthly|yearly|times|once|twice|every|each|per|täglich|wöchentlich|jährlich|mal",
    "deep": r"m|met(?:re|er)s?|feet|ft|depth|tiefe",
    "high": r"m|cm|met(?:re|er)s?|feet|ft|%",
    "tall": r"m|cm|met(?:re|er)s?|feet|ft",
    "far": r"m|km|miles?|met(?:re|er)s?|feet|kilomet(?:re|er)s?",
    "close": r"m|met(?:re|er)s?|feet|ft|cm",
    "fast": r"m/min|km/h|per|minute|second|hour",
    "cold": r"degrees?|°\s?[CF]|celsius|grad",
    "warm": r"degrees?|°\s?[CF]|celsius|grad",
    "hot": r"degrees?|°\s?[CF]|celsius|grad",
    "thick": r"mm|cm|millimet(?:re|er)s?|inch(?:es)?",
    "heavy": r"kg|g|kilograms?|grams?|lbs?|pounds?|kilo",
    "big": r"cm|mm|px|pixels?|mb|gb|kb|inch(?:es)?|m",
    "lange": r"sekunden?|minuten?|stunden?|tagen?|wochen?|monate?|jahre?",
    "groß": r"cm|mm|px|pixel|mb|gb|kb|m",
}
"""For a word after "how" the units of the answer."""
PRICE = re.compile(
    r"\b(costs?|prices?|how much money|cheap\w*|expensive|fees?|kostet|preis|cuesta|precio|coûte|prix)\b", re.IGNORECASE
)
MEANING = re.compile(
    r"tell me (?:more )?about|what (is|are|does|'s) (an? |the )?[\w' -]{1,200}\??$|what does .{1,200} mean|define|explain",
    re.IGNORECASE,
)
TIME = re.compile(
    r"\b(when|what time|best time|which (month|season|day|year)s?|season|wann|cuándo|quand)\b", re.IGNORECASE
)
LIST = re.compile(
    r"\b(which|what) (\w+ ){1,3}(are|is|does|do|can|have|has)\b|\b(list|best|top|names? of|kinds?|types?|ways|steps|options)\b|\bwhat are\b|"
    r"\bwelche\b|\bwas (braucht|gehört|alles)\b|\bqué (\w+ ){1,3}(hay|tiene|son)\b|\bcuáles\b|\bquel(le)?s\b",
    re.IGNORECASE,
)
HOW = re.compile(
    r"\b(how (?!long|deep|far|fast|many|much|often|old|high|cold|warm|big|heavy)|example|usage|syntax|code|command|snippet|install|configur\w+|call|write|run|set up|define|declare|"
    r"wie (?!lange?\b|viele?\b|tief|hoch|oft|groß)|cómo|comment)",
    re.IGNORECASE,
)


def find_units(question: str) -> str:
    """The units, as a pattern, of what a question wants measured; empty where it does not."""
    if re.search(r"\b(?:which|what) (?:phone )?number\b", question, re.IGNORECASE):
        return r"\+?\d[\d ]*\d\d"
    if counted := re.search(r"\b(?:how many|wie viele) (\w{3,30})(?: (\w{4,30}))?", question, re.IGNORECASE):
        # "How many vacation days" is answered in days, "how many people" in people.
        named = [
            word for word in counted.groups() if word and word.lower() not in FUNCTION_WORDS[language_of(question)]
        ]
        return "|".join(rf"{re.escape(word[:-1])}\w{{0,3}}" for word in named)
    found = re.search(r"\b(?:how|wie) (\w+)", question, re.IGNORECASE)
    return UNITS.get(found[1].lower(), "") if found else ""


def split_parts(question: str) -> list[str]:
    """The questions in a message. A statement goes with the question after it, or before it if it is the last."""
    parts: list[str] = []
    said = ""
    for sentence in re.split(r"(?<=[.!?])\s+", " ".join(question.split())):
        for piece in _clauses(sentence):
            if not _QUESTION.match(piece) and not piece.endswith("?"):
                said = f"{said} {piece}".strip()
                continue
            parts.append(f"{said} {piece}".strip())
            said = ""
    if said and parts:
        parts[-1] = f"{parts[-1]} {said}"
    elif said:
        parts.append(said)
    return [part for part in parts if words(part)][:4]


def _clauses(sentence: str) -> list[str]:
    """The questions of a sentence. It is cut before "and how ..." where both sides name something."""
    if not _QUESTION.match(sentence) and "?" not in sentence:
        return [sentence]
    common = FUNCTION_WORDS[language_of(sentence)]
    clauses: list[str] = []
    for clause in (c.strip(" ,;") for c in _NEXT_QUESTION.split(sentence)):
        # "How deep and how long can I dive" is one question: its first half names nothing of its own.
        if clauses and sum(word not in common for word in words(clauses[-1])) < 2:
            clauses[-1] += f" and {clause}"
        elif clause:
            clauses.append(clause)
    return clauses
