"""Pieces of the content as they are found and cited."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Passage:
    """A piece of a document that was found.

    `score` says how well it matches. `id` is derived from its place and text: a citation of it is either this very
    text or gone. `start` and `end` are character offsets in the file.
    """

    id: str
    document: str
    collection: str
    title: str
    heading: str
    text: str
    start: int
    end: int
    score: float


@dataclass(frozen=True)
class CitedPassage:
    """A passage and the number it is cited by."""

    n: int
    passage: Passage


def passage_body(cited: CitedPassage) -> dict[str, Any]:
    """A cited passage as events and messages keep it. The text is as it was when it was cited."""
    p = cited.passage
    return {
        "n": cited.n,
        "passage": p.id,
        "document": p.document,
        "collection": p.collection,
        "title": p.title,
        "heading": p.heading,
        "text": p.text,
        "start": p.start,
        "end": p.end,
        "score": round(p.score, 4),
    }


def passage_of(body: Mapping[str, Any]) -> Passage:
    """The passage in what `passage_body` made."""
    names = ("document", "collection", "title", "heading", "text", "start", "end", "score")
    return Passage(id=body["passage"], **{name: body[name] for name in names})
