"""Text as it is compared: what looks alike on a screen is alike here, however it was typed.

    apostrophes    ’ ‘ ʼ ′ ´ ＇ and their kin are ', and so is ` between two letters
    forms          full and half width, ligatures, composed and decomposed accents are one (Unicode's NFKC)
    spaces         of every width are a plain one; ends of lines and tabs stay
    invisible      characters that nobody sees go: soft hyphens, joiners, marks of direction

Search, routing, the phrases of tools and emergencies compare text in this form, so that none of them knows another
spelling. What is shown or stored as somebody's words stays as it was written.
"""

import re
import unicodedata

APOSTROPHES = "'’‘‛′‵ʼʻʽˈˊˋꞌꞋ՚׳´΄᾽᾿῾＇`｀"
# The property Default_Ignorable_Code_Point of Unicode 16 (DerivedCoreProperties.txt), as ranges of a character class.
IGNORED = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_IGNORED = re.compile(f"[{IGNORED}]")
# In these scripts a space without a width is what parts two words: Thai, Lao, Tibetan, Burmese, Khmer.
_PARTING = "\u0e00-\u109f\u1780-\u17b3\u17b6-\u17ff"
_PARTED = re.compile(f"(?<=[{_PARTING}])\u200b|\u200b(?=[{_PARTING}])")
_SPACE = re.compile(r"[^\S\n\t\r]")
_RARE_SPACE = re.compile("[\x0b\x0c\x1c-\x1f]")
_BACKTICK = re.compile(r"(?<=\w)`(?=\w)")
# A space with an accent is what Unicode makes of ´ and its Greek kin.
_APOSTROPHE = re.compile("[’‘‛′‵ʼʻʽˈˊˋꞌꞋ՚׳]| [\u0301\u0313\u0314]|(?<=\\w)`(?=\\w)")
_ACCENT = re.compile("[\u0300-\u036f]")
# The blocks that have marks: to look at all of Unicode takes as long as to import a small library.
_MARKED = (
    range(0x300, 0x3400),
    range(0xA000, 0xAC00),
    range(0xFB00, 0x12000),
    range(0x13400, 0x17000),
    range(0x1BC00, 0x1EA00),
)


def _list_marks() -> str:
    """Every mark of Unicode, as ranges of a character class, which compile sooner than one by one."""
    marks = [code for codes in _MARKED for code in codes if unicodedata.category(chr(code))[0] == "M"]
    begins = [code for code, before in zip(marks, [-1, *marks], strict=False) if code != before + 1]
    ends = [code for code, after in zip(marks, [*marks[1:], -1], strict=True) if code != after - 1]
    return "".join(f"{chr(begin)}-{chr(end)}" for begin, end in zip(begins, ends, strict=True))


_LETTER = f"[^\\W_][{_list_marks()}{IGNORED}]*"
WORD = f"(?:{_LETTER})+(?:[{APOSTROPHES}](?:{_LETTER})+)*"
"""The pattern of a word, in text that is folded or not. Marks and what is invisible go with the letter before them."""


def unify(text: str) -> str:
    """`text` in its one form, with its capitals."""
    if text.isascii():  # most texts: all that is looked for below is spaces and a backtick, in a tenth of the time
        text = _RARE_SPACE.sub(" ", text)
        return _BACKTICK.sub("'", text) if "`" in text else text
    text = _SPACE.sub(" ", unicodedata.normalize("NFKD", text))
    text = _IGNORED.sub("", _PARTED.sub(" ", text))
    # Once more: what has gone may have stood between a letter and its accents.
    return _APOSTROPHE.sub("'", unicodedata.normalize("NFKC", text))


def fold(text: str) -> str:
    """`text` in its one form, without its capitals. To fold it again changes nothing."""
    if text.isascii():
        return unify(text).lower()
    return unify(unify(text).casefold())


def drop_accents(text: str) -> str:
    """`text` without the accents of European scripts. The marks of other scripts are letters and stay."""
    return unicodedata.normalize("NFC", _ACCENT.sub("", unicodedata.normalize("NFD", text)))
