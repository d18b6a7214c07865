"""How a page is cut into the blocks that can be quoted."""

import pytest

from agent_server.knowledge.blocks import Block, parse_blocks
from agent_server.knowledge.sentences import split_sentences


def texts(block: Block) -> list[str]:
    return [part.text for part in block.parts]


@pytest.mark.parametrize(
    ("paragraph", "sentences"),
    [
        ("A bundle of certificates (a.k.a. CA bundle) is read. It is small.", 2),
        ("Nach § 5 Abs. 2 Nr. 3 gilt das nicht. Das ist neu.", 2),
        ("Nimm z. B. Wasser. Rühre um.", 2),
        ("Usa agua, p. ej. Evian. Luego mezcla.", 2),
        ("It waits (for an hour. Or two) and ends. Then it rests.", 2),
        ("Call `a. B` first. Then stop.", 2),
    ],
)
def test_nothing_is_cut_at_an_abbreviation_in_brackets_or_in_code(paragraph: str, sentences: int) -> None:
    assert len(split_sentences(paragraph)) == sentences


def test_an_item_goes_on_in_the_next_line_without_an_indent() -> None:
    (block,) = parse_blocks("- Fill the kettle\nwith cold water.\n- Boil it.\n")

    assert texts(block) == ["Fill the kettle with cold water.", "Boil it."]


def test_code_in_a_sentence_stays_as_it_is_written() -> None:
    (block,) = parse_blocks("`<Keep>` is a *built-in* part of `snake_case_names`.")

    assert texts(block) == ["`<Keep>` is a built-in part of `snake_case_names`."]


@pytest.mark.parametrize(
    "mark", ['{% image "a.png" %}', "![[a.png]]", "^block1", "[!warning]", "<!-- hidden -->", "{: .note}"]
)
def test_marks_that_no_reader_sees_are_left_out(mark: str) -> None:
    assert [texts(block) for block in parse_blocks(f"Before.\n\n{mark}\n\nAfter.")] == [["Before."], ["After."]]


def test_the_text_of_an_admonition_is_no_code() -> None:
    blocks = parse_blocks('!!! note "Mind"\n    Water is hot.\n\nIt cools.')

    assert [(block.kind, texts(block)) for block in blocks] == [
        ("text", ["Mind: Water is hot."]),
        ("text", ["It cools."]),
    ]


def test_template_tags_stay_in_code() -> None:
    blocks = parse_blocks("Write this:\n\n```liquid\n{% raw %}{% include footer.html %}{% endraw %}\n```\n")

    assert texts(blocks[1]) == ["```liquid\n{% include footer.html %}\n```"]


def test_a_table_of_html_has_its_columns_with_each_row() -> None:
    page = "<table><tr><th>Kettle</th><th>Watts</th></tr><tr><td>Travel</td><td>700</td></tr></table>"

    assert [texts(block) for block in parse_blocks(page)] == [["Travel: Watts: 700"]]


def test_the_tag_of_a_block_is_a_break() -> None:
    assert [texts(block) for block in parse_blocks("<div><h1>Tea</h1><p>Hot.</p></div>")] == [["Tea"], ["Hot."]]
