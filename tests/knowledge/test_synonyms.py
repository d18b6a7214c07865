"""Questions in other words than the content's."""

import pytest

from agent_server.db import Database
from agent_server.knowledge.embedders.base import Embedder
from agent_server.knowledge.ingest import ingest
from agent_server.knowledge.search import search
from agent_server.knowledge.synonyms import spellings, synonyms
from tests.conftest import everything
from tests.knowledge.conftest import Write


def test_a_word_has_its_synonyms_in_any_form_and_others_have_none() -> None:
    assert "holiday" in synonyms("vacations", "en")
    assert "mietvertrag" in synonyms("mieter", "de")
    assert list(synonyms("thermocline", "en")) == []


@pytest.mark.parametrize(
    ("question", "page"),
    [
        ("How many days of vacation?", "a.md"),
        ("How do I erase it?", "b.md"),
        ("Wie viele Ferien bekommt man?", "c.md"),
    ],
)
async def test_a_page_is_found_by_words_that_mean_the_same(
    database: Database, embedder: Embedder, write: Write, question: str, page: str
) -> None:
    write("a.md", "# Free time\n\nHoliday lasts 28 days.\n")
    write("b.md", "# Clean\n\nRemove the vault with one command.\n")
    folder = write("c.md", "# Arbeit\n\nDer Urlaub beträgt dreißig Tage.\n").parent
    await ingest(database, embedder, folder)
    async with everything(database) as session:
        assert (await search(session, embedder, question, limit=1))[0].document == page


def test_a_word_is_also_looked_for_as_it_is_spelled_across_the_atlantic() -> None:
    pairs = [
        ("equalize", "equalise"),
        ("colour", "color"),
        ("centre", "center"),
        ("licence", "license"),
        ("travelling", "traveling"),
    ]
    for one, other in pairs:
        assert other in spellings(one, "en")
        assert one in spellings(other, "en")
    assert spellings("size", "en") == ()
    assert spellings("equalize", "de") == ()
