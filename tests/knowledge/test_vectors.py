"""Vectors of another embedder are made beside those that serve, and no search compares vectors of two."""

import asyncio
import string
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sqlalchemy import text

from agent_server.db import Database
from agent_server.errors import Unavailable
from agent_server.knowledge.embedders.base import Embedder
from agent_server.knowledge.ingest import PIVOT, ingest
from agent_server.knowledge.passages import Passage
from agent_server.knowledge.search import search
from agent_server.knowledge.vectors.index import LARGE, PREFIX
from agent_server.knowledge.vectors.renew import BATCH, renew
from tests.conftest import everything
from tests.knowledge.conftest import Write
from tests.knowledge.test_ingest import index, query


class Letters:
    """Vectors of how often each of some letters is in a text."""

    letters, name, dimensions = "abcdefgh", "letters", 8

    def __init__(self, failing_after: int | None = None) -> None:
        self.texts: list[str] = []
        self.failing_after = failing_after

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if self.failing_after is not None and len(self.texts) >= self.failing_after:
            raise Unavailable("The embedder is away; try again later")
        self.texts += texts
        counts = [[one.lower().count(letter) + 0.01 for letter in self.letters] for one in texts]
        vectors = np.array(counts, dtype=np.float32).reshape(len(texts), len(self.letters))
        unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit


class Reversed(Letters):
    """Vectors of the same size in which everything stands for something else."""

    letters, name = "stuvwxyz", "reversed"


class Longer(Letters):
    letters, name, dimensions = string.ascii_lowercase, "longer", 26


EMBEDDERS: Mapping[str, type[Letters]] = {kind.name: kind for kind in (Letters, Reversed, Longer)}
PAGES = {
    "a.md": "# Apples\n\nApples are red.",
    "guide/b.md": "# Bananas\n\nBananas are yellow, as zebras are not.",
    "guide/c.md": "# Cherries\n\nA cage of cherries, dates and figs.",
    "shop/d.md": "# Opening\n\nWe open at six. Vases and yarn are upstairs.",
}
QUESTIONS = ("zebras", "what is in the cage?", "when do you open", "xylophones", "red")


async def nothing() -> None:
    """Leaves vectors to be made to somebody else."""


@pytest.fixture
def pages(write: Write) -> None:
    for path, page in PAGES.items():
        write(path, page)


async def ask(database: Database, embedder: Embedder) -> list[list[Passage]]:
    found = []
    for question in QUESTIONS:
        async with everything(database) as session:
            found.append(await search(session, embedder, question))
    return found


@pytest.mark.usefixtures("pages")
@pytest.mark.parametrize("kind", [Reversed, Longer])
async def test_the_old_vectors_serve_until_all_of_the_new_ones_are_made(
    kind: type[Letters], content: Path, database: Database
) -> None:
    await ingest(database, Letters(), content)
    before = await ask(database, Letters())
    report = await ingest(database, kind(), content, later=nothing)
    assert (report.unchanged, report.embedded) == (4, 0)
    # Whatever a process is set to, it asks by the embedder whose vectors there are.
    assert await ask(database, kind()) == await ask(database, Letters()) == before
    assert await renew(database, kind(), pivot=PIVOT) == 4
    after = await ask(database, kind())
    assert after == await ask(database, Letters())
    assert [[hit.score for hit in hits] for hits in after] != [[hit.score for hit in hits] for hits in before]
    assert await query(database, "select name from vector_space") == [(kind.name,)]
    assert await renew(database, kind(), pivot=PIVOT) == 0


@pytest.mark.usefixtures("pages")
async def test_pages_that_change_meanwhile_are_found_by_the_old_vectors_and_then_by_the_new(
    content: Path, database: Database, write: Write
) -> None:
    await ingest(database, Letters(), content)
    write("guide/b.md", "# Bananas\n\nBananas are green.")
    (content / "a.md").unlink()
    await ingest(database, Reversed(), content, later=nothing)
    spaces = "select s.name, count(*) from passage_vector v join vector_space s on s.id = v.space group by 1"
    assert await query(database, spaces) == [("letters", 3)]
    assert await renew(database, Reversed(), pivot=PIVOT) == 3
    assert await query(database, spaces) == [("reversed", 3)]


