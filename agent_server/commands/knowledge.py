"""agent-server content validate | ingest | search | benchmark"""

import json
import sys
from pathlib import Path
from typing import Any

import typer
import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from agent_server.commands.session import Session, fail, say, show
from agent_server.db import Database
from agent_server.errors import InvalidInput
from agent_server.knowledge import ingest as ingestion
from agent_server.knowledge import search as searching
from agent_server.knowledge.embed import Embedder
from agent_server.knowledge.parse import read_content

BENCHMARK_LIMIT = 20


async def ingest_with_progress(database: Database, embedder: Embedder, content: Path) -> ingestion.IngestReport:
    """Ingest, with a bar where standard error is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("Reading content/", total=None)

        def advance(at: ingestion.Progress) -> None:
            bar.update(task, completed=at.done, total=at.total, description=f"Ingesting {at.document}")

        return await ingestion.ingest(database, embedder, content, progress=advance)


async def validate(session: Session, as_json: bool) -> int:
    pages, problems = read_content(session.settings.workspace.resolve() / "content")
    if as_json:
        show([vars(problem) for problem in problems])
    else:
        for problem in problems:
            say(str(problem))
        say(f"{len(problems)} mistakes" if problems else f"{len(pages)} pages are in order")
    return 1 if problems else 0


async def ingest(session: Session, as_json: bool) -> int:
    report = await ingest_with_progress(await session.database(), Embedder(), session.workspace.content)
    if as_json:
        show({**vars(report), "problems": [vars(problem) for problem in report.problems]})
    else:
        for problem in report.problems:
            fail(str(problem))
        say(
            f"{report.added} added, {report.changed} changed, {report.removed} removed, "
            f"{report.unchanged} unchanged; {report.chunks} passages in {report.seconds:.1f} s"
        )
    return 1 if report.problems else 0


async def search(session: Session, query: str | None, stdin: bool, limit: int, as_json: bool) -> None:
    if (query is None) == (not stdin):
        raise typer.BadParameter("Give one QUERY, or --stdin with a query per line")
    database, embedder = await session.database(), Embedder()
    await ingestion.ingest(database, embedder, session.workspace.content)
    for text in [query] if query is not None else [line.strip() for line in sys.stdin if line.strip()]:
        async with database.transaction() as transaction:
            hits = await searching.search(transaction, embedder, text, limit=limit)
        if as_json:
            show({"query": text, "hits": [vars(hit) for hit in hits]})
            continue
        for hit in hits:
            say(f"{hit.score:.2f}  {hit.document}  {hit.heading}\n      {' '.join(hit.text.split())[:200]}")


async def benchmark(session: Session, questions: Path, as_json: bool) -> None:
    """Reciprocal rank and recall of the judged documents, by the statement that answers real questions."""
    database, embedder = await session.database(), Embedder()
    await ingestion.ingest(database, embedder, session.workspace.content)
    ranks: list[tuple[str, int | None]] = []
    for judged in _judged(questions):
        async with database.transaction() as transaction:
            hits = await searching.search(transaction, embedder, judged["question"], limit=BENCHMARK_LIMIT)
        documents = list(dict.fromkeys(hit.document for hit in hits))
        rank = next((n for n, document in enumerate(documents, 1) if document in judged["documents"]), None)
        ranks.append((judged["question"], rank))
    found = [rank for _, rank in ranks if rank is not None]
    result = {
        "questions": len(ranks),
        "first": sum(rank == 1 for rank in found) / len(ranks),
        "in_5": sum(rank <= 5 for rank in found) / len(ranks),
        "mrr": sum(1 / rank for rank in found) / len(ranks),
        "missed": [question for question, rank in ranks if rank is None],
    }
    if as_json:
        show(result)
        return
    say(
        f"{result['questions']} questions: right document first {result['first']:.0%}, in the first 5 {result['in_5']:.0%}"
    )
    say(f"mean reciprocal rank {result['mrr']:.3f}")
    for question in result["missed"]:
        say(f"not found: {question}")


def _judged(path: Path) -> list[dict[str, Any]]:
    """The judged questions in a YAML list or JSON lines. Raises InvalidInput."""
    try:
        text = path.read_text(encoding="utf-8")
        rows = (
            [json.loads(line) for line in text.splitlines() if line.strip()]
            if path.suffix == ".jsonl"
            else yaml.safe_load(text)
        )
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InvalidInput(f"{path}: cannot be read: {error}") from error
    good = (
        isinstance(rows, list)
        and rows
        and all(
            isinstance(row, dict) and isinstance(row.get("question"), str) and isinstance(row.get("documents"), list)
            for row in rows
        )
    )
    if not good:
        raise InvalidInput(f"{path}: must be a list of {{question: text, documents: [path under content/, ...]}}")
    return list(rows)
