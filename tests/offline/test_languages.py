"""Questions in other languages are answered as well as was measured on the judged sets in bench/answers."""

import pytest

from agent_server.commands.judged import measure_answers, read_judged
from agent_server.db import Database
from agent_server.knowledge.embedders.wordllama import WordLlama
from agent_server.knowledge.ingest import ingest
from agent_server.knowledge.words import content_words, stem_in
from agent_server.settings import Settings
from bench.judged_answers import SETS
from bench.language_answers import FOLDER, measure

MARGIN = 2


@pytest.mark.parametrize(("language", "answered", "refused"), [("de", 53, 51), ("es", 52, 49), ("fr", 49, 52)])
async def test_the_right_paragraph_answers_and_another_one_does_not(
    database: Database, language: str, answered: int, refused: int
) -> None:
    figures = await measure(database, FOLDER / f"{language}.yaml")
    assert figures.questions == 60
    assert figures.answered >= answered - MARGIN, figures.failed
    assert figures.refused >= refused - MARGIN


async def test_chinese_japanese_and_korean_are_found_and_answered(database: Database) -> None:
    embedder, settings = WordLlama(), Settings()
    await ingest(database, embedder, SETS / "unspaced" / "content")
    judged = read_judged(SETS / "unspaced" / "questions.yaml")
    figures = await measure_answers(
        database, embedder, judged, limit=settings.search_limit, min_score=settings.search_min_score
    )
    assert (figures.answerable, figures.unanswerable) == (24, 12)
    assert figures.answered >= 22, figures.failed
    assert figures.refused >= 9, figures.failed


@pytest.mark.parametrize(
    ("question", "language", "found"),
    [
        ("Avec quoi lutte-t-on contre l'acarien ?", "fr", ["lutte", "acarien"]),
        ("Qu'est-ce que l’étain ?", "fr", ["étain"]),
        ("Dov'è l'ingresso dell'acquario?", "it", ["dov'è", "ingresso", "acquario"]),
    ],
)
def test_an_article_before_an_apostrophe_is_no_part_of_the_word(question: str, language: str, found: list[str]) -> None:
    assert content_words(question, language) == found
    assert stem_in("d'étain", "fr") == stem_in("étain", "fr")
