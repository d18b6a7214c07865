"""What a model thinks in its text is parted from what it says, wherever the pieces of its stream are cut."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_server.models.thoughts import Thoughts, split_unopened

TAGS = [("<think>", "</think>"), ("<thinking>", "</thinking>"), ("[THINK]", "[/THINK]"), ("◁think▷", "◁/think▷")]
WORDS = st.text(st.sampled_from("abc <>/[]think◁▷\n"), max_size=40)
CUTS = st.lists(st.integers(0, 60), max_size=6)


def part(text: str, cuts: list[int]) -> tuple[str, str]:
    """What is thought and said in a text that is cut at these places."""
    places = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    thoughts, parts = Thoughts(), []
    for a, b in itertools.pairwise(places):
        parts.append(thoughts.part(text[a:b]))
    parts.append(thoughts.part("", last=True))
    return "".join(thought for thought, _ in parts), "".join(said for _, said in parts)


@given(st.sampled_from(TAGS), WORDS, WORDS, st.sampled_from(["", " ", "\n\n"]), CUTS)
def test_a_thought_at_the_start_is_none_of_the_text(
    tags: tuple[str, str], thought: str, said: str, space: str, cuts: list[int]
) -> None:
    begin, end = tags
    thought = thought.replace(end, "")
    if any(said.lstrip().startswith(other[: len(said.lstrip())]) for other, _ in TAGS):
        said = f"Yes. {said}"
    assert part(f"{space}{begin}{thought}{end}{space}{said}", cuts) == (thought, said.lstrip())


@given(WORDS, CUTS)
def test_nothing_is_lost_of_a_text_without_a_thought_at_its_start(said: str, cuts: list[int]) -> None:
    said = f"Yes{said}"
    assert part(said, cuts) == ("", said)


@pytest.mark.parametrize("text", ["<", "<thin", "  <think", "[T", "", " \n"])
def test_what_only_begins_as_a_tag_is_said(text: str) -> None:
    assert part(text, list(range(9))) == ("", text)


def test_a_thought_that_is_never_ended_is_none_of_the_text() -> None:
    assert part("<think>so what", [3, 9]) == ("so what", "")


@pytest.mark.parametrize(
    ("text", "parted"),
    [
        ("The user is rude.\n</think>\n\nHello!", ("The user is rude.", "Hello!")),
        ("so\n[/THINK]\nHello", ("so", "Hello")),
        ("so what</think>", ("so what", "")),
        ("Write `</think>` at the end.", None),
        ("<think>so</think>\nHello", None),
        ("Hello", None),
    ],
)
def test_a_thought_that_only_ends_is_parted_when_the_text_is_whole(text: str, parted: tuple[str, str] | None) -> None:
    assert split_unopened(text) == parted
