"""content/ -> documents and chunks: only what has changed, in batches that no query sees half done."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from agent_server.db import SYSTEM, Database, new_id
from agent_server.errors import Problem
from agent_server.knowledge.chunk import SEPARATOR, VERSION, Passage, chunk
from agent_server.knowledge.embed import Embedder
from agent_server.knowledge.parse import ContentPage, content_files, read_page

BATCH = 64
PIVOT = 110.0
"""The length, in counted words, that BM25 takes as the mean. A constant: were it the mean of what is there, each new
page would change the stored half of every chunk. Chunks are cut to one size, so their true mean stays near it."""
_LOCK = 7_300_422

_INSERT_DOCUMENT = text("""
    insert into document (owner_id, id, path, collection, title, description, urgent, text, sha, created_at, updated_at)
    values (:owner_id, :id, :path, :collection, :title, :description, cast(:urgent as text[]), :text, :sha, now(), now())
    on conflict (owner_id, path) do update set collection = excluded.collection, title = excluded.title,
        description = excluded.description, urgent = excluded.urgent, text = excluded.text, sha = excluded.sha,
        updated_at = now()
    returning id""")

_INSERT_CHUNKS = text("""
    insert into chunk (owner_id, id, document_id, ordinal, passage, collection, heading, text, start_offset, end_offset,
                       tsv, lex, emb)
    select :owner_id, r.id, r.document_id, r.ordinal, r.passage, r.collection, r.heading, r.text, r.start, r."end",
           v.tsv, lexvec(v.tsv, cast(:pivot as real)), cast(r.emb as halfvec(256))
    from jsonb_to_recordset(cast(:rows as jsonb)) as r(id uuid, document_id uuid, ordinal int, passage text,
         collection text, heading text, text text, start int, "end" int, emb text)
    cross join lateral (select setweight(to_tsvector('english', r.heading), 'A')
                            || setweight(to_tsvector('english', r.text), 'D') as tsv) v""")

# Words are counted in their order, so that two writers cannot wait for each other's rows.
_COUNT = """
    insert into term (owner_id, lexeme, n)
    select cast(:owner_id as uuid), word, {sign} ndoc from ts_stat(:chunks) order by word
    on conflict (owner_id, lexeme) do update set n = term.n + excluded.n"""


@dataclass(frozen=True)
class Progress:
    """How far an ingest is, in documents; `document` is the one at hand."""

    done: int
    total: int
    document: str


@dataclass
class IngestReport:
    """What an ingest did, in documents and chunks; a page with a mistake keeps its previous version."""

    added: int = 0
    changed: int = 0
    removed: int = 0
    unchanged: int = 0
    chunks: int = 0
    problems: list[Problem] = field(default_factory=list)
    seconds: float = 0.0


async def ingest(
    database: Database, embedder: Embedder, content: Path, *, progress: Callable[[Progress], None] | None = None
) -> IngestReport:
    """Bring the index to what `content` holds. An unchanged page costs a read and a hash, no embedding and no write.

    Raises Unavailable when the database goes away; what was committed by then stays, the rest comes with the next run.
    """
    started = time.perf_counter()
    report = IngestReport()
    pages, broken = await asyncio.to_thread(_read, content, report)
    stored = await _stored(database)
    todo = [page for page in pages if stored.get(page.path, (None, ""))[1] != _sha(page, embedder)]
    gone = [id for path, (id, _) in stored.items() if path not in {p.path for p in pages} and path not in broken]
    report.unchanged = len(pages) - len(todo)
    for first in range(0, len(todo), BATCH):
        batch = todo[first : first + BATCH]
        if progress is not None:
            progress(Progress(first, len(todo), batch[0].path))
        passages = await asyncio.to_thread(_embedded, batch, embedder)
        await _store(database, batch, passages, embedder)
        report.chunks += sum(len(of_page) for of_page in passages)
    report.added = sum(page.path not in stored for page in todo)
    report.changed = len(todo) - report.added
    if gone:
        await _remove(database, gone)
        report.removed = len(gone)
    if todo or gone:
        async with database.transaction() as session:
            # else every search reads the index's list of pending entries, 5 times slower at 5,000 chunks
            await session.execute(text("select gin_clean_pending_list('ix_chunk_tsv')"))
            await session.execute(text("delete from term where owner_id = :owner_id and n <= 0"), {"owner_id": SYSTEM})
    if progress is not None:
        progress(Progress(len(todo), len(todo), ""))
    report.seconds = time.perf_counter() - started
    return report


def _read(content: Path, report: IngestReport) -> tuple[list[ContentPage], set[str]]:
    pages: list[ContentPage] = []
    broken: set[str] = set()
    for path in content_files(content) if content.is_dir() else ():
        page = read_page(path, content)
        if isinstance(page, Problem):
            report.problems.append(page)
            broken.add(path.relative_to(content).as_posix())
        else:
            pages.append(page)
    return pages, broken


def _sha(page: ContentPage, embedder: Embedder) -> str:
    return f"{page.sha}/{VERSION}/{embedder.name}/{PIVOT:g}"


async def _stored(database: Database) -> dict[str, tuple[UUID, str]]:
    async with database.transaction() as session:
        rows = await session.execute(
            text("select path, id, sha from document where owner_id = :owner_id"), {"owner_id": SYSTEM}
        )
        return {path: (id, sha) for path, id, sha in rows}


def _embedded(batch: Sequence[ContentPage], embedder: Embedder) -> list[list[tuple[Passage, str]]]:
    """The passages of each page, each with its vector as pgvector spells it."""
    chunked = [chunk(page) for page in batch]
    texts = [f"{p.heading.replace(SEPARATOR, ' ')}\n{p.text}" for passages in chunked for p in passages]
    vectors = iter(embedder.embed(texts))
    return [[(p, "[" + ",".join(f"{x:.5g}" for x in next(vectors)) + "]") for p in passages] for passages in chunked]


async def _store(
    database: Database,
    batch: Sequence[ContentPage],
    passages: Sequence[Sequence[tuple[Passage, str]]],
    embedder: Embedder,
) -> None:
    """Replace the batch's documents in one transaction, statistics included."""
    async with database.transaction() as session:
        await _lock(session)
        ids = [await _document(session, page, embedder) for page in batch]
        await _forget_chunks(session, ids)
        rows = [
            _row(id, ordinal, page, passage, vector)
            for id, page, of_page in zip(ids, batch, passages, strict=True)
            for ordinal, (passage, vector) in enumerate(of_page)
        ]
        await session.execute(_INSERT_CHUNKS, {"owner_id": SYSTEM, "pivot": PIVOT, "rows": json.dumps(rows)})
        await _count(session, ids, "+")


