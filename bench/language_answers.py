"""How well questions in other languages are answered with the right paragraph given (bench/answers/languages).

python -m bench.language_answers [NAME ...]

A question is answered where the quote holds the words of the answer. `share` is how much of its paragraph a quote is.
"""

import asyncio
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from agent_server.db import Database
from agent_server.db.embedded import start_embedded
from agent_server.folding import fold
from agent_server.knowledge.embedders.wordllama import WordLlama
from agent_server.knowledge.ingest import ingest
from agent_server.knowledge.passages import CitedPassage
from agent_server.knowledge.rarity import count_words
from agent_server.knowledge.search import search
from agent_server.knowledge.words import content_words, language_of
from agent_server.offline.quote import select
from bench.judged_answers import create_database

FOLDER = Path(__file__).parent / "answers" / "languages"


@dataclass(frozen=True)
class LanguageFigures:
    """Of so many `questions` so many are `answered`, and `declined`. `refused` are declined as they should be: asked about the
    paragraph after their own. `failed` are those that are not answered."""

    questions: int
    answered: int
    declined: int
    refused: int
    share: float
    failed: tuple[str, ...]


def languages() -> Mapping[str, Path]:
    """The judged sets, by language."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


def _read(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load(path.read_text(encoding="utf-8")))


def _write_pages(content: Path, texts: Sequence[str]) -> Path:
    """A folder of content with a page for each text."""
    (content / "pages").mkdir()
    for n, text in enumerate(texts):
        (content / "pages" / f"page-{n}.md").write_text(f"# Page {n}\n\n{text}\n", encoding="utf-8")
    return content


async def measure(database: Database, path: Path) -> LanguageFigures:
    """Ingest the paragraphs of a set into an empty database, and ask each question about its own paragraph."""
    embedder = WordLlama()
    pages = _read(path)
    with tempfile.TemporaryDirectory() as folder:
        await ingest(database, embedder, _write_pages(Path(folder), [page["text"] for page in pages]))
    shares: list[float] = []
    failed: list[str] = []
    questions = declined = refused = 0
    for n, page in enumerate(pages):
        for question, expected in page["questions"]:
            questions += 1
            answer = await _ask(database, embedder, question, f"pages/page-{n}.md")
            declined += answer is None
            refused += await _ask(database, embedder, question, f"pages/page-{(n + 1) % len(pages)}.md") is None
            if answer is not None:
                shares.append(min(1.0, len(answer) / len(page["text"])))
            if answer is None or fold(expected) not in fold(" ".join(answer.split())):
                failed.append(f"{question} {'(declined)' if answer is None else ''}".strip())
    return LanguageFigures(
        questions, questions - len(failed), declined, refused, round(statistics.mean(shares or [0]), 2), tuple(failed)
    )


async def _ask(database: Database, embedder: WordLlama, question: str, document: str) -> str | None:
    """What of a page is quoted for a question."""
    language = language_of(question)
    async with database.transaction() as session:
        found = await search(session, embedder, question, limit=50, min_score=0)
        rarity = await count_words(session, content_words(question, language), language)
    given = [CitedPassage(1, passage) for passage in found if passage.document == document]
    answer = await select(question, given, embedder, rarity=rarity)
    return answer.text if answer is not None else None


async def _measure_all(url: str, names: list[str]) -> None:
    for name, path in languages().items():
        if names and name not in names:
            continue
        database = await create_database(url, name)
        figures = await measure(database, path)
        await database.close()
        print(
            f"{name}: {figures.answered} of {figures.questions}, {figures.declined} declined, {figures.refused} elsewhere, share {figures.share}"
        )
        print(*(f"  {question}" for question in figures.failed), sep="\n")


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    try:
        asyncio.run(_measure_all(start_embedded(folder), sys.argv[1:]))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
