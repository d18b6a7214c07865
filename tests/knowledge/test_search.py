"""A question finds the passage that answers it, whatever it is written like."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sqlalchemy import event, text

from agent_server.db import Database
from agent_server.errors import NotFound
from agent_server.knowledge.embedders.base import DENSE_WEIGHT, Embedder
from agent_server.knowledge.embedders.wordllama import WordLlama
from agent_server.knowledge.ingest import ingest
from agent_server.knowledge.passages import Passage
from agent_server.knowledge.search import (
    find_urgent,
    get_passage,
    list_documents,
    read_document,
    search,
)
from tests.conftest import everything
from tests.knowledge.conftest import Write

PAGES: Mapping[str, str] = {
    "library/borrowing.md": "# Borrowing\n\nYou may take home ten books at a time. A loan lasts three weeks and can be "
    "renewed twice, unless another reader is waiting for the volume.",
    "library/fines.md": "---\ndescription: What you pay when you bring something back too late.\n---\n# Fines\n\nEach day "
    "after the due date costs 20 cents, at most 5 euros for one item. Children pay nothing.",
    "library/opening.md": "# Opening hours\n\nMonday to Friday from 9 to 19, on Saturday until 14. The reading room closes "
    "half an hour earlier.",
    "library/cards.md": "# Membership\n\nThe card costs 12 euros a year. Bring your passport to the desk; the card is "
    "made while you wait. A lost card is replaced for 3 euros.",
    "garden/compost.md": "# Compost\n\nMix kitchen scraps with dry leaves and turn the heap every fortnight. A heap that "
    "smells is too wet: add cardboard.",
    "garden/tomatoes.md": "# Tomatoes\n\nSow indoors in March and plant out after the last frost. Pinch the side shoots "
    "and water at the root, or the leaves get blight.",
    "garden/slugs.md": "# Slugs\n\nCollect them after dark with a torch, or put a ring of copper tape around each pot.",
    "server/install.md": "# Install\n\n```sh\npip install shelfd\nshelfd init --data-dir /var/lib/shelfd\n```\n\nNeeds Linux "
    "and 200 MB of memory.",
    "server/config.md": "# Configuration\n\nSet `MAX_LOANS` and `LOAN_DAYS` in the environment. `shelfd config --show` "
    "prints what is in force.",
    "server/backup.md": "# Backups\n\nRun `shelfd dump` each night and copy the file elsewhere. Restoring replaces all that "
    "is there.",
    "server/errors.md": "# Errors\n\n## E1042\n\nThe port is taken: another process listens on it.\n\n## E2000\n\nThe disk "
    "is full: remove old dumps.",
    "about.md": "# About us\n\nWe are twelve volunteers who run the town's library and its garden.",
}

QUESTIONS: Mapping[str, str] = {
    "How many books can I borrow?": "library/borrowing.md",
    "can I extend my loan": "library/borrowing.md",
    "What do I pay if I return a book late?": "library/fines.md",
    "When do you open on Saturday?": "library/opening.md",
    "I lost my card, what now?": "library/cards.md",
    "How do I become a member": "library/cards.md",
    "my compost stinks": "garden/compost.md",
    "when should I sow tomatoes": "garden/tomatoes.md",
    "snails eat my plants": "garden/slugs.md",
    "installation requirements": "server/install.md",
    "--data-dir": "server/install.md",
    "LOAN_DAYS": "server/config.md",
    "how do I back up the data": "server/backup.md",
    "E1042": "server/errors.md",
    "no space left on the disk": "server/errors.md",
    "who runs the library?": "about.md",
}

OUTSIDE = (
    "What is the capital of Mongolia?",
    "Write a poem about the sea",
    "Should I invest in bitcoin?",
    "How tall is the Eiffel tower?",
    "Who won the world cup in 1990?",
)


class WordsOnly(WordLlama):
    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.zeros((len(texts), self.dimensions), dtype=np.float32)


class MeaningOnly(WordLlama):
    """The vector of one query, whatever the text."""

    def __init__(self, query: str) -> None:
        self.query = query

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return await super().embed([self.query])


class Find:
    """Search an ingested content, each time in a transaction of its own."""

    def __init__(self, database: Database, embedder: Embedder) -> None:
        self.database, self.embedder = database, embedder

    async def __call__(
        self,
        query: str,
        *,
        embedder: Embedder | None = None,
        collections: Sequence[str] | None = None,
        limit: int = 5,
        min_score: float = 0.0,
    ) -> list[Passage]:
        async with everything(self.database) as session:
            return await search(
                session,
                embedder or self.embedder,
                query,
                collections=collections,
                limit=limit,
                min_score=min_score,
            )


@pytest.fixture
async def find(database: Database, embedder: Embedder, write: Write, content: Path) -> Find:
    for path, page in PAGES.items():
        write(path, page)
    await ingest(database, embedder, content)
    return Find(database, embedder)


def rank(hits: Sequence[Passage], document: str) -> float:
    """1 / the place of the document, 0 when it is not there."""
    return next((1 / place for place, hit in enumerate(hits, 1) if hit.document == document), 0.0)


async def test_questions_find_their_page_by_words_by_meaning_and_best_by_both(find: Find) -> None:
    both = [rank(await find(q), document) for q, document in QUESTIONS.items()]
    words = [rank(await find(q, embedder=WordsOnly()), document) for q, document in QUESTIONS.items()]
    meaning = [rank(await find("", embedder=MeaningOnly(q)), document) for q, document in QUESTIONS.items()]
    assert np.mean(both) >= max(np.mean(words), np.mean(meaning))
    assert np.mean(both) >= 0.9
    assert min(both) > 0


async def test_a_score_tells_what_is_answered_here_from_what_is_not(find: Find) -> None:
    inside = [(await find(q))[0].score for q in QUESTIONS]
    outside = [(await find(q))[0].score for q in OUTSIDE]
    assert sum(score >= 0.35 for score in inside) >= 0.8 * len(inside)
    assert sum(score >= 0.35 for score in outside) == 0
    assert await find(OUTSIDE[0], min_score=0.35) == []


async def test_a_hit_says_where_it_is_from(find: Find, content: Path) -> None:
    hit = (await find("the disk is full"))[0]
    assert (hit.document, hit.collection, hit.title, hit.heading) == ("server/errors.md", "server", "Errors", "Errors")
    assert (content / hit.document).read_text()[hit.start : hit.end] == hit.text == PAGES["server/errors.md"]
    assert 0.35 < hit.score <= 1.5


async def test_a_page_is_found_by_its_description_tags_and_name(
    write: Write, content: Path, database: Database, embedder: Embedder
) -> None:
    write("a.md", "---\ntitle: Plain\ndescription: Zebras.\ntags: [giraffe]\n---\nNothing of the kind.")
    write("03-house-plants/b.md", "# Other\n\nNothing of the kind.")
    await ingest(database, embedder, content)
    find = Find(database, embedder)
    for query, document in {"zebra": "a.md", "giraffes": "a.md", "house plants": "03-house-plants/b.md"}.items():
        assert [hit.document for hit in await find(query, embedder=WordsOnly())] == [document]


async def test_only_the_named_collections_are_searched(find: Find) -> None:
    everywhere = await find("install the library", limit=20)
    assert {hit.collection for hit in everywhere} == {"", "library", "garden", "server"}
    two = await find("install the library", collections=["library", "server"], limit=20)
    assert [hit.id for hit in two] == [hit.id for hit in everywhere if hit.collection in ("library", "server")]
    assert [hit.score for hit in two] == [hit.score for hit in everywhere if hit.collection in ("library", "server")]
    assert {hit.document for hit in await find("install the library", collections=[""])} == {"about.md"}
    assert await find("install", collections=["nowhere"]) == []
    assert await find("install", collections=[]) == []


async def test_a_long_page_does_not_take_every_place(
    write: Write, content: Path, database: Database, embedder: Embedder
) -> None:
    about = "Otters swim. " * 30
    write("long.md", "# Otters\n\n" + "\n\n".join(f"## Otters {n}\n\n{about}" for n in range(9)))
    write("short.md", "# Rivers\n\nOtters swim in rivers with fish.")
    await ingest(database, embedder, content)
    hits = await Find(database, embedder)("otters swim")
    assert {hit.document for hit in hits} == {"long.md", "short.md"}
    assert len(hits) == 5
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


async def test_the_best_are_the_first_of_more(find: Find) -> None:
    twenty = await find("books and cards", limit=20)
    assert [hit.score for hit in twenty] == sorted((hit.score for hit in twenty), reverse=True)
    assert len({hit.id for hit in twenty}) == len(twenty)
    assert [hit.id for hit in await find("books and cards", limit=3)] == [hit.id for hit in twenty[:3]]
    assert all(hit.score >= 0.3 for hit in await find("books and cards", limit=20, min_score=0.3))


async def test_a_query_is_one_statement(find: Find) -> None:
    await find("how many books")  # reads what is searched by, which is remembered
    statements: list[str] = []
    listen = (find.database.owner.sync_engine, "before_cursor_execute")

    def noted(*arguments: object) -> None:
        statements.append(str(arguments[2]))

    event.listen(*listen, noted)
    try:
        assert await find("how many books")
    finally:
        event.remove(*listen, noted)
    assert len(statements) == 1


@pytest.mark.parametrize("query", ["", " ", "\n\t"], ids=ascii)
async def test_an_empty_query_has_no_answer(find: Find, query: str) -> None:
    assert await find(query) == []


async def test_stop_words_alone_find_nothing_of_note(find: Find) -> None:
    assert await find("the of and to", embedder=WordsOnly()) == []
    assert all(hit.score < DENSE_WEIGHT for hit in await find("the of and to"))


@example("books & !(cards | <->) :* 'x' \\ \"y\"")
@example("a\\' or 'b'; drop table chunk --")
@example("D:\\some\\file.txt http://host/a\\b?c='d'")
@example("book " * 10_000)
@example("😀 本を借りる ﷽ \u202e \x00 \x7f")
@example("\ud800 half a pair")
@example("-1e400 NaN inf 1/0 {1:2}/3 [0,1]")
@given(query=st.text(max_size=60) | st.text(alphabet="ab'\\\"!&|<->:*(){}[]/%.@", max_size=20).map("book {}".format))
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
async def test_any_text_is_a_query(find: Find, query: str) -> None:
    hits = await find(query)
    assert all(0 <= hit.score <= 1.51 for hit in hits), [hit.score for hit in hits]


async def test_any_word_of_the_content_can_be_asked_for(
    write: Write, content: Path, database: Database, embedder: Embedder
) -> None:
    words = ["C:\\temp\\a.txt", "http://x.org/a\\b'c?d=\\e", "a'b", "foo/bar'baz.txt", "x@y.org", "1.5e-3", "-7"]
    write("a.md", "# Odd\n\n" + "\n\n".join(words))
    await ingest(database, embedder, content)
    for word in words:
        assert await Find(database, embedder)(word, embedder=WordsOnly()), word


async def test_a_passage_without_any_token_is_no_trouble(
    write: Write, content: Path, database: Database, embedder: Embedder
) -> None:
    write("a.md", "---\ntitle: Apples\n---\nApples are red.")
    write("b.md", "---\ntitle: Pears\n---\nPears are green.")
    await ingest(database, embedder, content)
    async with everything(database) as session:
        await session.execute(
            text(
                "update passage_vector set emb = array_fill(0, array[vector_dims(emb)])::halfvec "
                "where chunk_id = (select id from chunk where heading = 'Pears')"
            )
        )
    hits = await Find(database, embedder)("apples and pears")
    assert sorted(hit.title for hit in hits) == ["Apples", "Pears"]
    assert all(np.isfinite(hit.score) for hit in hits)


async def test_another_owner_sees_none_of_it(find: Find) -> None:
    async with everything(find.database) as session:
        assert await search(session, find.embedder, "books", owner=uuid4()) == []


async def test_an_empty_index_answers_nothing(database: Database, embedder: Embedder) -> None:
    assert await Find(database, embedder)("anything") == []


async def test_a_citation_opens_until_its_passage_is_changed(find: Find, write: Write, content: Path) -> None:
    hit = (await find("fines for being late"))[0]
    async with everything(find.database) as session:
        opened = await get_passage(session, hit.id)
    assert (opened.document, opened.heading, opened.text, opened.start) == (
        hit.document,
        hit.heading,
        hit.text,
        hit.start,
    )
    write(hit.document, PAGES[hit.document].replace("20 cents", "30 cents"))
    await ingest(find.database, find.embedder, content)
    async with everything(find.database) as session:
        with pytest.raises(NotFound, match="no longer has this passage"):
            await get_passage(session, hit.id)
        with pytest.raises(NotFound):
            await get_passage(session, "\x00")


ODD = {
    "apostrophe.md": "# Zebras\n\nIf it doesn\u02bct swim, o\u2019clock and ma\u02bcam are words.",
    "width.md": "# \uff30\uff21\uff24\uff29\u3000\uff34\uff45\uff53\uff54\n\n\uff2e\uff49\uff54\uff52\uff4f\uff58 \uff7d\uff77\uff6d\uff70\uff8a\uff9e.",
    "accents.md": "# Cafe\u0301\n\nA nai\u0308ve cre\u0300me bru\u0302le\u0301e, stra\u00dfe.",
    "hidden.md": "# Hydro\u00adstatic\n\nA pres\u200bsure test of the cyl\u2060inder.",
}
WRITTEN = {
    "apostrophe.md": ["ma'am", "ma\u2019am", "ma\uff07am", "MA\u00b4AM"],
    "width.md": ["padi test", "\uff30\uff21\uff24\uff29", "nitrox", "Ｎｉｔｒｏｘ", "スキューバ"],
    "accents.md": ["café", "cafe\u0301", "CRÈME", "naïve", "STRASSE", "ｃｒｅ\u0300ｍｅ"],
    "hidden.md": ["hydrostatic", "pressure", "hydro\u00adstatic", "cyl\u200binder", "PRESSURE\xa0TEST"],
}


async def test_words_are_found_however_their_letters_are_written(
    write: Write, content: Path, database: Database
) -> None:
    for path, page in ODD.items():
        write(path, page)
    await ingest(database, WordLlama(), content)
    for embedder in (WordsOnly(), WordLlama()):
        find = Find(database, embedder)
        for path, queries in WRITTEN.items():
            first = [(query, [hit.document for hit in await find(query, limit=1)]) for query in queries]
            assert first == [(query, [path]) for query in queries]
    async with everything(database) as session:
        assert await read_document(session, "width.md") == ODD["width.md"]  # what is shown stays as it was written


async def test_documents_are_listed_by_path_and_read_by_it(find: Find) -> None:
    async with everything(find.database) as session:
        listed = await list_documents(session)
        assert await read_document(session, "garden/slugs.md") == PAGES["garden/slugs.md"]
        with pytest.raises(NotFound, match=r"no document 'garden/moles\.md'"):
            await read_document(session, "garden/moles.md")
    assert [document.path for document in listed] == sorted(PAGES)
    fines = next(document for document in listed if document.path == "library/fines.md")
    assert (fines.collection, fines.title) == ("library", "Fines")
    assert fines.description == "What you pay when you bring something back too late."


URGENT = (
    "---\ntitle: Fire\nurgent: [the shop is on fire, smell smoke, cannot breathe, can't see, the]\n---\nLeave at once.\n\n"
    "## Afterwards\n\nTell the owner. " + "Then rest. " * 40
)


@pytest.mark.parametrize(
    ("message", "found"),
    [
        ("Help, our shop is on fire!!", True),
        ("there is fire in the shops", True),
        ("I think I am smelling smoke", True),
        ("we can't, I mean we cannot breathe in here", True),
        ("I cannot find the book on how to breathe", False),
        ("I can't see anything", True),
        ("can I see the shop?", False),
        ("where is the shop?", False),
        ("the", False),
        ("", False),
        ("fire\x00", False),
    ],
)
async def test_an_urgent_message_finds_its_page(
    write: Write, content: Path, database: Database, message: str, found: bool
) -> None:
    write("fire.md", URGENT)
    write("shop.md", "# The shop is on fire\n\nA novel. We smell smoke in it.")
    await ingest(database, WordLlama(), content)
    async with everything(database) as session:
        passage = await find_urgent(session, message)
    assert (passage.text.splitlines()[0] if passage else None) == ("Leave at once." if found else None)
