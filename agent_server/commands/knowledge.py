"""agent-server content search | benchmark"""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
import yaml
from pydantic import BaseModel, Field, TypeAdapter

from agent_server.commands.context import CommandContext
from agent_server.commands.terminal import say, show
from agent_server.errors import InvalidInput
from agent_server.knowledge import ingest as ingestion
from agent_server.knowledge import search as searching
from agent_server.knowledge.embedders import open_embedder
from agent_server.wording import count

BENCHMARK_LIMIT = 20


async def search(context: CommandContext, query: str | None, stdin: bool, limit: int, as_json: bool) -> None:
    if (query is None) == (not stdin):
        raise typer.BadParameter("Give one QUERY, or --stdin with a query per line")
    database, embedder = await context.engine_database(), open_embedder(context.settings)
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
    """Show how early a search finds the judged documents. The search is the one that answers real questions."""
    database, embedder = await context.engine_database(), open_embedder(context.settings)
    await ingestion.ingest(database, embedder, context.content)
    ranks: dict[str, int | None] = {}
    for judged in _read_judged(questions):
        async with database.transaction() as transaction:
            hits = await searching.search(transaction, embedder, judged.question, limit=BENCHMARK_LIMIT)
        # The questions are judged by page, and several passages of one page count once.
        documents = list(dict.fromkeys(hit.document for hit in hits))
        ranks[judged.question] = next((n for n, path in enumerate(documents, 1) if path in judged.documents), None)
    found = [rank for rank in ranks.values() if rank is not None]
    first, in_5 = sum(rank == 1 for rank in found) / len(ranks), sum(rank <= 5 for rank in found) / len(ranks)
    mrr = sum(1 / rank for rank in found) / len(ranks)
    missed = [question for question, rank in ranks.items() if rank is None]
    if as_json:
        show({"questions": len(ranks), "first": first, "in_5": in_5, "mrr": mrr, "missed": missed})
        return
    say(f"{count(len(ranks), 'question')}: right document first {first:.0%}, in the first 5 {in_5:.0%}")
    say(f"mean reciprocal rank {mrr:.3f}")
    for question in missed:
        say(f"not found: {question}")


class _Judged(BaseModel):
    question: str
    documents: list[str]


_JUDGED = TypeAdapter(Annotated[list[_Judged], Field(min_length=1)])


def _read_judged(path: Path) -> list[_Judged]:
    """The judged questions in a YAML list or JSON lines. Raises InvalidInput."""
    try:
        text = path.read_text(encoding="utf-8")
        lines = path.suffix == ".jsonl"
        return _JUDGED.validate_python([json.loads(x) for x in text.splitlines()] if lines else yaml.safe_load(text))
    except (OSError, ValueError, yaml.YAMLError):
        raise InvalidInput(
            f"{path}: must be a list of {{question: text, documents: [path under content/, ...]}}, as YAML or JSON lines"
        ) from None
