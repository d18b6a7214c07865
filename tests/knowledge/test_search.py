"""Search: the right passage for a question, a threshold that means something, and no text that breaks it."""

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_server.errors import NotFound
from agent_server.knowledge.search import find_urgent, get_passage
from tests.knowledge.conftest import Content, Page


@pytest.fixture
async def kitchen(content: Content, page: Page) -> Content:
    content.write(
        "tea/kettle.md",
        page(
            "Kettles",
            "A kettle boils a litre of water in three minutes. " * 5
            + "\n\n## Scale\n\n"
            + "Vinegar takes the scale out of a kettle; rinse it twice afterwards. " * 5,
        ),
    )
    content.write("tea/leaves.md", page("Leaves", "Green tea is brewed at 70 degrees, black tea at 95 degrees."))
    content.write("bread/dough.md", page("Dough", "Dough rests for an hour under a damp cloth, and doubles in size."))
    content.write(
        "fire.md",
        "---\ntitle: Fire\nurgent: [kitchen is on fire, smells of gas, can't breathe]\n---\nLeave the house, then call the fire brigade.\n\n## Later\n\n"
        + "Air the rooms. " * 40,
    )
    await content.ingest()
    return content


@pytest.mark.parametrize(
    ("question", "document"),
    [
        ("How hot should the water be for green tea?", "tea/leaves.md"),
        ("How do I get rid of limescale in my kettle?", "tea/kettle.md"),
        ("How long must bread dough rest?", "bread/dough.md"),
        ("kettle & | ! ( ' :* boils", "tea/kettle.md"),
    ],
)
async def test_a_question_finds_its_passage_first(kitchen: Content, question: str, document: str) -> None:
    assert (await kitchen.search(question))[0].document == document


async def test_a_hit_names_its_place_and_is_the_text_that_stands_there(kitchen: Content) -> None:
    hit = (await kitchen.search("vinegar scale"))[0]
    assert (hit.collection, hit.title, hit.heading) == ("tea", "Kettles", "Kettles > Scale")
    assert (kitchen.folder / hit.document).read_text()[hit.start : hit.end] == hit.text
    async with kitchen.database.transaction() as session:
        opened = await get_passage(session, hit.id)
        assert (opened.text, opened.start) == (hit.text, hit.start)
        with pytest.raises(NotFound):
            await get_passage(session, "0" * 20)


async def test_only_the_collections_that_are_asked_are_searched(kitchen: Content) -> None:
    assert {hit.collection for hit in await kitchen.search("a damp cloth", collections=["bread"])} == {"bread"}
    assert await kitchen.search("water", collections=[]) == []
    assert {hit.collection for hit in await kitchen.search("kettle fire dough tea", collections=None)} >= {"", "tea"}


async def test_what_is_relevant_scores_above_what_is_not(kitchen: Content) -> None:
    right = (await kitchen.search("How long must bread dough rest?"))[0].score
    for other in ("Who won the world cup in 1998?", "price of bitcoin", "the of and"):
        assert all(hit.score < right / 2 for hit in await kitchen.search(other))
    assert await kitchen.search("price of bitcoin", min_score=0.35) == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(query=st.text(max_size=200))
async def test_any_text_is_a_query(kitchen: Content, query: str) -> None:
    query = query.encode("utf-8", "ignore").decode()
    hits = await kitchen.search(query)
    assert all(math.isfinite(hit.score) for hit in hits)


async def test_an_empty_and_an_endless_query_are_queries_too(kitchen: Content) -> None:
    assert await kitchen.search("") == []
    assert (await kitchen.search("kettle " * 10_000))[0].document == "tea/kettle.md"


@pytest.mark.parametrize(
    ("message", "urgent"),
    [
        ("Help, my kitchen is on fire!", True),
        ("the whole kitchen smells like gas", True),
        ("I can't breathe", True),
        ("Why does the dough breathe?", False),
        ("How do I light a fire in the oven of my kitchen?", True),
        ("How hot should green tea be?", False),
    ],
)
async def test_an_urgent_phrase_brings_the_page_that_is_written_for_it(
    kitchen: Content, message: str, urgent: bool
) -> None:
    async with kitchen.database.transaction() as session:
        found = await find_urgent(session, message)
    assert (found is not None) is urgent
    if found:
        assert found.document == "fire.md"
        assert found.text.startswith("Leave the house")
