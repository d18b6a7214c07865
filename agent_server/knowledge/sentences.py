"""A paragraph -> its sentences. Nothing is cut in brackets, in code or at an abbreviation."""

import re
from collections.abc import Iterator

# A capital or a digit must follow: the full stop in "approx. ten metres" ends no sentence.
_END = re.compile(r"(?<=[.!?…])[\"'”’»)\]*_]*\s+(?=[¿¡\"'“‘„«(\[`*_]*[^\W_a-zß-öø-ÿ])|(?<=[。！？])")
_ABBREVIATION = re.compile(
    # Single letters with full stops (a.k.a., e. g., z. B., p. ej.), and one before a name or at the beginning (J.).
    r"(?:^|(?<=[\s(]))(?:(?:\w{1,2}\.\s?){2,3}|[^\W\d_]\.|"
    r"(?:etc|approx|ca|cf|vs|no|nos|fig|figs|dr|mr|mrs|ms|st|nr|max|min|incl|abs|art|bzw|usw|ggf|evtl|inkl|vgl|"
    r"ziff|zzgl|lit|buchst|kap|sog|tel|gem|mio|mrd|sr|sra|ud|uds|núm|pág|aprox|ej|av|m|mme|p|pp|vol|ed|eds|sec|dept|inc|ltd|jr)\.)$",
    re.IGNORECASE,
)
# "Nr. 5", but "He said no. 5 others agreed": these are abbreviations before a number only.
_NUMBERED = re.compile(r"(?:^|(?<=[\s(]))(?:\d{1,2}|no|nos|art|abs|p|pp|vol|sec)\.$", re.IGNORECASE)


def split_sentences(paragraph: str) -> list[str]:
    """The sentences of a paragraph in order."""
    return [sentence for sentence in _split(paragraph) if sentence]


def _split(text: str) -> Iterator[str]:
    start = 0
    for gap in _END.finditer(text):
        sentence = text[start : gap.start()]
        if _is_open(sentence) or _is_abbreviation(sentence[-24:], text[gap.end() : gap.end() + 1]):
            continue
        yield text[start : gap.end()].strip()
        start = gap.end()
    yield text[start:].strip()


def _is_open(text: str) -> bool:
    """Whether the text ends in brackets or in code."""
    brackets = any(text.count(a) - text.count(b) > 0 for a, b in ("()", "[]"))
    # A bracket that is never closed must not keep a whole page together.
    return (brackets and len(text) < 600) or text.count("`") % 2 == 1


def _is_abbreviation(end: str, follows: str) -> bool:
    if not end.endswith("."):
        return False
    if _NUMBERED.search(end):
        return follows.isdigit() or (end[:-1].split()[-1:] or [""])[0].isdigit()
    return _ABBREVIATION.search(end) is not None
