"""Text that looks alike is alike when it is compared, and nothing of it is lost."""

import re
import sys
import unicodedata
from typing import Literal, TypeAlias, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_server.folding import APOSTROPHES, IGNORED, WORD, drop_accents, fold, unify

Form: TypeAlias = Literal["NFC", "NFD", "NFKC", "NFKD"]
FORMS: tuple[Form, ...] = get_args(Form)
EVERY = [c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c) not in ("Cs", "Co", "Cn")]
# Letters with marks, kinds of one letter, and what folding is about, close to one another.
_SPACES = " \t\n\xa0\u3000\u1680\u2028\u200b\u200d\u034f\u3164\ufe0f👩"
TRICKY = st.sampled_from(
    [
        *_SPACES,
        *APOSTROPHES,
        *"aeoAZİıßſŉǰΐᾳᾼςΣ½①㎞ﬁ가각힣あガがｶﾞ中ب١९กำ",
        *"\u0301\u0308\u0313\u0323\u0345\u3099\u0e33",
    ]
)
TEXTS = st.text() | st.text(TRICKY, max_size=8) | st.text(st.characters(categories=("L", "M", "N", "Z", "Cf")))


def test_of_every_character_twice_is_once_and_its_forms_are_one() -> None:
    text = "\n".join(EVERY)
    for change in (fold, unify):
        once = change(text)
        assert change(once) == once
        for form in FORMS:
            assert change(unicodedata.normalize(form, text)) == once, form


@given(TEXTS)
def test_twice_is_once(text: str) -> None:
    assert fold(fold(text)) == fold(text)
    assert unify(unify(text)) == unify(text)
    assert fold(unify(text)) == fold(text)


@given(TEXTS, st.sampled_from(FORMS))
def test_the_forms_of_a_text_are_one(text: str, form: Form) -> None:
    assert fold(unicodedata.normalize(form, text)) == fold(text)
    assert unify(unicodedata.normalize(form, text)) == unify(text)


def test_no_letter_and_no_digit_of_any_script_is_lost() -> None:
    for character in EVERY:
        if character in APOSTROPHES or re.match(f"[{IGNORED}]", character):
            continue
        # Unicode counts a few Arabic marks on a space among the letters.
        if re.search(r"[^\W_]", unicodedata.normalize("NFKD", character)):
            assert re.search(r"[^\W_]", fold(character)), ascii(character)
        elif not character.isspace() and character.isprintable():
            assert fold(character).strip(), ascii(character)  # emoji and signs


@given(st.text(st.characters(categories=("Lo", "Nd", "So"), exclude_characters="\u115f\u1160\u3164\uffa0")))
def test_what_has_no_case_and_one_form_stays_as_it_is(text: str) -> None:
    if unicodedata.normalize("NFKC", text) == text and text.casefold() == text:
        assert fold(text) == text


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        *((f"don{apostrophe}t", "don't") for apostrophe in APOSTROPHES),
        ("ＰＡＤＩ　Ｎｉｔｒｏｘ", "padi nitrox"),
        ("cafe\u0301", "café"),
        ("un\u200bcon\u00adscious", "unconscious"),
        ("not\xa0breathing\u202fat\u2003all", "not breathing at all"),
        ("ﬁn", "fin"),
        ("STRASSE", fold("straße")),
        ("ｶﾞｲﾄﾞ", "ガイド"),
        ("潜水 🤿 غوص 2026", "潜水 🤿 غوص 2026"),
        ("`code` is code", "`code` is code"),
        ("ខ្មែរ\u200bភាសា", "ខ្មែរ ភាសា"),
        ("one\ntwo\tthree", "one\ntwo\tthree"),
    ],
)
def test_text_that_looks_alike_is_alike(written: str, plain: str) -> None:
    assert fold(written) == plain


@given(TEXTS)
def test_a_word_holds_every_letter_of_a_text_with_its_marks(text: str) -> None:
    rest = re.sub(WORD, " ", text)
    assert not re.search(r"[^\W_]", rest)
    assert [fold(word) for word in re.findall(WORD, "cafe\u0301 un\u200bdone don´t")] == ["café", "undone", "don't"]


def test_every_mark_of_unicode_belongs_to_the_letter_before_it() -> None:
    marks = [c for c in EVERY if unicodedata.category(c)[0] == "M"]
    assert [c for c in marks if not re.fullmatch(WORD, f"a{c}")] == []


def test_accents_go_and_other_marks_stay() -> None:
    assert drop_accents("café Ünïcode Ελλάς") == "cafe Unicode Ελλας"
    assert drop_accents("ガイド हिन्दी") == "ガイド हिन्दी"


@given(st.text(st.characters(max_codepoint=127)) | st.text(st.sampled_from("aZ_`' \t\n\r\x0b\x0c\x1c\x1f")))
def test_a_text_of_ascii_alone_is_what_it_is_beside_other_characters(text: str) -> None:
    # What nobody sees goes, and has all of the text be looked at.
    assert unify(f"{text}\u00ad") == unify(text)
    assert fold(f"{text}\u00ad") == fold(text)