async def _document(session: AsyncSession, page: ContentPage, embedder: Embedder) -> UUID:
    values = {
        "owner_id": SYSTEM,
        "id": new_id(),
        "path": page.path,
        "collection": page.collection,
        "title": page.title,
        "description": page.description,
        "urgent": list(page.urgent),
        "text": page.text,
        "sha": _sha(page, embedder),
    }
    id: UUID = (await session.execute(_INSERT_DOCUMENT, values)).scalar_one()
    return id


def _row(document_id: UUID, ordinal: int, page: ContentPage, passage: Passage, vector: str) -> dict[str, Any]:
    return {
        "id": str(new_id()),
        "document_id": str(document_id),
        "ordinal": ordinal,
        "passage": passage.id,
        "collection": page.collection,
        "heading": passage.heading,
        "text": passage.text,
        "start": passage.start,
        "end": passage.end,
        "emb": vector,
    }


async def _remove(database: Database, ids: Sequence[UUID]) -> None:
    async with database.transaction() as session:
        await _lock(session)
        await _forget_chunks(session, ids)
        await session.execute(
            text("delete from document where owner_id = :owner_id and id = any(cast(:ids as uuid[]))"),
            {"owner_id": SYSTEM, "ids": ids},
        )


async def _lock(session: AsyncSession) -> None:
    """One writer at a time; readers are not held up."""
    await session.execute(text("select pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    await session.execute(text("set local statement_timeout = 0"))


async def _forget_chunks(session: AsyncSession, document_ids: Sequence[UUID]) -> None:
    await _count(session, document_ids, "-")
    await session.execute(
        text("delete from chunk where owner_id = :owner_id and document_id = any(cast(:ids as uuid[]))"),
        {"owner_id": SYSTEM, "ids": document_ids},
    )


async def _count(session: AsyncSession, document_ids: Sequence[UUID], sign: str) -> None:
    """Add the words of the documents' chunks to the statistics, or take them away."""
    listed = ",".join(f"'{id}'" for id in document_ids)  # ts_stat takes a query's text; these are UUIDs of our own
    where = f"owner_id = '{SYSTEM}' and document_id in ({listed})"
    await session.execute(
        text(_COUNT.format(sign=sign)),
        {"owner_id": SYSTEM, "chunks": f"select tsv from chunk where {where}"},  # noqa: S608  # see above
    )
    await session.execute(
        text(f"""
            insert into corpus (owner_id, n_chunks, pivot)
            select cast(:owner_id as uuid), {sign} count(*), :pivot from chunk where {where}
            on conflict (owner_id) do update set n_chunks = corpus.n_chunks + excluded.n_chunks"""),  # noqa: S608
        {"owner_id": SYSTEM, "pivot": PIVOT},
    )
