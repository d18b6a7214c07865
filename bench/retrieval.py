"""How well search ranks: judged collections through the production ingest and the production statement.

    python bench/retrieval.py COLLECTION_DIR...

A collection is a folder with docs.jsonl.gz ({"id", "title", "text"}), queries.jsonl.gz ({"id", "text"}) and
qrels.tsv.gz (query, document, grade). Each document becomes a page; its best passage counts. Prints, for either half
alone and for both: nDCG@10, recall at 5 and 20, MRR@10; and pages per second of ingest and the median of a search.
"""

import asyncio
import gzip
import json
import math
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import numpy as np
from numpy.typing import NDArray

from agent_server.db import Database
from agent_server.db.embedded import start_embedded
from agent_server.db.migrate import upgrade
from agent_server.knowledge.embedders.wordllama import WordLlama
from agent_server.knowledge.ingest import ingest
from agent_server.knowledge.search import search
from tests.conftest import everything

ROOT = Path(__file__).parent.parent
MOST = 100
"""Passages that are asked for, so that 20 documents are among them."""


@dataclass(frozen=True)
class Collection:
    name: str
    pages: Mapping[str, str]
    queries: Mapping[str, str]
    judged: Mapping[str, Mapping[str, float]]


class NoWords(WordLlama):
    """Leaves the lexical half alone: every vector is zero."""

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.zeros((len(texts), self.dimensions), dtype=np.float32)


class Fixed(WordLlama):
    """Leaves the dense half alone: the query's vector, whatever the text (which is empty then)."""

    def __init__(self, vector: NDArray[np.float32]) -> None:
        super().__init__()
        self.vector = vector

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self.vector[None]


def load(folder: Path) -> Collection:
    judged: dict[str, dict[str, float]] = {}
    with gzip.open(folder / "qrels.tsv.gz", "rt", encoding="utf-8") as lines:
        for query, document, grade in (line.rstrip("\n").split("\t") for line in lines if line.strip()):
            if float(grade) > 0:
                judged.setdefault(query, {})[document] = float(grade)
    pages = {
        row["id"]: f"---\ntitle: {json.dumps(row['title'] or 'Untitled')}\n---\n{row['text']}"
        for row in rows(folder, "docs")
    }
    queries = {row["id"]: row["text"] for row in rows(folder, "queries") if row["id"] in judged}
    return Collection(folder.name, pages, queries, judged)


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    with gzip.open(folder / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def figures(ranking: Sequence[str], grades: Mapping[str, float]) -> tuple[float, float, float, float]:
    """nDCG@10, recall at 5 and 20, MRR@10 of one query."""
    gain = sum(grades.get(document, 0.0) / math.log2(rank + 1) for rank, document in enumerate(ranking[:10], 1))
    best = sum(g / math.log2(rank + 1) for rank, g in enumerate(sorted(grades.values(), reverse=True)[:10], 1))
    first = next((rank for rank, document in enumerate(ranking[:10], 1) if document in grades), None)
    recall = [sum(document in grades for document in ranking[:k]) / len(grades) for k in (5, 20)]
    return gain / best, recall[0], recall[1], 1 / first if first else 0.0


async def measure(url: str, collection: Collection, content: Path) -> None:
    database, embedder = Database(url), WordLlama()
    await upgrade(database, ROOT)
    ids: dict[str, str] = {}
    for number, (id, page) in enumerate(collection.pages.items()):
        name = f"{number:06}.md"
        ids[name] = id
        (content / name).write_text(page, encoding="utf-8")
    await embedder.embed(["the model is loaded before the clock starts"])
    report = await ingest(database, embedder, content)
    for problem in report.problems:
        print(problem, file=sys.stderr)
    speed = report.added / report.seconds
    print(f"\n{collection.name}: {report.added} documents, {report.chunks} passages, {speed:.0f} documents/s")
    print(f"{'':8} nDCG@10   R@5    R@20   MRR@10")
    seconds: list[float] = []
    for half in ("lexical", "dense", "hybrid"):
        found = []
        for id, query in collection.queries.items():
            async with everything(database) as session:
                started = time.perf_counter()
                match half:
                    case "lexical":
                        hits = await search(session, NoWords(), query, limit=MOST)
                    case "dense":
                        hits = await search(session, Fixed((await embedder.embed([query]))[0]), "", limit=MOST)
                    case _:
                        hits = await search(session, embedder, query, limit=MOST)
                        seconds.append(time.perf_counter() - started)
            ranking = list(dict.fromkeys(ids[hit.document] for hit in hits))
            found.append(figures(ranking, collection.judged[id]))
        print(f"{half:8} " + "  ".join(f"{statistics.mean(column):.3f}" for column in zip(*found, strict=True)))
    print(f"a search takes {statistics.median(seconds) * 1000:.1f} ms (median of {len(seconds)}, {MOST} passages)")
    await database.close()


async def create(server: str) -> str:
    connection = await asyncpg.connect(server)
    name = f"bench_{uuid4().hex}"
    await connection.execute(f"create database {name}")
    await connection.close()
    return server.replace("/postgres?", f"/{name}?")


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit("usage: python bench/retrieval.py COLLECTION_DIR...")
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    try:
        server = start_embedded(folder / "server")
        for argument in sys.argv[1:]:
            content = folder / uuid4().hex / Path(argument).name
            content.mkdir(parents=True)
            asyncio.run(measure(asyncio.run(create(server)), load(Path(argument)), content))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
