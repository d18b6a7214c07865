"""Pages and passages: any Markdown, offsets that hold, nothing cut that should not be."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_server.errors import Mistake
from agent_server.knowledge.chunk import MAX_CHARACTERS, chunk
from agent_server.knowledge.embedders.wordllama import WordLlama
from agent_server.knowledge.parse import ContentPage, read_content, read_page

LINES = st.sampled_from(
    ["# Title", "## Section", "### Sub", "Some words about a thing.", "- item", "| a | b |", "|---|---|", "```", "", "> q",
     "Setext", "---", "===", "word " * 60, "é ü 漢字 🐟", "<!-- note -->", ":::tip", "    code"]
)  # fmt: skip


def page_of(folder: Path, text: str, name: str = "a/p.md") -> ContentPage | list[Mistake]:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return read_page(file, folder)


@settings(max_examples=200, deadline=None)
@given(lines=st.lists(LINES, max_size=60))
def test_every_passage_is_the_text_at_its_offsets_and_no_word_is_lost(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str]
) -> None:
    text = "---\ntitle: T\n---\n" + "\n".join([*lines, "Last words."]) + "\n"
    page = page_of(tmp_path_factory.mktemp("c"), text)
    assert isinstance(page, ContentPage)
    passages = chunk(page)
    assert all(page.text[p.start : p.end] == p.text for p in passages)
    assert all(len(p.text) <= MAX_CHARACTERS for p in passages)
    assert len({p.id for p in passages}) == len(passages)
    assert [p.start for p in passages] == sorted(p.start for p in passages)
    said = [line for line in lines if line.startswith(("Some", "- item", "word", "é"))]
    kept = "\n".join(p.text for p in passages)
    assert all(line.strip()[:20] in kept for line in said)


def test_fences_and_tables_that_fit_are_not_cut(tmp_path: Path) -> None:
    fence = "```python\n" + "x = 1\n" * 120 + "```"
    table = "| a | b |\n|---|---|\n" + "| one | two |\n" * 60
    page = page_of(tmp_path, f"# T\n\n{'Words. ' * 150}\n\n{fence}\n\n{'More. ' * 150}\n\n{table}\n")
    assert isinstance(page, ContentPage)
    texts = [p.text for p in chunk(page)]
    assert any(fence in text for text in texts)
    assert any(table.strip() in text for text in texts)


def test_the_heading_path_leads_from_the_title_to_the_section(tmp_path: Path) -> None:
    long = "Words about it. " * 30
    page = page_of(
        tmp_path,
        f"# Guide\n\n{long}\n\n## Install\n\n{long}\n\n### On *Linux*\n\n{long}\n\n```\n# no heading\n```\n\n## Use\n\n{long}\n",
    )
    assert isinstance(page, ContentPage)
    assert [p.heading for p in chunk(page)] == [
        "Guide",
        "Guide > Install",
        "Guide > Install > On Linux",
        "Guide > Use",
    ]


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("---\ntitle: From front matter\n---\n# Heading\n\nx\n", "From front matter"),
        ("# Heading\n\nx\n", "Heading"),
        ("Setext\n======\n\nx\n", "Setext"),
        ("## Only a second level\n\nx\n", "P"),
        ("---\nid: x\nsidebar_position: 2\n---\n\n# Docusaurus\n\nx\n", "Docusaurus"),
        ("---\ntitle: 42\n---\nx\n", "42"),
        ("\ufeff# With a mark\n\nx\n", "With a mark"),
        ("# Windows\r\n\r\nx\r\n", "Windows"),
    ],
)
def test_a_page_has_a_title_wherever_its_project_writes_it(tmp_path: Path, text: str, title: str) -> None:
    page = page_of(tmp_path, text)
    assert isinstance(page, ContentPage)
    assert page.title == title


def test_all_of_a_documentation_is_read_and_hidden_files_are_not(tmp_path: Path) -> None:
    for name in ("index.md", "a/b/c.mdx", "a/README.md", ".hidden/x.md", "a/.x.md", "a/image.png"):
        page_of(tmp_path, "# T\n\nx\n", name)
    pages, problems = read_content(tmp_path)
    assert [(page.path, page.collection) for page in pages] == [
        ("a/README.md", "a"),
        ("a/b/c.mdx", "a"),
        ("index.md", ""),
    ]
    assert problems == []


async def test_a_vector_has_length_one_or_none() -> None:
    vectors = await WordLlama().embed(["Diving is fun", "", "Scuba diving is great fun", "word " * 50_000])
    lengths = [float((vector**2).sum()) for vector in vectors]
    assert lengths == pytest.approx([1, 0, 1, 1], abs=1e-5)
    assert float(vectors[0] @ vectors[2]) > float(vectors[0] @ vectors[3])
