"""content/ -> documents and chunks.

Only what has changed is written, in batches that no query sees half done.

One writer at a time stores a batch, under an advisory lock, and looks again at what is stored when it has the lock:
two processes that ingest the same folder neither wait for each other's rows nor write anything twice.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from agent_server.db import SYSTEM, Database, new_id
from agent_server.db.grown_indexes import analyze
from agent_server.errors import Mistake
from agent_server.folding import fold
from agent_server.knowledge import markup, rows
from agent_server.knowledge.cache import embed_once
from agent_server.knowledge.chunk import VERSION, TextChunk, chunk
from agent_server.knowledge.collection import embedder_of_collection, find_wrong_collections
from agent_server.knowledge.embedders import gather_embedders
from agent_server.knowledge.embedders.base import Embedder
from agent_server.knowledge.embedders.opened import Embedders
from agent_server.knowledge.files import content_files, find_links_out, list_unreadable
from agent_server.knowledge.languages import CONFIGS, spread_unspaced
from agent_server.knowledge.parse import (
    ContentPage,
    FileReading,
    Source,
    open_source,
    read_file,
)
from agent_server.knowledge.readers.child import Child
from agent_server.knowledge.settle import lock, settle
from agent_server.knowledge.vectors.renew import renew
from agent_server.knowledge.vectors.spaces import Spaces, Wish, assign, read_spaces
from agent_server.knowledge.vectors.texts import about, embedded_text, spell

BATCH = 128
MANY = 1_000
"""Passages after which Postgres is told that there are more."""
# The pivot is a constant: with the true mean, each new page would change the stored half of every chunk. Chunks are cut
# to one size, so the true mean stays near: 96 and 111 in the two judged collections. Between 50 and 110 nDCG@10 moves
# by less than .01.
PIVOT = 110.0
"""The length, in counted words, that BM25 takes as the mean."""
_WORDS = 3
"""Of what is left out of the words of a chunk. A change here re-ingests everything."""

_STORED = text("select path, id, sha from document where owner_id = :owner_id")


@dataclass(frozen=True)
class Progress:
    """How far an ingest is in documents. `document` is the one at hand."""

    done: int
    total: int
    document: str


@dataclass
class IngestReport:
    """What an ingest did. It counts documents and chunks. A page with a mistake keeps its previous version.

    `embedded` are the passages that were there and have vectors of another embedder now.

    `remarks` are of files that were read now; those of unchanged pages were told before. `paths` are of the pages that
    were added, changed or removed.
    """

    added: int = 0
    changed: int = 0
    removed: int = 0
    unchanged: int = 0
    chunks: int = 0
    embedded: int = 0
    problems: list[Mistake] = field(default_factory=list)
    remarks: list[Mistake] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True)
class _PreparedPage:
    """A page with its chunks and their vectors as pgvector spells them, None where no embedder makes them."""

    page: ContentPage
    sha: str
    chunks: Sequence[TextChunk]
    space: int | None
    vectors: Sequence[str | None]


async def ingest(
    database: Database,
    embedder: Embedder,
    content: Path,
    *,
    without: Collection[str] = (),
    progress: Callable[[Progress], None] | None = None,
    prune: bool = True,
    later: Callable[[], Awaitable[object]] | None = None,
) -> IngestReport:
    """Bring the index to what `content` holds, save the folders in it that `without` names. An unchanged page costs a read and a hash, no embedding and no write.

    Where another embedder is wanted than before, its vectors are made at the end; with `later` that is called instead,
    and has `renew` do it. `prune=False` keeps documents whose files are gone. Raises Unavailable when the database goes
    away; what was committed by then stays, the rest comes with the next run.
    """
    started = time.perf_counter()
    report, embedders = IngestReport(), gather_embedders(embedder)
    wishes = await asyncio.to_thread(_list_wishes, content, embedders, without)
    async with database.transaction(SYSTEM, patient=True) as session:
        await lock(session)
        await assign(session, wishes, PIVOT)
        spaces = await read_spaces(session)
        stored = {path: sha for path, (_, sha) in (await _read_stored(session)).items()}
    with Child() as child:
        # Reading a large folder takes seconds, which would hold up every stream of a running server.
        todo, kept = await asyncio.to_thread(_find_changed, content, stored, report, without)
        batches = _Batches(content, child, report, kept, embedders, spaces)
        await _store_all(database, todo, batches, report, progress, stored)
    gone = [path for path in stored if path not in kept] if prune else []
    if gone:
        await _remove(database, gone)
    await settle(database)
    if report.chunks >= MANY:
        await analyze(database, ("chunk", "passage_words", "passage_vector", "term"))
    if later is None:
        report.embedded = await renew(database, embedders, pivot=PIVOT)
    elif await _is_waiting(database):
        await later()
    report.removed = len(gone)
    report.paths += gone
    report.seconds = time.perf_counter() - started
    return report


async def _is_waiting(database: Database) -> bool:
    async with database.transaction(SYSTEM) as session:
        return (await read_spaces(session)).is_waiting


def _list_wishes(content: Path, embedders: Embedders, without: Collection[str]) -> Mapping[str, Wish]:
    """What each collection is to be searched by."""
    files = content_files(content, without) if content.is_dir() else ()
    names = {_collection_of(path, content) for path in files}
    wishes = {}
    for name in sorted(names):
        made_by = embedder_of_collection(content, name) if name else None
        weight = (made_by or {}).get("weight")
        wishes[name] = Wish(embedders if made_by is None else embedders.open(made_by), weight)
    return wishes


def _collection_of(path: Path, content: Path) -> str:
    parts = path.relative_to(content).parts
    return parts[0] if len(parts) > 1 else ""


def _find_changed(
    content: Path, stored: Mapping[str, str], report: IngestReport, without: Collection[str]
) -> tuple[list[Path], set[str]]:
    """The files that have to be read, and the paths that keep what is stored of them."""
    if not content.is_dir():
        return [], set()
    # Not among those that are kept: what an earlier version has read of them has to go.
    report.problems += [*find_links_out(content, without), *find_wrong_collections(content, without)]
    todo: list[Path] = []
    # What another machine read of a file stays where the package that reads it is missing on this one.
    kept = set(list_unreadable(content, without))
    for path in content_files(content, without):
        source = open_source(path, content)
        if isinstance(source, Source) and stored.get(source.path) == _sha(source):
            kept.add(source.path)
            report.unchanged += 1
        else:
            todo.append(path)
    return todo, kept


@dataclass(frozen=True)
class _Batches:
    """Reads files, and keeps account of what became of them."""

    content: Path
    child: Child
    report: IngestReport
    kept: set[str]
    embedders: Embedders
    spaces: Spaces

    def read(self, files: Sequence[Path]) -> list[ContentPage]:
        return [page for path in files if (page := self._take(path, read_file(path, self.content, self.child)))]

    def space_of(self, page: ContentPage) -> int | None:
        """The space that the page's collection is searched in."""
        served = self.spaces.collections.get(page.collection)
        return None if served is None or self.find_maker(served.space) is None else served.space

    def find_maker(self, space: int | None) -> Embedder | None:
        """What makes the vectors of a space; None where it is there no more."""
        if space is None:
            return None
        found = self.spaces.spaces[space]
        return self.embedders.find(found.name, found.made_by)

    def _take(self, path: Path, reading: FileReading) -> ContentPage | None:
        self.report.problems += reading.mistakes
        self.report.remarks += reading.remarks
        # A page with a mistake keeps its previous version until it is corrected. One that is left out does not.
        if reading.page or reading.mistakes:
            self.kept.add(path.relative_to(self.content).as_posix())
        return reading.page


