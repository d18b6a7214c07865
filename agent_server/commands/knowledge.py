"""agent-server content search | benchmark"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from agent_server.commands.context import CommandContext
from agent_server.commands.terminal import say, show
from agent_server.errors import InvalidInput
from agent_server.knowledge import ingest as ingestion
from agent_server.knowledge import search as searching
from agent_server.knowledge.embedders import open_embedder
from agent_server.wording import count

if TYPE_CHECKING:
    from agent_server.commands.judged import AnswerFigures

BENCHMARK_LIMIT = 20


async def search(context: CommandContext, query: str | None, stdin: bool, limit: int, as_json: bool) -> None:
    if (query is None) == (not stdin):
        raise typer.BadParameter("Give one QUERY, or --stdin with a query per line")
    database, embedder = await context.engine_database(), open_embedder(context.settings)
    # What is searched is what is in the files now.
    await ingestion.ingest(database, embedder, context.content, without=context.left_out.collections)
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

    database, embedder = await context.engine_database(), open_embedder(context.settings)
    await ingestion.ingest(database, embedder, context.content, without=context.left_out.collections)
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
