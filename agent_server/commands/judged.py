"""Questions that people judged: which pages answer them, and what an answer without a language model must hold."""

import json
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, Field, TypeAdapter, field_validator

from agent_server.db import Database
from agent_server.documents.reach import widen
from agent_server.errors import InvalidInput
from agent_server.knowledge.embedders.base import Embedder
from agent_server.knowledge.passages import CitedPassage
from agent_server.knowledge.rarity import count_words
from agent_server.knowledge.search import search
from agent_server.knowledge.words import content_words, language_of
from agent_server.offline.quote import Answer, select

LONG = 1200
"""A longer answer does not count: who quotes whole pages answers everything."""

_MARK = re.compile(r"\[\d{1,2}\]")
_LINE = re.compile(r"^[ \t]*(?:>[ \t]?)*[ \t]*(?:(?:[-+]|\d+\.|#+)[ \t]+)?", re.MULTILINE)
_TYPOGRAPHIC = str.maketrans("‘’‚“”„–—\u00a0", "'''\"\"\"-- ")  # what authors and editors put for '


class Judged(BaseModel):
    """A question with the documents that answer it; none where the content does not.

    `must` are patterns that an answer holds and `must_not` some that it does not hold.
    """

    question: str
    documents: list[str] = []
    must: list[str] = []
    must_not: list[str] = []
    kind: str = ""

    @field_validator("must", "must_not")
    @classmethod
    def _compile(cls, patterns: list[str]) -> list[str]:
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no pattern: {error}") from None
        return patterns


@dataclass(frozen=True)
class AnswerFigures:
    """How well questions are answered without a language model.

    Of the `answerable` ones so many cite a right page `first` or among the first `three`, are `answered` (all that must
    be held, in an answer that is not long) or `declined` although they are answerable. Of the `unanswerable` ones so many
    are `refused`, as they should be. `length` is the median of the answers in characters.
    """

    answerable: int
    first: int
    three: int
    answered: int
    declined: int
    unanswerable: int
    refused: int
    length: int
    failed: tuple[str, ...]


_JUDGED = TypeAdapter(Annotated[list[Judged], Field(min_length=1)])


def read_judged(path: Path) -> list[Judged]:
    """The judged questions in a YAML list or JSON lines. Raises InvalidInput."""
    try:
        text = path.read_text(encoding="utf-8")
        lines = path.suffix == ".jsonl"
        return _JUDGED.validate_python([json.loads(x) for x in text.splitlines()] if lines else yaml.safe_load(text))
    except (OSError, ValueError, yaml.YAMLError):
        raise InvalidInput(
            f"{path}: must be a list of {{question: text, documents: [path under content/, ...], must: [pattern, ...]}}, "
            "as YAML or JSON lines"
        ) from None


async def measure_answers(
    database: Database, embedder: Embedder, judged: Sequence[Judged], *, limit: int, min_score: float
) -> AnswerFigures:
    """Ask each question and judge what is quoted for it. `limit` and `min_score` are those of passages for a model."""
    first = three = answered = declined = refused = 0
    lengths: list[int] = []
    failed: list[str] = []
    for asked in judged:
        answer, cited = await _ask(database, embedder, asked.question, limit, min_score)
        if not asked.documents:
            refused += answer is None
            failed += [asked.question] if answer is not None else []
            continue
        right = [document in asked.documents for document in dict.fromkeys(cited)]
        good = answer is not None and any(right) and _holds(asked, answer.text)
        first += right[:1] == [True]
        three += any(right[:3])
        answered += good
        declined += answer is None
        lengths += [len(answer.text)] if answer is not None else []
        failed += [] if good else [asked.question]
    answerable = sum(bool(asked.documents) for asked in judged)
    return AnswerFigures(
        answerable=answerable,
        first=first,
        three=three,
        answered=answered,
        declined=declined,
        unanswerable=len(judged) - answerable,
        refused=refused,
        length=round(statistics.median(lengths)) if lengths else 0,
        failed=tuple(failed),
    )


async def _ask(
    database: Database, embedder: Embedder, question: str, limit: int, min_score: float
) -> tuple[Answer | None, list[str]]:
    """The answer to a question, and the documents that it cites in their order."""
    language = language_of(question)
    # As the offline model does: what is found further away adds answers, and takes none away.
    for most, least in (widen(limit, min_score), (limit, min_score)):
        async with database.transaction() as transaction:
            passages = await search(transaction, embedder, question, limit=most, min_score=least)
            rarity = await count_words(transaction, content_words(question, language), language)
        cited = [CitedPassage(n, passage) for n, passage in enumerate(passages, 1)]
        answer = await select(question, cited, embedder, rarity=rarity)
        if answer is not None:
            return answer, [passages[n - 1].document for n in answer.cited]
    return None, []


def _holds(asked: Judged, text: str) -> bool:
    flat = _flatten(text)
    return (
        len(text) <= LONG
        and all(re.search(pattern, flat, re.IGNORECASE) for pattern in asked.must)
        and not any(re.search(pattern, flat, re.IGNORECASE) for pattern in asked.must_not)
    )


def _flatten(text: str) -> str:
    """A Markdown text as patterns see it: one line without emphasis, code marks, items' marks and citations."""
    text = re.sub(r"[*`]", "", _LINE.sub("", _MARK.sub(" ", text)))
    return " ".join(text.translate(_TYPOGRAPHIC).split())