def _sha(page: ContentPage | Source) -> str:
    # All that the stored rows are made with: when one of these changes, old and new rows do not fit together.
    return f"{page.sha}/{VERSION}/{_WORDS}/{PIVOT:g}"


async def _read_stored(session: AsyncSession) -> dict[str, tuple[UUID, str]]:
    return {path: (id, sha) for path, id, sha in await session.execute(_STORED, {"owner_id": SYSTEM})}


async def _store_all(
    database: Database,
    files: Sequence[Path],
    batches: _Batches,
    report: IngestReport,
    progress: Callable[[Progress], None] | None,
    stored: Mapping[str, str],
) -> None:
    """Read the files and store their pages, batch by batch. What was stored stays if this is cut off."""
    firsts = range(0, len(files), BATCH)

    def begin(first: int) -> asyncio.Task[list[_PreparedPage]]:
        return asyncio.create_task(_prepare(database, files[first : first + BATCH], batches))

    upcoming = begin(0) if files else None
    for first in firsts:
        assert upcoming is not None
        if progress is not None:
            progress(Progress(first, len(files), files[first].relative_to(batches.content).as_posix()))
        prepared = await upcoming
        # Before the store, so that the next batch is embedded while Postgres works on this one.
        upcoming = begin(first + BATCH) if first + BATCH < len(files) else None
        await _store(database, prepared)
        report.chunks += sum(len(one.chunks) for one in prepared)
        report.added += sum(one.page.path not in stored for one in prepared)
        report.changed += sum(one.page.path in stored for one in prepared)
        report.paths += [one.page.path for one in prepared]
    if progress is not None:
        progress(Progress(len(files), len(files), ""))


