"""What a search costs in a content of a given size, how much of an exact search it finds, and how fast it is ingested.

    python -m bench.large_content [--passages 100000] [--questions 60]

CPU is that of this process and of the Postgres process that answers it (/proc, so Linux only): elapsed times would say how
busy the machine is. The exact search compares every vector, and every passage that has a word of the question.
"""

import argparse
import asyncio
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncSession

from agent_server.db import SYSTEM, Database
from agent_server.knowledge.embedders.wordllama import WordLlama
from agent_server.knowledge.ingest import ingest
from agent_server.knowledge.search import search
from agent_server.knowledge.vectors.index import PREFIX
from bench.postgres import fresh_database
from bench.synthetic import list_questions, write_content

WARM = 12
"""Questions that are not counted: Postgres plans a statement anew the first times."""
WITHIN = (None, ["large"], ["middle"], ["small"])


@dataclass(frozen=True)
class Asked:
    """What a question cost, in seconds of CPU, and the passages that it found."""

    python: float
    postgres: float
    found: Sequence[str]


def read_cpu(pid: int) -> float:
    """Seconds that a process has been on a core."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


class Unlimited:
    """A session in which every passage that has a word of the question is a candidate."""

    def __init__(self, session: AsyncSession) -> None:
        self.bind, self._session = session.bind, session

    async def execute(self, statement: TextClause, values: dict[str, Any]) -> Any:
        given = {**values, "most_postings": 2**31} if "most_postings" in values else values
        return await self._session.execute(statement, given)


async def ask(
    database: Database, embedder: WordLlama, question: str, within: list[str] | None, *, exact: bool
) -> Asked:
    async with database.transaction(SYSTEM) as session:
        pid = (await session.execute(text("select pg_backend_pid()"))).scalar_one()
        asked: Any = Unlimited(session) if exact else session
        python, postgres = time.process_time(), read_cpu(pid)
        hits = await search(asked, embedder, question, collections=within, limit=10)
        return Asked(time.process_time() - python, read_cpu(pid) - postgres, [hit.id for hit in hits])


async def ask_all(url: str, questions: Sequence[str], *, exact: bool) -> dict[str, list[Asked]]:
    """The answers to all questions, by the collections that they were looked for in."""
    database, embedder = Database(url, pool_size=1), WordLlama()
    found = {}
    for within in WITHIN:
        asked = [await ask(database, embedder, one, within, exact=exact) for one in (*questions[:WARM], *questions)]
        found[", ".join(within or ["everywhere"])] = asked[WARM:]
    await database.close()
    return found


async def fill(url: str, content: Path) -> None:
    database = Database(url)
    python, started = time.process_time(), time.monotonic()
    report = await ingest(database, WordLlama(), content)
    python, seconds = time.process_time() - python, time.monotonic() - started
    print(f"{report.chunks} passages: {python:.0f} s of this process, {seconds:.0f} s in all, the index among them")
    await database.close()


async def drop_indexes(url: str) -> None:
    connection = await asyncpg.connect(url)
    for (name,) in await connection.fetch("select relname from pg_class where relname like $1", f"{PREFIX}%"):
        await connection.execute(f'drop index "{name}"')
    await connection.close()


def show(name: str, asked: Sequence[Asked], exact: Sequence[Asked]) -> None:
    costs = {
        "python": [one.python for one in asked],
        "postgres": [one.postgres for one in asked],
        "both": [one.python + one.postgres for one in asked],
        "exact, both": [one.python + one.postgres for one in exact],
    }
    said = (f"{what} {1000 * statistics.median(c):.1f} / {1000 * quantile(c):.1f}" for what, c in costs.items())
    print(f"{name}: CPU ms p50 / p95: {'; '.join(said)}")
    for most in (5, 10):
        wanted = [set(one.found[:most]) for one in exact]
        met = sum(len(a & {*b.found[:most]}) for a, b in zip(wanted, asked, strict=True))
        print(f"    of the first {most} of the exact search: {met / max(1, sum(map(len, wanted))):.3f}")


def quantile(values: Sequence[float]) -> float:
    return sorted(values)[int(0.95 * (len(values) - 1))]


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m bench.large_content")
    options.add_argument("--passages", type=int, default=100_000)
    options.add_argument("--questions", type=int, default=60)
    chosen = options.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="content"))
    try:
        write_content(folder, chosen.passages)
        questions = list_questions(chosen.passages, chosen.questions)
        with fresh_database() as url:
            asyncio.run(fill(url, folder))
            asked = asyncio.run(ask_all(url, questions, exact=False))
            asyncio.run(drop_indexes(url))
            exact = asyncio.run(ask_all(url, questions, exact=True))
        for name in asked:
            show(name, asked[name], exact[name])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
