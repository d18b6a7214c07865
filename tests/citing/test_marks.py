"""The marks of citations in what models write: one form, no number of a passage that is not there, code as it is."""

import itertools
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent_server.citing.marks import MarkReader

KNOWN = frozenset({1, 2, 12})
# What a reader, of whichever page, would take for a citation: a number between two brackets of one kind, in one line.
IN_BRACKETS = (
    r"{0}[ \t]*(?:(?:source|passage)s?[ \t]*:?)?[ \t]*[#^]?[ \t]*(\d+)[ \t]*\^?[ \t]*(?:†[^\n\[\]【】［］]*)?{1}"
)
TAKEN = re.compile(
    "|".join(
        [IN_BRACKETS.format(*pair) for pair in ((r"\[", r"\]"), ("【", "】"), ("［", "］"))]
        + [r"\((?:source|passage)[ \t]+(\d+)\)"]
    ),
    re.IGNORECASE,
)
PARTS = st.one_of(
    st.sampled_from(
        ["[", "]", "(", ")", "【", "】", "†source", "`", "``", "```", "\n", "\n\n", " ", ", ", "; ", "-", "^", "#", ":"]
    ),
    st.sampled_from(
        ["Source ", "see ", "sources: ", "passage", "a", "word ", "é", ".", "!", "\\", "~~~", "(http://x/y)", "> "]
    ),
    st.sampled_from(
        ["0", "1", "2", "3", "9", "12", "99", "2024", "[1]", "[9]", "[1, 9]", "[^9]", "【9†source】", "(Source 9)"]
    ),
)
TEXTS = st.lists(PARTS, max_size=25).map("".join)


def read(text: str, *cuts: int) -> tuple[str, int]:
    """The text as it is shown that comes in pieces cut at these places, and how many numbers are left out."""
    reader = MarkReader(KNOWN)
    places = [0, *sorted(cuts), len(text)]
    shown = [reader.feed(text[a:b]) for a, b in itertools.pairwise(places)]
    return "".join(shown) + reader.finish(), reader.dropped


@pytest.mark.parametrize(
    ("written", "shown", "dropped"),
    [
        ("Wait [1].", "Wait [1].", 0),
        ("Wait [1, 2].", "Wait [1, 2].", 0),
        ("Wait [1][2].", "Wait [1][2].", 0),
        ("Wait [^1].", "Wait [1].", 0),
        ("Wait 【1†source】.", "Wait [1].", 0),
        ("Wait (Source 1).", "Wait [1].", 0),
        ("Wait [Source 1, Source 2].", "Wait [1, 2].", 0),
        ("Wait [[1]].", "Wait [1].", 0),
        ("Wait [citation: 12].", "Wait [12].", 0),
        ("Wait [1](#cite-1).", "Wait [1].", 0),
        ("Wait [1-2].", "Wait [1, 2].", 0),
        ("Wait ([1], [2]).", "Wait ([1], [2]).", 0),
        ("Warte (Quelle 2).", "Warte [2].", 0),
        ("Wait [9].", "Wait.", 1),
        ("Wait [9] and see.", "Wait and see.", 1),
        ("Wait [1, 9].", "Wait [1].", 1),
        ("Wait [8][1][9].", "Wait [1].", 2),
        ("Wait【7†source】.", "Wait.", 1),
        ("Wait【4:0†source】.", "Wait.", 1),
        ("Wait (Source 9).", "Wait.", 1),
        ("Wait (see [9], [8]).", "Wait.", 2),
        ("Wait ([1], [9]).", "Wait ([1]).", 1),
        ("Wait [9](https://example.org/9).", "Wait.", 1),
        ("- [9] Flying\n- [1] Depth", "- Flying\n- [1] Depth", 1),
        ("hours[9]and", "hours and", 1),
        ("[9[8]]", "[9…]", 1),
        ("(1) first, (2) second", "(1) first, (2) second", 0),
        ("An image![9](a.png)", "An image!", 1),
        ("Since [2019], [x] and [a link](https://x.org)", "Since [2019], [x] and [a link](https://x.org)", 0),
        ("`row[9]` and ``a`[9]`` [9]", "`row[9]` and ``a`[9]``", 1),
        ("```python\nrow[9]\n```\nDone [9].", "```python\nrow[9]\n```\nDone.", 1),
        ("~~~\nrow[9]\n~~~\nDone [9].", "~~~\nrow[9]\n~~~\nDone.", 1),
        ("A lone ` tick [9].", "A lone ` tick.", 1),
    ],
)
def test_a_mark_has_one_form_and_stands_for_a_passage_that_is_there(written: str, shown: str, dropped: int) -> None:
    assert read(written) == (shown, dropped)
    assert read(written, *range(len(written))) == (shown, dropped)


@settings(max_examples=400)
@given(TEXTS, st.lists(st.integers(0, 80), max_size=6))
def test_what_is_shown_does_not_depend_on_where_the_answer_is_cut(text: str, cuts: list[int]) -> None:
    whole = read(text)
    assert read(text, *(min(cut, len(text)) for cut in cuts)) == whole
    assert read(text, *range(len(text))) == whole


@settings(max_examples=400)
@given(TEXTS.map(lambda text: re.sub("[`~]", "", text)))
@example("[0】")  # two kinds of brackets, which no reader takes for one pair
def test_no_number_of_a_passage_that_is_not_there_is_shown(text: str) -> None:
    shown, _ = read(text)
    numbers = [int(next(filter(None, found.groups()))) for found in TAKEN.finditer(shown)]
    assert [n for n in numbers if n not in KNOWN and not 1000 <= n < 2200] == []


@given(TEXTS)
def test_what_has_no_bracket_is_shown_as_it_is(text: str) -> None:
    plain = re.sub(r"[\[\]()【】]", "", text)
    assert read(plain) == (plain, 0)


@given(
    st.lists(
        st.sampled_from(
            [
                "word",
                "A.",
                "[1]",
                "[1, 2]",
                "[12]",
                "`row[9]`",
                "``a`[9]``",
                "\n\n",
                "\n```\nrow[9]\n```\n",
                "[2024]",
                "(1)",
            ]
        ),
        max_size=25,
    ).map(" ".join)
)
def test_marks_that_are_as_they_were_told_and_code_stay_as_they_are(text: str) -> None:
    assert read(text) == (text, 0)
