"""Ingest: only what has changed, nothing stale, statistics exact."""

import asyncio
import random
from pathlib import Path

from sqlalchemy import text

from agent_server.db import Database
from agent_server.knowledge.embed import Embedder
from agent_server.knowledge.ingest import Progress, ingest
from tests.knowledge.conftest import Content, Page

WORDS = [
    "reef",
    "wreck",
    "cave",
    "drift",
    "night",
    "suit",
    "fin",
    "mask",
    "valve",
    "gauge",
    "tide",
    "swell",
    "coral",
    "shark",
    "turtle",
    "anchor",
]


async def test_a_second_ingest_of_the_same_content_touches_nothing(content: Content, page: Page) -> None:
    content.write("a/one.md", page("One", "Fins move a diver."))
    content.write("two.md", "# Two\n\nA mask lets a diver see.\n")
    first = await content.ingest()
    assert (first.added, first.chunks) == (2, 2)
    before = await _rows(content.database)
    again = await content.ingest()
    assert (again.added, again.changed, again.removed, again.unchanged, again.chunks) == (0, 0, 0, 2, 0)
    assert await _rows(content.database) == before


async def test_a_changed_page_is_replaced_and_a_deleted_one_is_gone(content: Content, page: Page) -> None:
    content.write("a/one.md", page("One", "Fins move a diver."))
    content.write("a/two.md", page("Two", "A snorkel is for the surface."))
    await content.ingest()
    content.write("a/one.md", page("One", "Gloves keep hands warm."))
    (content.folder / "a" / "two.md").unlink()
    report = await content.ingest()
    assert (report.added, report.changed, report.removed) == (0, 1, 1)
    found = [hit.text for hit in await content.search("fins gloves snorkel")]
    assert found == ["Gloves keep hands warm."]


async def test_a_page_with_a_mistake_is_named_and_keeps_its_previous_version(content: Content, page: Page) -> None:
    content.write("a/one.md", page("One", "Fins move a diver."))
    await content.ingest()
    content.write("a/one.md", b"---\ntitle: One\n---\n\xff\xfe")
    content.write("a/none.md", "no title and no heading\n")
    content.write("a/yaml.md", "---\ntitle: [\n---\nx\n")
    content.write("a/nul.md", b"# T\n\na\x00b\n")
    report = await content.ingest()
    assert [str(problem).split(": ")[0] for problem in report.problems] == [
        "content/a/none.md:1",
        "content/a/nul.md:3",
        "content/a/one.md:4",
        "content/a/yaml.md:3",
    ]
    assert [hit.text for hit in await content.search("fins")] == ["Fins move a diver."]


async def test_the_statistics_are_exact_after_any_edits(content: Content, page: Page) -> None:
    chance = random.Random(3)
    for _ in range(25):
        for _ in range(3):
            name = f"c{chance.randrange(3)}/p{chance.randrange(8)}.md"
            if chance.random() < 0.3 and (content.folder / name).exists():
                (content.folder / name).unlink()
            else:
                content.write(name, page("Page", " ".join(chance.choices(WORDS, k=chance.randint(3, 40)))))
        await content.ingest()
    counted = "select word, ndoc from ts_stat('select tsv from chunk') order by word"
    kept = "select lexeme, n from term order by lexeme"
    async with content.database.transaction() as session:
        assert (await session.execute(text(counted))).all() == (await session.execute(text(kept))).all()
        chunks = (await session.execute(text("select count(*) from chunk"))).scalar_one()
        assert (await session.execute(text("select n_chunks from corpus"))).scalar_one() == chunks


async def test_two_processes_that_ingest_at_once_double_nothing(content: Content, page: Page, url: str) -> None:
    for i in range(30):
        content.write(f"a/p{i}.md", page(f"Page {i}", f"Number {i} is about {WORDS[i % len(WORDS)]}."))
    other = Database(url)
    await asyncio.gather(content.ingest(), ingest(other, Embedder(), content.folder))
    await other.close()
    async with content.database.transaction() as session:
        assert (await session.execute(text("select count(*), count(distinct document_id) from chunk"))).one() == (
            30,
            30,
        )
        assert (await session.execute(text("select n_chunks from corpus"))).scalar_one() == 30


async def test_progress_is_told_to_the_end(content: Content, page: Page) -> None:
    for i in range(70):
        content.write(f"a/p{i:02}.md", page(f"Page {i}", "x"))
    told: list[Progress] = []
    await ingest(content.database, content.embedder, content.folder, progress=told.append)
    assert [(at.done, at.total) for at in told] == [(0, 70), (64, 70), (70, 70)]


async def test_a_workspace_without_content_has_nothing_to_ingest(database: Database, tmp_path: Path) -> None:
    report = await ingest(database, Embedder(), tmp_path / "nowhere")
    assert (report.added, report.problems) == (0, [])


async def _rows(database: Database) -> object:
    async with database.transaction() as session:
        return (await session.execute(text("select id, xmin::text from chunk order by id"))).all()
