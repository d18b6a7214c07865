"""How well the judged questions of bench/answers are answered without a language model.

python -m bench.judged_answers [--write] [NAME ...]      --write keeps the figures, which tests compare with
"""

import asyncio
import json
import shutil
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from agent_server.commands.judged import AnswerFigures, measure_answers, read_judged
from agent_server.db import Database
from agent_server.db.embedded import start_embedded
from agent_server.db.migrate import upgrade
from agent_server.knowledge.embedders.wordllama import WordLlama
from agent_server.knowledge.ingest import ingest
from agent_server.settings import Settings

ROOT = Path(__file__).parent.parent
SETS = ROOT / "bench" / "answers"
CONTENT = {
    "diving": ROOT / "content",
    "program": SETS / "program" / "content",
    "handbook": SETS / "handbook" / "content",
}
FIGURES = ("first", "three", "answered", "declined", "refused")


async def measure(database: Database, name: str) -> AnswerFigures:
    """Ingest the content of a set into an empty database and ask its questions."""
    embedder, settings = WordLlama(), Settings()
    await ingest(database, embedder, CONTENT[name])
    return await measure_answers(
        database,
        embedder,
        read_judged(SETS / name / "questions.yaml"),
        limit=settings.search_limit,
        min_score=settings.search_min_score,
    )


async def create_database(url: str, name: str) -> Database:
    """A new database with the tables, on the server at `url`."""
    connection = await asyncpg.connect(url)
    await connection.execute(f"create database {name}")
    await connection.close()
    database = Database(urlunsplit(urlsplit(url)._replace(path=f"/{name}")))
    await upgrade(database, ROOT)
    return database


async def _measure_all(url: str, names: list[str], *, write: bool) -> None:
    for name in names:
        database = await create_database(url, name)
        figures = await measure(database, name)
        await database.close()
        kept = {key: getattr(figures, key) for key in FIGURES}
        print(name, kept | {"answerable": figures.answerable, "unanswerable": figures.unanswerable})
        print(*(f"  {question}" for question in figures.failed), sep="\n")
        if write:
            (SETS / name / "figures.json").write_text(json.dumps(kept, indent=1) + "\n")


def main() -> None:
    names = [name for name in sys.argv[1:] if name != "--write"] or list(CONTENT)
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    try:
        asyncio.run(_measure_all(start_embedded(folder), names, write="--write" in sys.argv))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