async def _prepare(database: Database, files: Sequence[Path], batches: _Batches) -> list[_PreparedPage]:
    """The pages of these files, cut and embedded."""
    # A batch takes tenths of a second, so none of it is done on the event loop.
    chunked = await asyncio.to_thread(lambda: [(page, chunk(page)) for page in batches.read(files)])
    prepared: dict[str, _PreparedPage] = {}
    for space in {batches.space_of(page) for page, _ in chunked}:
        pages = [(page, pieces) for page, pieces in chunked if batches.space_of(page) == space]
        vectors = await _embed(database, batches, space, pages)
        for page, pieces in pages:
            prepared[page.path] = _PreparedPage(page, _sha(page), pieces, space, [next(vectors) for _ in pieces])
    return [prepared[page.path] for page, _ in chunked]


async def _embed(
    database: Database, batches: _Batches, space: int | None, pages: Sequence[tuple[ContentPage, Sequence[TextChunk]]]
) -> Iterator[str | None]:
    """The vectors of all chunks in their order."""
    maker = batches.find_maker(space)
    if maker is None:
        return iter([None] * sum(len(pieces) for _, pieces in pages))
    texts = [
        embedded_text(page.path, piece.heading, page.description, page.tags, piece.text)
        for page, pieces in pages
        for piece in pieces
    ]
    vectors = await embed_once(database, maker, texts)
    return iter(await asyncio.to_thread(spell, vectors))


async def _store(database: Database, prepared: Sequence[_PreparedPage]) -> None:
    """Replace the documents and the statistics in one transaction."""
    async with database.transaction(SYSTEM, patient=True) as session:
        await lock(session)
        # Read again under the lock: another process may have stored the same pages while this one embedded them.
        stored = await _read_stored(session)
        todo = [one for one in prepared if stored.get(one.page.path, (None, ""))[1] != one.sha]
        ids = {one.page.path: stored[one.page.path][0] if one.page.path in stored else new_id() for one in todo}
        await _forget_chunks(session, [ids[path] for path in ids if path in stored])
        documents = [_document(ids[one.page.path], one) for one in todo]
        await session.execute(rows.DOCUMENTS, {"owner_id": SYSTEM, "rows": json.dumps(documents)})
        chunks = [row for one in todo for row in _rows(ids[one.page.path], one)]
        await session.execute(rows.CHUNKS, {"owner_id": SYSTEM, "pivot": PIVOT, "rows": json.dumps(chunks)})
        await session.execute(rows.COUNT_IN, {"owner_id": SYSTEM, "pivot": PIVOT, "ids": list(ids.values())})


def _document(id: UUID, one: _PreparedPage) -> dict[str, Any]:
    return {
        "id": str(id),
        "path": one.page.path,
        "collection": one.page.collection,
        "title": one.page.title,
        "description": one.page.description,
        "language": one.page.language,
        "urgent": list(one.page.urgent),
        "tags": list(one.page.tags),
        "text": one.page.text,
        "sha": one.sha,
    }


def _rows(document_id: UUID, one: _PreparedPage) -> Iterator[dict[str, Any]]:
    for ordinal, (piece, vector) in enumerate(zip(one.chunks, one.vectors, strict=True)):
        yield {
            "id": str(new_id()),
            "document_id": str(document_id),
            "ordinal": ordinal,
            "passage": piece.id,
            "collection": one.page.collection,
            "heading": piece.heading,
            "text": piece.text,
            "start": piece.start,
            "end": piece.end,
            "config": CONFIGS[one.page.language],
            "about": spread_unspaced(fold(about(one.page.path, piece.heading, one.page.description, one.page.tags))),
            "words": spread_unspaced(fold(" ".join((piece.words, *markup.list_code_names(piece.words))))),
            "space": one.space,
            "emb": vector,
        }


async def _remove(database: Database, paths: Sequence[str]) -> None:
    async with database.transaction(SYSTEM, patient=True) as session:
        await lock(session)
        stored = await _read_stored(session)
        ids = [stored[path][0] for path in paths if path in stored]
        await _forget_chunks(session, ids)
        await session.execute(rows.FORGET_DOCUMENTS, {"owner_id": SYSTEM, "ids": ids})


async def _forget_chunks(session: AsyncSession, document_ids: Sequence[UUID]) -> None:
    if not document_ids:
        return
    values = {"owner_id": SYSTEM, "ids": document_ids}
    spaces = [*(await read_spaces(session)).spaces]
    # The counts first: they are taken from the chunks, which the next statement deletes.
    await session.execute(rows.COUNT_OUT, {**values, "pivot": PIVOT})
    await session.execute(rows.FORGET_CHUNKS, {**values, "spaces": spaces})
    # Words that no chunk has any more would pile up with every edit.
    await session.execute(rows.FORGET_TERMS, {"owner_id": SYSTEM})
