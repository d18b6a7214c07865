"""agent-server content ingest | search | benchmark"""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
import typer

from agent_server.commands.context import CommandContext
from agent_server.commands.terminal import fail, say, show
from agent_server.db import Database
from agent_server.errors import InvalidInput
from agent_server.knowledge import ingest as ingestion
from agent_server.knowledge import search as searching
from agent_server.knowledge.embedders import get_embedder
from agent_server.knowledge.embedders.base import Embedder
from agent_server.wording import count

if TYPE_CHECKING:
    from agent_server.commands.judged import AnswerFigures

log = structlog.get_logger()

BENCHMARK_LIMIT = 20
SECONDS_BETWEEN_LINES = 5


async def ingest_with_progress(database: Database, embedder: Embedder, content: Path) -> ingestion.IngestReport:
    """Ingest with a bar where standard error is a terminal, and with lines in the log elsewhere."""
    if not sys.stderr.isatty():
        return await ingestion.ingest(database, embedder, content, progress=_LogProgress())
    from rich import progress as bars  # noqa: PLC0415  # heavy
    from rich.console import Console  # noqa: PLC0415  # heavy

    console = Console(stderr=True)
    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn("{task.fields[rate]}"),
        bars.TimeRemainingColumn(),
    )
    # On standard error, because standard output is for the result; no bar in a log file or a pipe.
    with bars.Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("Reading content/", total=None, rate="")
        started = time.monotonic()

        def advance(at: ingestion.Progress) -> None:
            rate = _show_rate(at, time.monotonic() - started)
            bar.update(task, completed=at.done, total=at.total, description=f"Ingesting {at.document}", rate=rate)

        return await ingestion.ingest(database, embedder, content, progress=advance)


class _LogProgress:
    """Writes how far an ingest is, every few seconds."""

    def __init__(self) -> None:
        self._started = self._told = time.monotonic()

    def __call__(self, at: ingestion.Progress) -> None:
        now = time.monotonic()
        if now - self._told < SECONDS_BETWEEN_LINES or at.done == at.total:
            return
        self._told, seconds = now, now - self._started
        left = round(seconds / at.done * (at.total - at.done)) if at.done else None
        log.info("content.progress", done=at.done, total=at.total, rate=_show_rate(at, seconds), seconds_left=left)


def _show_rate(at: ingestion.Progress, seconds: float) -> str:
    return f"{at.done / seconds:.0f} files/s" if at.done and seconds > 0 else ""


async def ingest(context: CommandContext, as_json: bool, watch: bool = False) -> int:
    """Bring the index up to date. With `watch` it does so again at every change, until the command is stopped."""
    code = await _ingest_once(context, as_json)
    if not watch:
        return code
    from watchfiles import awatch  # noqa: PLC0415  # heavy

    context.content.mkdir(exist_ok=True)
    fail("Waiting for a change.")
    async for _ in awatch(context.content, recursive=True):
        await _ingest_once(context, as_json)
    return 0


async def _ingest_once(context: CommandContext, as_json: bool) -> int:
    database, embedder = await context.engine_database(), get_embedder(context.settings.embedder)
    report = await ingest_with_progress(database, embedder, context.content)
    if as_json:
        found = {"problems": report.problems, "remarks": report.remarks}
        show({**vars(report), **{name: list(map(vars, mistakes)) for name, mistakes in found.items()}})
    else:
        for problem in report.problems:
            fail(str(problem))
        for remark in report.remarks:
            fail(f"{remark} (a remark)")
        say(
            f"{report.added} added, {report.changed} changed, {report.removed} removed, "
            f"{report.unchanged} unchanged; {report.chunks} passages in {report.seconds:.1f} s"
        )
    return 1 if report.problems else 0


async def search(context: CommandContext, query: str | None, stdin: bool, limit: int, as_json: bool) -> None:
    if (query is None) == (not stdin):
        raise typer.BadParameter("Give one QUERY, or --stdin with a query per line")
    database, embedder = await context.engine_database(), get_embedder(context.settings.embedder)
    # What is searched is what is in the files now.
    await ingestion.ingest(database, embedder, context.content)
    for text in [query] if query is not None else [line.strip() for line in sys.stdin if line.strip()]:
        async with database.transaction() as transaction:
            hits = await searching.search(transaction, embedder, text, limit=limit)
        if as_json:
            show({"query": text, "hits": [vars(hit) for hit in hits]})
            continue
        for hit in hits:
            say(f"{hit.score:.2f}  {hit.document}  {hit.heading}\n      {' '.join(hit.text.split())[:200]}")


async def benchmark(context: CommandContext, questions: Path, as_json: bool) -> None:
    """Show how early a search finds the judged documents, and how well they are quoted without a language model.

    Search and quotes are those that answer real questions.
    """
    from agent_server.commands.judged import measure_answers, read_judged  # noqa: PLC0415  # heavy

    database, embedder = await context.engine_database(), get_embedder(context.settings.embedder)
    await ingestion.ingest(database, embedder, context.content)
    ranks: dict[str, int | None] = {}
    judged_questions = read_judged(questions)
    for judged in judged_questions:
        if not judged.documents:
            continue
        async with database.transaction() as transaction:
            hits = await searching.search(transaction, embedder, judged.question, limit=BENCHMARK_LIMIT)
        # The questions are judged by page, and several passages of one page count once.
        documents = list(dict.fromkeys(hit.document for hit in hits))
        ranks[judged.question] = next((n for n, path in enumerate(documents, 1) if path in judged.documents), None)
    if not ranks:
        raise InvalidInput(f"{questions}: no question has documents that answer it; at least one must")
    found = [rank for rank in ranks.values() if rank is not None]
    first, in_5 = sum(rank == 1 for rank in found) / len(ranks), sum(rank <= 5 for rank in found) / len(ranks)
    mrr = sum(1 / rank for rank in found) / len(ranks)
    missed = [question for question, rank in ranks.items() if rank is None]
    # Where nothing is judged but pages, nothing can be said of the answers.
    answers = None
    if any(judged.must or not judged.documents for judged in judged_questions):
        limit, least = context.settings.search_limit, context.settings.search_min_score
        answers = await measure_answers(database, embedder, judged_questions, limit=limit, min_score=least)
    if as_json:
        measured = {"questions": len(ranks), "first": first, "in_5": in_5, "mrr": mrr, "missed": missed}
        show(measured | ({"answers": vars(answers)} if answers else {}))
        return
    say(f"{count(len(ranks), 'question')}: right document first {first:.0%}, in the first 5 {in_5:.0%}")
    say(f"mean reciprocal rank {mrr:.3f}")
    for question in missed:
        say(f"not found: {question}")
    if answers:
        _say_answers(answers)


def _say_answers(answers: "AnswerFigures") -> None:
    of = f"of {answers.answerable}"
    say(f"without a language model: answered {answers.answered} {of}, in {answers.length} characters (median)")
    say(f"right document cited first {answers.first} {of}, among the first three {answers.three}")
    say(f"wrongly declined {answers.declined} {of}")
    say(f"declined as it should be {answers.refused} of {answers.unanswerable}")
    for question in answers.failed:
        say(f"not well: {question}")
