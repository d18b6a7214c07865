"""A page is cut into passages at its headings; each is a place in the file."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_server.knowledge.chunk import MAX_CHARACTERS, TextChunk, chunk
from agent_server.knowledge.parse import ContentPage, read_page
from tests.knowledge.conftest import Write

LONG = "A sentence that takes its time to say little. " * 6
FENCE = "```python\n" + "".join(f"value_{n} = {n}\n\n" for n in range(80)) + "```\n"
TABLE = "| name | value |\n|---|---|\n" + "".join(f"| row {n} | {n} |\n" for n in range(60))


@pytest.fixture
def cut(write: Write, content: Path) -> "Cut":
    return Cut(write, content)


class Cut:
    """Write a page and cut it: gives the page and its passages."""

    def __init__(self, write: Write, content: Path) -> None:
        self.write, self.content = write, content

    def __call__(self, text: str, path: str = "guide/a.md") -> tuple[ContentPage, list[TextChunk]]:
        page = read_page(self.write(path, text), self.content)
        assert isinstance(page, ContentPage), page
        return page, chunk(page)


def test_a_passage_has_the_headings_above_it(cut: Cut) -> None:
    _, passages = cut(
        f"---\ntitle: Guide\n---\n{LONG}\n\n# Guide\n\n{LONG}\n\n## Install\n\n{LONG}\n\n#### On `Linux`\n\n{LONG}\n\n"
        f"## Use\n\n{LONG}\n\n# Appendix\n\n{LONG}\n"
    )
    assert [passage.heading for passage in passages] == [
        "Guide", "Guide", "Guide > Install", "Guide > Install > On Linux", "Guide > Use", "Guide > Appendix",
    ]  # fmt: skip


def test_short_sections_stay_together_under_what_they_share(cut: Cut) -> None:
    _, passages = cut(f"# Guide\n\nShort.\n\n## One\n\nFirst.\n\n## Two\n\nSecond.\n\n## Three\n\n{LONG}\n\n{LONG}")
    assert [(passage.heading, passage.text[:7]) for passage in passages] == [("Guide", "# Guide")]
    _, passages = cut(f"# Guide\n\n{LONG}\n\n## One\n\nFirst.\n\n## Two\n\n{LONG}\n\n# Other\n\n## Three\n\n{LONG}")
    assert [(passage.heading, passage.text[:8]) for passage in passages] == [
        ("Guide", "# Guide\n"),
        ("Guide", "## One\n\n"),
        ("Guide > Other", "# Other\n"),
    ]


def test_a_section_is_not_taken_for_a_part_of_one_whose_name_begins_alike(cut: Cut) -> None:
    _, passages = cut(f"# Page\n\n{LONG}\n\n## Go\n\n{LONG}\n\n### Fast\n\nYes.\n\n## Gopher\n\n{LONG}")
    assert [passage.heading for passage in passages] == ["Page", "Page > Go", "Page > Go > Fast", "Page > Gopher"]


@pytest.mark.parametrize("block", [FENCE, TABLE], ids=["fence", "table"])
def test_a_block_that_fits_is_not_cut(cut: Cut, block: str) -> None:
    assert MAX_CHARACTERS / 2 < len(block) <= MAX_CHARACTERS
    _, passages = cut(f"# Page\n\n{LONG * 3}\n\n{block}\n{LONG * 3}\n")
    assert [block.strip() in passage.text for passage in passages].count(True) == 1


def test_a_section_that_is_too_long_is_cut_at_its_paragraphs(cut: Cut) -> None:
    _, passages = cut("# Page\n\n" + "\n\n".join(f"Paragraph {n}. {LONG}" for n in range(20)))
    assert len(passages) > 3
    assert all(passage.heading == "Page" and len(passage.text) <= MAX_CHARACTERS for passage in passages)
    assert all(passage.text.startswith("Paragraph") for passage in passages[1:])


def test_pieces_without_words_are_left_out(cut: Cut) -> None:
    _, passages = cut(f"# Page\n\n{LONG}\n\n## Empty\n\n<!-- todo -->\n\n***\n")
    assert [passage.text[:10] for passage in passages] == ["# Page\n\nA "]


def test_a_page_of_headings_alone_can_still_be_found(cut: Cut) -> None:
    _, passages = cut("# Page\n\n## Part\n")
    assert [(passage.heading, passage.text) for passage in passages] == [("Page", "# Page\n\n## Part")]


def test_a_passage_is_named_by_its_place_and_text(cut: Cut) -> None:
    text = f"# Page\n\n{LONG}\n\n## Part\n\n{LONG}\n"
    _, before = cut(text)
    _, again = cut(f"---\ntitle: Page\ntags: [a]\n---\n{text}")
    assert [passage.id for passage in again] == [passage.id for passage in before]
    _, changed = cut(text.replace("little", "much", 1))
    assert [a.id == b.id for a, b in zip(before, changed, strict=True)] == [False, True]
    _, moved = cut(text, path="guide/b.md")
    assert {passage.id for passage in moved}.isdisjoint(passage.id for passage in before)
    assert all(re.fullmatch("[0-9a-f]{20}", passage.id) for passage in before)


def test_the_same_passage_twice_has_two_names(cut: Cut) -> None:
    _, (_, first, second) = cut(f"# Page\n\n{LONG}\n\n## Part\n\n{LONG}\n\n## Part\n\n{LONG}\n")
    assert (first.heading, first.text) == (second.heading, second.text)
    assert first.id != second.id


BLOCKS = st.one_of(
    st.sampled_from(
        [LONG, FENCE, TABLE, "Short.", "- a\n- b\n  - c", "> quoted", ":::note\ntext\n:::", "***", "Ünï 🤿"]
    ),
    st.builds(
        lambda level, text: f"{'#' * level} {text}", st.integers(1, 6), st.sampled_from(["A", "B > C", "`d`", ""])
    ),
    st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=60),
)


@given(blocks=st.lists(BLOCKS, max_size=12), end=st.sampled_from(["\n", "\r\n"]))
def test_every_passage_is_a_place_in_the_file_and_none_overlap(
    tmp_path_factory: pytest.TempPathFactory, blocks: list[str], end: str
) -> None:
    content = tmp_path_factory.mktemp("content")
    file = content / "a.md"
    text = "# Title\n\nwords\n\n" + "\n\n".join(blocks)
    file.write_bytes(text.replace("\n", end).encode())
    page = read_page(file, content)
    assert isinstance(page, ContentPage)
    passages = chunk(page)
    assert passages
    read = file.read_text(encoding="utf-8")
    assert [read[passage.start : passage.end] for passage in passages] == [passage.text for passage in passages]
    assert all(a.end <= b.start for a, b in pairwise(passages))
    assert all(0 < len(passage.text) <= MAX_CHARACTERS and passage.heading.startswith("Title") for passage in passages)
    assert len({passage.id for passage in passages}) == len(passages)
    assert chunk(page) == passages


LINES = st.sampled_from(
    ["# Title", "## Section", "### Sub", "Some words about a thing.", "- item", "| a | b |", "|---|---|", "```", "", "> q",
     "Setext", "---", "===", "word " * 60, "é ü 漢字 🐟", "<!-- note -->", ":::tip", "    code"]
)  # fmt: skip


@given(lines=st.lists(LINES, max_size=60))
def test_no_words_are_lost(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    content = tmp_path_factory.mktemp("content")
    (content / "a.md").write_text("---\ntitle: T\n---\n" + "\n".join([*lines, "Last words."]))
    page = read_page(content / "a.md", content)
    assert isinstance(page, ContentPage)
    passages = chunk(page)
    assert all(page.text[passage.start : passage.end] == passage.text for passage in passages)
    kept = "\n".join(passage.text for passage in passages)
    assert "Last words." in kept
    assert all(line.strip() in kept for line in lines if line.startswith(("Some", "- item", "word", "é")))
