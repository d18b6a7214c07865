"""Pieces of the content as they are found and cited."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from agent_server.caller import Caller


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


@runtime_checkable
class OwnPassages(Protocol):
    """Passages that a caller has of its own, beside those of the content."""

    async def search(
        self, session: "AsyncSession", caller: "Caller", query: str, *, limit: int, min_score: float = 0.0
    ) -> list[Passage]:
        """The best ones for a query. None of a caller who may not read them."""
        ...

    async def find(self, session: "AsyncSession", caller: "Caller", id: str) -> Passage | None:
        """The one that a citation names."""
        ...


@dataclass(frozen=True)
class CitedPassage:
    """A passage and the number it is cited by."""

    n: int
    passage: Passage


def merge(content: Sequence[Passage], own: Sequence[Passage], limit: int) -> list[Passage]:
    """The `limit` best of both. Of two that score alike, the one of the content goes first."""
    return sorted([*content, *own], key=lambda passage: -passage.score)[:limit] if own else list(content)


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