async def test_a_change_that_was_cut_off_goes_on_with_what_is_missing(
    write: Write, content: Path, database: Database
) -> None:
    for number in range(2 * BATCH + 5):
        write(f"{number:04}.md", f"# Page {number}\n\n{'abc' * (number % 7)}")
    await ingest(database, Letters(), content)
    before = await ask(database, Letters())
    with pytest.raises(Unavailable):
        await ingest(database, Longer(failing_after=BATCH), content)
    assert await query(database, "select count(*) from passage_vector where vector_dims(emb) = 26") == [(BATCH,)]
    assert await ask(database, Longer()) == before
    again = Longer()
    assert (await ingest(database, again, content)).embedded == BATCH + 5
    assert len(again.texts) == BATCH + 5
    assert await query(database, "select distinct vector_dims(emb) from passage_vector") == [(26,)]


@pytest.mark.usefixtures("pages")
async def test_several_processes_make_each_vector_once_and_the_last_one_has_them_used(
    content: Path, database: Database, url: str
) -> None:
    await ingest(database, Letters(), content)
    await ingest(database, Longer(), content, later=nothing)
    other = Database(url)
    try:
        await asyncio.gather(*(renew(each, Longer(), pivot=PIVOT) for each in (database, other, database, other)))
        assert await ask(other, Longer()) == await ask(database, Longer())
    finally:
        await other.close()
    assert await query(database, "select count(*), count(distinct chunk_id) from passage_vector") == [(4, 4)]
    assert await query(database, "select distinct wanted from collection_space") == [(None,)]


@pytest.mark.usefixtures("pages")
async def test_a_change_that_is_taken_back_leaves_nothing_behind(content: Path, database: Database) -> None:
    await ingest(database, Letters(), content)
    before = await index(database)
    await ingest(database, Longer(), content, later=nothing)
    with pytest.raises(Unavailable):
        await renew(database, Longer(failing_after=0), pivot=PIVOT)
    await ingest(database, Letters(), content)
    assert await index(database) == before
    assert await query(database, "select name from vector_space") == [("letters",)]


@pytest.mark.usefixtures("pages")
async def test_an_embedder_that_is_there_no_more_leaves_the_words_until_the_new_vectors_are_made(
    content: Path, database: Database
) -> None:
    class Gone(Letters):
        name = "gone"  # a class of a function cannot be opened by its name

    await ingest(database, Gone(), content)
    await ingest(database, Letters(), content, later=nothing)
    words = await ask(database, Letters())
    assert [hits[0].document for hits in words[:3]] == ["guide/b.md", "guide/c.md", "shop/d.md"]
    assert words[3] == []
    await ingest(database, Letters(), content)
    assert (await ask(database, Letters()))[3] != []


@pytest.mark.usefixtures("pages")
async def test_a_collection_has_an_embedder_and_a_weight_of_its_own(
    content: Path, database: Database, write: Write
) -> None:
    write("guide/collection.yaml", f"embedder: {{name: '{__name__}:Longer', weight: 2}}")
    assert (await ingest(database, Letters(), content)).problems == []
    sizes = "select collection, vector_dims(emb) from passage_vector group by 1, 2 order by 1"
    assert await query(database, sizes) == [("", 8), ("guide", 26), ("shop", 8)]
    async with everything(database) as session:
        hits = await search(session, Letters(), "zebras", limit=20)
    question, passage = (await Longer().embed(["zebras"]))[0], next(hit for hit in hits if hit.document == "guide/b.md")
    alone = {hit.document: hit.score for hit in hits}
    assert set(alone) == set(PAGES)
    write("guide/collection.yaml", f"embedder: {{name: '{__name__}:Longer', weight: 1}}")
    before = await query(database, "select xmin::text from passage_vector")
    await ingest(database, Letters(), content)
    assert await query(database, "select xmin::text from passage_vector") == before
    async with everything(database) as session:
        lighter = {hit.document: hit.score for hit in await search(session, Letters(), "zebras", limit=20)}
    changed = {document for document in alone if alone[document] != pytest.approx(lighter[document], abs=1e-6)}
    assert changed == {"guide/b.md", "guide/c.md"}
    said = f"Bananas guide b\n{PAGES['guide/b.md']}"
    cosine = float(question @ (await Longer().embed([said]))[0])
    assert passage.score - lighter["guide/b.md"] == pytest.approx(cosine, abs=0.02)


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ("embedder: wordllama", "embedder: must be keys and values"),
        ("embedder: {model: m}", "embedder: name: is missing"),
        ("embedder: {name: openai, key: k}", "embedder: key: is no key of an embedder"),
        ("embedder: {name: openai, dimensions: 0}", "embedder: dimensions: must be 1 to 16000"),
        ("embedder: {name: openai, weight: 11}", "embedder: weight: must be 0 to 10"),
    ],
)
async def test_a_mistake_in_a_collections_embedder_is_named(
    said: str, says: str, write: Write, content: Path, database: Database
) -> None:
    write("guide/a.md", "# A\n\nApples.")
    write("guide/collection.yaml", said)
    report = await ingest(database, Letters(), content)
    assert [says in str(problem) for problem in report.problems] == [True]
    assert report.added == 1


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["a.md", "guide/b.md", "guide/c.md", "shop/d.md"]),
        st.sampled_from([None, "zebras", "cages of figs", "we open at six", "yarn"]),
        st.sampled_from(sorted(EMBEDDERS)),
        st.sampled_from(["all", "later", "away"]),
    ),
    min_size=1,
    max_size=6,
)


