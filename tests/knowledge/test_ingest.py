"""The index follows the folder: only what has changed is touched, and no query sees a document half done."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sqlalchemy import text

from agent_server.db import Database
from agent_server.errors import Mistake
from agent_server.knowledge.embedders.wordllama import WordLlama
from agent_server.knowledge.files import content_files
from agent_server.knowledge.ingest import BATCH, PIVOT, IngestReport, Progress, ingest
from agent_server.knowledge.search import list_documents, read_document, search
from tests.conftest import everything
from tests.knowledge.conftest import Write


class Counting(WordLlama):
    """The embedder, counting the texts that it is given."""

    def __init__(self) -> None:
        self.texts = 0

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.texts += len(texts)
        return await super().embed(texts)


def counts(report: IngestReport) -> tuple[int, int, int, int]:
    return report.added, report.changed, report.removed, report.unchanged


async def query(database: Database, statement: str) -> list[Any]:
    async with everything(database) as session:
        return [tuple(row) for row in await session.execute(text(statement))]


STATISTICS = "select lexeme, n from term order by 1"
TRUE_STATISTICS = (
    "select lexeme, count(*) from chunk cross join unnest(tsvector_to_array(tsv)) lexeme group by 1 order by 1"
)


async def index(database: Database) -> list[list[Any]]:
    """All that a search or a citation can see, but for the ids and times of rows."""
    return [
        await query(
            database,
            "select path, collection, title, description, language, urgent, tags, text, sha from document order by path",
        ),
        await query(
            database,
            "select passage, path, ordinal, c.collection, heading, c.text, start_offset, end_offset, tsv::text, lex::text,"
            " words, w.collection from chunk c join document d on d.id = c.document_id"
            " full join passage_words w on w.chunk_id = c.id order by path, ordinal",
        ),
        await query(database, STATISTICS),
        await query(database, "select n_chunks, pivot from corpus"),
        await query(database, "select lexeme, part from compound order by 1, 2"),
        await query(
            database,
            "select passage, s.name, v.collection, emb::text from passage_vector v"
            " left join vector_space s on s.id = v.space left join chunk c on c.id = v.chunk_id order by 1, 2",
        ),
        await query(
            database,
            "select c.collection, s.name, wanted, weight, passages from collection_space c"
            " left join vector_space s on s.id = c.space where passages > 0 order by 1",
        ),
    ]


async def test_only_what_has_changed_is_embedded_and_written(write: Write, content: Path, database: Database) -> None:
    embedder = Counting()
    write("a.md", "# A\n\nApples are red.")
    write("b.md", "# B\n\nBananas are yellow.")
    gone = write("c.md", "# C\n\nCherries are dark.")
    assert counts(await ingest(database, embedder, content)) == (3, 0, 0, 0)
    assert embedder.texts == 3

    rows = (
        "select ctid::text, xmin::text, path from document union all select ctid::text, xmin::text, passage from chunk"
    )
    before = await query(database, rows)
    again = await ingest(database, embedder, content)
    assert (counts(again), again.chunks, embedder.texts) == ((0, 0, 0, 3), 0, 3)
    assert await query(database, rows) == before

    write("b.md", "# B\n\nBananas were green.")
    write("d/d.md", "# D\n\nDates are sweet.")
    gone.unlink()
    changed = await ingest(database, embedder, content)
    assert (counts(changed), changed.chunks, embedder.texts) == ((1, 1, 1, 1), 2, 5)
    async with everything(database) as session:
        assert [d.path for d in await list_documents(session)] == ["a.md", "b.md", "d/d.md"]
        assert await read_document(session, "b.md") == "# B\n\nBananas were green."
        assert [hit.text for hit in await search(session, embedder, "yellow cherries", min_score=0.4)] == []


async def test_a_document_keeps_its_id_when_its_text_changes(write: Write, content: Path, database: Database) -> None:
    write("a.md", "# A\n\nOne.")
    await ingest(database, WordLlama(), content)
    async with everything(database) as session:
        (before,) = await list_documents(session)
    write("a.md", "# B\n\nTwo.")
    await ingest(database, WordLlama(), content)
    async with everything(database) as session:
        (after,) = await list_documents(session)
    assert (before.id, before.title, after.title) == (after.id, "A", "B")


async def test_another_embedder_makes_every_vector_anew_and_no_document(
    write: Write, content: Path, database: Database
) -> None:
    class Other(Counting):
        name = "other"

    write("a.md", "# A\n\nApples.")
    await ingest(database, WordLlama(), content)
    other = Other()
    report = await ingest(database, other, content)
    assert (counts(report), report.embedded, other.texts) == ((0, 0, 0, 1), 1, 1)


async def test_a_page_with_a_mistake_keeps_its_previous_version(
    write: Write, content: Path, database: Database
) -> None:
    write("a.md", "# A\n\nApples are red.")
    write("b.md", "# B\n\nBananas.")
    await ingest(database, WordLlama(), content)
    write("a.md", "---\ntitle: [a\n---\nNo list any more.")
    write("b.md", "# B\n\nBerries.")
    report = await ingest(database, WordLlama(), content)
    assert [str(problem).partition(": the")[0] for problem in report.problems] == [
        "content/a.md:2: front matter is not YAML"
    ]
    assert all(isinstance(problem, Mistake) for problem in report.problems)
    assert counts(report) == (0, 1, 0, 0)
    async with everything(database) as session:
        assert await read_document(session, "a.md") == "# A\n\nApples are red."
        assert await read_document(session, "b.md") == "# B\n\nBerries."


async def test_documents_without_a_file_can_be_kept(write: Write, content: Path, database: Database) -> None:
    file = write("a.md", "# A\n\nApples.")
    await ingest(database, WordLlama(), content)
    file.unlink()
    assert counts(await ingest(database, WordLlama(), content, prune=False)) == (0, 0, 0, 0)
    assert await query(database, "select path from document") == [("a.md",)]
    assert counts(await ingest(database, WordLlama(), content)) == (0, 0, 1, 0)
    assert await index(database) == [[], [], [], [(0, PIVOT)], [], [], []]


async def test_a_folder_that_is_not_there_is_empty(content: Path, database: Database) -> None:
    assert counts(await ingest(database, WordLlama(), content / "nothing")) == (0, 0, 0, 0)


async def test_progress_is_told_batch_by_batch(write: Write, content: Path, database: Database) -> None:
    total = 2 * BATCH + 3
    paths = [f"{number:04}.md" for number in range(total)]
    for path in paths:
        write(path, f"# {path}\n\ntext")
    told: list[Progress] = []
    report = await ingest(database, WordLlama(), content, progress=told.append)
    assert told == [*(Progress(done, total, paths[done]) for done in (0, BATCH, 2 * BATCH)), Progress(total, total, "")]
    assert report.added == report.chunks == total
    assert await query(database, "select count(*) from document") == [(total,)]


async def test_no_query_sees_a_document_half_done(write: Write, content: Path, database: Database) -> None:
    embedder = WordLlama()
    paragraph = "The word of this version is {word}. " * 30

    def write_version(word: str) -> None:
        sections = "\n\n".join(f"## Part {n}\n\n{paragraph.format(word=word)}" for n in range(8))
        write("a.md", f"# Versions\n\n{sections}")

    write_version("amber")
    await ingest(database, embedder, content)
    seen: set[tuple[str, ...]] = set()

    async def read() -> None:
        while not done.is_set():
            async with everything(database) as session:
                hits = await search(session, embedder, "which word has this version", limit=20)
            seen.add(tuple(sorted(next(w for w in ("amber", "cobalt") if w in hit.text) for hit in hits)))

    done = asyncio.Event()
    reader = asyncio.create_task(read())
    for word in ("cobalt", "amber", "cobalt", "amber", "cobalt"):
        write_version(word)
        await ingest(database, embedder, content)
    done.set()
    await reader
    assert seen <= {("amber",) * 8, ("cobalt",) * 8}
    assert len(seen) == 2


async def test_ingests_at_the_same_time_write_everything_once(
    write: Write, content: Path, database: Database, url: str
) -> None:
    half = BATCH  # two batches, in which writers can meet
    for number in range(2 * half):
        write(f"{number}.md", f"# Page {number}\n\nWord{number} and word{number + 1} are here.")
    other = Database(url)
    try:
        await asyncio.gather(*(ingest(each, WordLlama(), content) for each in (database, other, database, other)))
        assert await query(database, "select count(*) from document where updated_at > created_at") == [(0,)]
        for number in range(half):
            (content / f"{number}.md").unlink()
            write(f"{number + half}.md", f"# Page {number}\n\nWord{number} alone.")
        await asyncio.gather(*(ingest(each, WordLlama(), content) for each in (database, other, database, other)))
    finally:
        await other.close()
    assert await query(database, "select count(*), count(distinct path) from document") == [(half, half)]
    assert await query(database, "select count(*), count(distinct passage) from chunk") == [(half, half)]
    assert await query(database, STATISTICS) == await query(database, TRUE_STATISTICS)
    assert await query(database, "select n_chunks from corpus") == [(half,)]


BROKEN = "---\ntitle: [a\n---\n"
WORDS = st.sampled_from(
    [
        "Trockenanzug",
        "Anzug",
        "trocken",
        "潜水の後",
        "apple",
        "banana",
        "running",
        "runs",
        "ran",
        "the",
        "3.14",
        "e-mail",
        "don't",
        "Ünïcode",
    ]
)
TEXTS = st.lists(WORDS, max_size=8).map(" ".join)
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["a.md", "b.md", "guide/a.md", "guide/deep/c.md", "z/z.mdx"]),
        st.one_of(
            st.none(),
            st.builds("# {}\n\n{}\n\n## More\n\n{}\n".format, WORDS, TEXTS, TEXTS),
            st.builds(
                "---\nlanguage: {}\ndescription: {}\ntags: [{}]\n---\n# {}\n\n{}\n".format,
                st.sampled_from(["de", "en", "fr", "ja"]),
                *(WORDS, WORDS, WORDS, TEXTS),
            ),
            st.sampled_from(["a.md", "guide/a.md", "guide/deep/c.md", "moved/b.md"]).map(Path),
            st.just(BROKEN),
            st.just(""),
        ),
    ),
    max_size=8,
)


@given(rounds=st.lists(EDITS, min_size=1, max_size=5))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_after_any_edits_the_index_is_that_of_a_fresh_ingest(
    write: Write, content: Path, database: Database, rounds: list[list[tuple[str, str | Path | None]]]
) -> None:
    for edits in rounds:
        for path, page in edits:
            if page is None:
                (content / path).unlink(missing_ok=True)
            elif isinstance(page, Path):
                if (content / path).exists():
                    (content / page).parent.mkdir(parents=True, exist_ok=True)
                    (content / path).rename(content / page)
            else:
                write(path, page)
        await ingest(database, WordLlama(), content)
        assert await query(database, STATISTICS) == await query(database, TRUE_STATISTICS)
    for file in content_files(content):
        if file.read_text() == BROKEN:
            file.unlink()  # its previous version is kept, which a fresh index cannot have
    await ingest(database, WordLlama(), content)
    edited = await index(database)
    async with everything(database) as session:
        await session.execute(text("truncate document, chunk, passage_words, passage_vector, term, corpus, compound"))
    await ingest(database, WordLlama(), content)
    fresh = await index(database)
    assert (edited[:3], edited[4:]) == (fresh[:3], fresh[4:])
    assert [size for size in edited[3] if size[0]] == [size for size in fresh[3] if size[0]]


async def test_an_ingest_that_is_cut_off_goes_on_where_it_was(write: Write, content: Path, database: Database) -> None:
    class Cut(Exception):
        pass

    def cut(at: Progress) -> None:
        if at.done >= 2 * BATCH:
            raise Cut

    total = 2 * BATCH + 3
    for number in range(total):
        write(f"{number:04}.md", f"Page {number}.")
    with pytest.raises(Cut):
        await ingest(database, WordLlama(), content, progress=cut)
    assert await query(database, "select count(*) from document") == [(2 * BATCH,)]
    assert counts(await ingest(database, WordLlama(), content)) == (3, 0, 0, 2 * BATCH)
    assert await query(database, STATISTICS) == await query(database, TRUE_STATISTICS)


async def test_a_page_that_has_become_empty_is_found_no_more(write: Write, content: Path, database: Database) -> None:
    write("a.md", "# A\n\nApples.")
    await ingest(database, WordLlama(), content)
    write("a.md", "")
    report = await ingest(database, WordLlama(), content)
    assert counts(report) == (0, 0, 1, 0)
    assert [str(remark) for remark in report.remarks] == ["content/a.md: has no text; it is left out"]


async def test_the_syntax_of_other_programs_is_not_found_and_the_passage_is_what_the_file_says(
    write: Write, content: Path, database: Database
) -> None:
    text = "# Masks\n\nRinse the mask {{ canary.value }} with [[Water|fresh water]].\n"
    write("a.md", text)
    await ingest(database, WordLlama(), content)
    assert await query(database, "select text from chunk") == [(text.strip(),)]
    assert await query(database, "select lexeme from term where lexeme in ('canari', 'fresh') order by 1") == [
        ("fresh",)
    ]


async def test_other_kinds_of_files_are_ingested_and_read_again_only_when_they_change(
    write: Write, content: Path, database: Database
) -> None:
    embedder = Counting()
    write("a.html", "<h1>Bread</h1><p>Rye keeps long.</p>")
    write("b.txt", "Plain words.")
    assert counts(await ingest(database, embedder, content)) == (2, 0, 0, 0)
    assert counts(await ingest(database, embedder, content)) == (0, 0, 0, 2)
    assert embedder.texts == 2
    write("a.html", "<h1>Bread</h1><p>Rye keeps a week.</p>")
    assert counts(await ingest(database, embedder, content)) == (0, 1, 0, 1)
