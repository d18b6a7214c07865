"""Markdown as the words that a reader sees."""

import pytest

from agent_server.knowledge import markup


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("Plain", "Plain"),
        ("`search_min_score` and *emphasis*", "search_min_score and emphasis"),
        ("search_min_score", "search_min_score"),
        ("**Bold** __strong__ ~~gone~~", "Bold strong gone"),
        ("2 * 3 * 4", "2 * 3 * 4"),
        ("[A link](https://example.org/a_(b) 'title') here", "A link here"),
        ("![logo](logo.png) Name", "logo Name"),
        ("Anchored {#own-id}", "Anchored"),
        ("Classed { .annotate }", "Classed"),
        ("GET /users/{id}", "GET /users/{id}"),
        ("New <Badge type='tip'>2.0</Badge>", "New 2.0"),
        ("Use `<Image>` &amp; more", "Use <Image> & more"),
        ("escaped \\_ and \\*", "escaped _ and *"),
        ("C# and F#", "C# and F#"),
        ("with <!-- a comment --> inside", "with inside"),
        ("", ""),
    ],
)
def test_a_heading_loses_its_markup_and_no_words(written: str, read: str) -> None:
    assert markup.heading(written) == read


def words(markdown: str) -> list[str]:
    return markup.words(markdown).split()


def test_links_are_indexed_by_their_text_and_not_by_their_target() -> None:
    assert words("See [the guide](https://example.org/secret) or ![a chart](chart.png).\n\n[ref]: https://x.org") == [
        "See", "the", "guide", "or", "a", "chart.",
    ]  # fmt: skip


def test_tags_and_comments_are_not_indexed() -> None:
    assert words('<Note className="mb-2">\nHear this\n</Note> <!-- not\nthis --> {/* nor this */} {% raw %}') == [
        "Hear",
        "this",
    ]


def test_code_is_indexed_with_its_tags_links_and_comments() -> None:
    fenced = '```tsx filename="page.tsx"\n<Image src="a" />\ntable[i](x) <!-- kept -->\n```'
    assert {"Image", 'src="a"', "table[i](x)", "kept"} <= set(words(fenced))
    assert "Image" in words("Use `<Image>` there")


def test_a_comparison_is_not_a_tag() -> None:
    assert words("if a < b and c > d") == ["if", "a", "<", "b", "and", "c", ">", "d"]