@given(steps=STEPS)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_after_any_edits_and_changes_of_embedder_the_index_is_that_of_a_fresh_ingest(
    write: Write, content: Path, database: Database, steps: Sequence[tuple[str, str | None, str, str]]
) -> None:
    last = Letters
    for path, page, name, how in steps:
        if page is None:
            (content / path).unlink(missing_ok=True)
        else:
            write(path, f"# {page.title()}\n\n{page}")
        last = EMBEDDERS[name]
        await ingest(database, last(), content, later=nothing)
        if how == "all":
            await renew(database, last(), pivot=PIVOT)
        elif how == "away" and await query(database, "select 1 from collection_space where wanted is not null"):
            # It is not asked where no passage lacks its vector any more.
            with suppress(Unavailable):
                await renew(database, last(failing_after=0), pivot=PIVOT)
        # Every passage has the vector that it is searched by, whatever else is being made.
        lacking = (
            "select c.id from chunk c join collection_space s on s.collection = c.collection where not exists"
            " (select from passage_vector v where v.space = s.space and v.chunk_id = c.id)"
        )
        assert await query(database, lacking) == []
    await ingest(database, last(), content)
    edited = await index(database)
    async with everything(database) as session:
        await session.execute(
            text(
                "truncate document, chunk, passage_words, passage_vector, vector_space, collection_space, term, corpus"
            )
        )
    await ingest(database, last(), content)
    fresh = await index(database)
    assert edited[:3] + edited[4:] == fresh[:3] + fresh[4:]


NEAREST = """
    select c.passage from passage_vector v join chunk c on c.id = v.chunk_id where {where}
    order by v.emb <=> '{vector}', c.passage limit {limit}"""


async def test_a_large_content_has_an_approximate_index_which_finds_what_is_near_also_within_a_collection(
    write: Write, content: Path, database: Database
) -> None:
    for collection in ("large", "small"):
        write(f"{collection}/a.md", "# Abacus\n\nAbba abba.")
    await ingest(database, Letters(), content)
    sizes = {"large": LARGE, "small": 300}
    for collection, size in sizes.items():
        await query(database, _MANY.format(collection=collection, size=size))
    write("small/b.md", "# B\n\nBbb.")
    await ingest(database, Letters(), content)
    names = f"select relname from pg_class where relname like '{PREFIX}%'"
    assert len(await query(database, names)) == 1
    vector = str((await Letters().embed(["ehg"]))[0].tolist())
    for within, least in ((None, 8), (["large"], 8), (["large", "small"], 8), (["small"], 10)):
        where = "true" if within is None else f"v.collection = any('{{{','.join(within)}}}')"
        nearest = {id for (id,) in await query(database, NEAREST.format(where=where, vector=vector, limit=10))}
        async with everything(database) as session:
            # As many as there are candidates: passages of one document take places from each other.
            hits = await search(session, Letters(), "ehg", collections=within, limit=100)
        assert len({hit.id for hit in hits[:10]} & nearest) >= least
        assert within is None or {hit.collection for hit in hits} <= {*within}
    await ingest(database, Longer(), content)
    assert await query(database, names) == [
        (f"{PREFIX}{id}",) for (id,) in await query(database, "select id from vector_space where name = 'longer'")
    ]


_MANY = """
    with made as (
        insert into chunk (owner_id, id, document_id, ordinal, passage, collection, heading, text, start_offset, end_offset, tsv)
        select c.owner_id, gen_random_uuid(), c.document_id, n, c.passage || n, c.collection, '', '', 0, 1, ''
        from chunk c cross join generate_series(1, {size}) n where c.collection = '{collection}'
        returning owner_id, id, collection),
    words as (insert into passage_words (owner_id, chunk_id, collection, words)
              select owner_id, id, collection, '{{}}' from made)
    insert into passage_vector (owner_id, space, chunk_id, collection, emb)
    select m.owner_id, v.space, m.id, m.collection,
           array[random(), random(), random(), random(), random(), random(), random(), random()]::halfvec
    from made m cross join (select distinct space from passage_vector) v
    returning 1"""
