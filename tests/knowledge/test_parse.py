"""A Markdown file is a page, or a mistake with its file and line."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_server.errors import Mistake
from agent_server.knowledge.files import content_files
from agent_server.knowledge.parse import ContentPage, headings, read_content, read_page
from tests.knowledge.conftest import Write


def page(file: Path, content: Path) -> ContentPage:
    found = read_page(file, content)
    assert isinstance(found, ContentPage), found
    return found


def test_front_matter_names_the_page_and_other_keys_are_left_alone(write: Write, content: Path) -> None:
    front = (
        "title: Shipping\ndescription: |\n  Where\n  to\ntags: [post, parcel, 2]\nurgent: [lost parcel]\n"
        "sidebar_position: 3\nrelated:\n  links: [a]\nupdated: 2026-01-01\n"
    )
    found = page(write("guide/shipping.md", f"---\n{front}---\nWe ship.\n"), content)
    assert (found.path, found.collection, found.title) == ("guide/shipping.md", "guide", "Shipping")
    assert (found.description, found.tags, found.urgent) == ("Where to", ("post", "parcel", "2"), ("lost parcel",))
    assert found.body == "We ship.\n"


@pytest.mark.parametrize(
    ("body", "title"),
    [
        ("Words.\n\n# The `first` one\n", "The first one"),
        ("## Below\n\n# Top\n\n# Second\n", "Top"),
        ("Underlined\n==========\n", "Underlined"),
        ("## Only a second level\n", "A"),
        ("<h1 align='center'>In <b>HTML</b></h1>\n\n## Below\n", "In HTML"),
        ("---\n\nA rule on top.\n\n# After it\n", "After it"),
        ("---\n---\n# Empty front matter\n", "Empty front matter"),
        ("---\nid: x\nsidebar_position: 2\n---\n\n# As Docusaurus has it\n", "As Docusaurus has it"),
        ("---\ntitle: 2026\n---\n# Other\n", "2026"),
        ("---\ntitle:\n---\n# Not the empty one\n", "Not the empty one"),
    ],
)
def test_a_page_without_a_title_is_called_by_its_first_heading(
    write: Write, content: Path, body: str, title: str
) -> None:
    assert page(write("a.md", body), content).title == title


def test_a_heading_is_what_markdown_takes_for_one() -> None:
    body = (
        "# Real\n\n```sh\n# a comment\n```\n\n~~~\n## also\n~~~\n\n    # indented code\n\n<!--\n# hidden\n-->\n\n"
        '!!! note "Title"\n    # in an admonition\n\n> # quoted\n\n- # listed\n\n| # | cell |\n|---|---|\n| # | x |\n\n'
        ":::tip\n\n### Inside a container\n\n:::\n\nTwo lines\nunder one\n---\n\n#hashtag\n"
    )
    assert [(heading.level, heading.text) for heading in headings(body)] == [
        (1, "Real"),
        (3, "Inside a container"),
        (2, "Two lines under one"),
    ]
    assert [body[heading.start :][:5] for heading in headings(body)] == ["# Rea", "### I", "Two l"]


@pytest.mark.parametrize(
    ("written", "line", "says"),
    [
        (b"# A\nb\x00c\n", 2, "holds a NUL byte"),
        (b"---\ntitle: [a\n---\n# A\n", 2, "front matter is not YAML: the list of `title:` begins here"),
        (b"---\ntitle: A\nnote: a: b\n---\n# A\n", 3, "front matter is not YAML: there is a colon in the value"),
        (b"---\ntitle: A\nupdated: 2026-13-45\n---\nText\n", 3, "front matter is not YAML: month must be in 1..12"),
        (b"---\ntitle: {{ page }}\n---\nText\n", 2, "front matter is not YAML"),
        (b"---\n- a\n---\n# A\n", 2, "front matter is not `key: value` lines"),
        (b"---\ntitle: A\n\nText without an end\n", 1, "its front matter does not end"),
        (b"---\nurgent: [fire]\n---\n \n", 5, "has no text below its front matter"),
        (b"---\ntags: []\ntitle: [a, b]\n---\nText\n", 3, "title: must be text"),
        (b"---\ntitle: A\nurgent: fire\n---\nText\n", 3, "urgent: must be a list of phrases"),
        (b"---\ntitle: A\nurgent: [1]\n---\nText\n", 3, "urgent: must be a list of phrases"),
    ],
)
def test_a_mistake_has_its_file_and_line(content: Path, written: bytes, line: int, says: str) -> None:
    (content / "guide").mkdir()
    file = content / "guide" / "a.md"
    file.write_bytes(written)
    found = read_page(file, content)
    assert isinstance(found, list)
    (problem,) = found
    assert (problem.file, problem.line) == ("content/guide/a.md", line)
    assert says in problem.message


def test_a_file_that_cannot_be_read_is_a_mistake(content: Path) -> None:
    assert read_page(content / "gone.md", content) == [
        Mistake("content/gone.md", None, "cannot be read: No such file or directory")
    ]


def test_a_page_may_have_several_mistakes(content: Path) -> None:
    (content / "a.md").write_text("---\ntitle: [a]\nurgent: fire\nurgent: flood\n---\n")
    found = read_page(content / "a.md", content)
    assert isinstance(found, list)
    assert [(mistake.line, mistake.message.split(":")[0]) for mistake in found] == [
        (4, "urgent"),
        (2, "title"),
        (3, "urgent"),
        (6, "has no text below its front matter"),
    ]


def test_a_name_that_is_not_text_is_a_mistake(content: Path) -> None:
    (content / os.fsdecode(b"caf\xe9.md")).write_text("# A\n\ntext")
    pages, problems = read_content(content)
    assert pages == []
    assert [problem.message for problem in problems] == ["has a name that is not UTF-8; rename the file"]


def test_every_file_of_a_kind_that_is_read_and_is_not_hidden_is_a_page(write: Write, content: Path) -> None:
    for path in ("b.mdx", "a.md", "deep/er/C.MD", "x.markdown", ".hidden.md", ".git/a.md", "notes.txt", "a.png"):
        write(path, "# Title\n\ntext\n")
    pages, problems = read_content(content)
    assert [(page.path, page.collection) for page in pages] == [
        ("a.md", ""), ("b.mdx", ""), ("deep/er/C.MD", "deep"), ("notes.txt", ""), ("x.markdown", ""),
    ]  # fmt: skip
    assert problems == []


def test_a_mistake_in_one_page_does_not_hide_the_others(write: Write, content: Path) -> None:
    write("a.md", "# A\n\ntext")
    write("b.md", "---\ntitle: [b\n---\ntext")
    pages, problems = read_content(content)
    assert [page.path for page in pages] == ["a.md"]
    assert [problem.file for problem in problems] == ["content/b.md"]


def test_line_ends_and_byte_order_marks_make_no_difference(write: Write, content: Path) -> None:
    unix = page(write("a.md", "---\ntitle: A\n---\n# B\n\ntext\n"), content)
    windows = page(write("a.md", "\ufeff---\r\ntitle: A\r\n---\r\n# B\r\n\r\ntext\r\n"), content)
    assert windows == unix


@given(written=st.binary(max_size=200) | st.text(st.characters(codec="utf-8"), max_size=200).map(str.encode))
def test_any_bytes_are_a_page_or_a_mistake(tmp_path_factory: pytest.TempPathFactory, written: bytes) -> None:
    content = tmp_path_factory.mktemp("content")
    file = content / "a.md"
    file.write_bytes(b"---\n" + written)
    found = read_page(file, content)
    assert found.title if isinstance(found, ContentPage) else all(mistake.message for mistake in found)
    assert len(content_files(content)) == 1
