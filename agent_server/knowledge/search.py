"""Search by words and by meaning in one statement.

A passage's score is its BM25 as a share of the highest BM25 that any passage could have for this query, plus half its
cosine similarity. The sum is comparable between queries, so that "nothing relevant" has a threshold.

Each collection is searched by the vectors of one embedder (`vectors.spaces`). The meaning is compared exactly, and by an
approximate index where more than 20,000 passages are looked through (`statement`).
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID
from weakref import WeakKeyDictionary

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from agent_server.db import SYSTEM, Executor, storable
from agent_server.errors import NotFound, Unavailable, quote_value
from agent_server.folding import unify
from agent_server.knowledge.asked import DICTIONARIES, lexical, list_other_words, name_config
from agent_server.knowledge.asked import list_words as list_asked_words
from agent_server.knowledge.embedders import gather_embedders
from agent_server.knowledge.embedders.base import Embedder
from agent_server.knowledge.embedders.opened import Embedders, weight_of
from agent_server.knowledge.languages import WITH_COMPOUNDS
from agent_server.knowledge.passages import Passage
from agent_server.knowledge.statement import Part, Shape, build
from agent_server.knowledge.urgent import Lexicon, Phrases, compile_phrases, list_words
from agent_server.knowledge.vectors.index import LARGE
from agent_server.knowledge.vectors.spaces import Spaces, read_spaces

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Of 100,000 passages the first five are those of a search without a limit, and 98.8 % of the first ten; a limit of
# 5,000 finds the same and takes half as long again.
POSTINGS, POSTINGS_OF_LARGE = 5_000, 2_500
"""Candidates come from a query's rarest words until so many; every word still scores. More of them where collections are
searched that are a part of the content: most are outside."""
FEW = 5_000
"""Passages of which all words are read: to look them up in the index would find more outside than inside."""
REMEMBERED = 30.0
"""Seconds after which the sizes of collections are read again."""
ATTEMPTS = 5
FIRST_TITLES = 3
"""Titles of a collection that tell what it is about."""
MAX_QUERY = 4_000
"""Characters of a query that are read."""

_PASSAGE = """
    select c.passage, d.path, c.collection, d.title, c.heading, c.text, c.start_offset, c.end_offset, 0.0::float8
    from chunk c join document d on d.owner_id = c.owner_id and d.id = c.document_id """

URGENT_PAGES = f"""
    (select json_agg(json_build_array(c.passage, d.urgent) order by d.path)
    from document d join chunk c on c.owner_id = d.owner_id and c.document_id = d.id
    where d.owner_id = '{SYSTEM}' and c.ordinal = 0 and d.urgent <> '{{}}')"""  # noqa: S608  # a constant of ours
"""SQL of the pages that have `urgent` phrases, with these, for `find_urgent`. It is null where there is none."""
_URGENT = text(f"select {URGENT_PAGES}")
_COLLECTIONS = text(f"""
    select collection, count(*), (array_agg(title order by path))[1:{FIRST_TITLES}] from document
    where owner_id = :owner_id group by collection order by collection""")  # noqa: S608  # the value is a constant
# A small word has no stem: the array is empty, and its first element null.
_LEXICON = text(f"""
    select w.word, w.stem, exists (
        select from corpus c cross join unnest(c.configs) config cross join lateral (
            select from term t where t.owner_id = :owner_id and t.n > 0
               and t.lexeme = (ts_lexize(cast({DICTIONARIES} as regdictionary), w.word))[1] limit 1) t
        where c.owner_id = :owner_id)
    from (select word, (ts_lexize('english_stem', word))[1] as stem from unnest(cast(:words as text[])) word) w
    where w.stem is not null""")  # noqa: S608  # a constant of ours


async def search(
    session: AsyncSession,
    embedder: Embedder,
    query: str,
    *,
    collections: Sequence[str] | None = None,
    limit: int = 5,
    min_score: float = 0.0,
    owner: UUID = SYSTEM,
) -> list[Passage]:
    """The `limit` passages that best match `query` with the best first.

    They are within `collections`; None is all of them. Any text is a query: an empty one and one of stop words find
    nothing or little, operators are words.
    """
    query = unify(storable(query[:MAX_QUERY])).strip()
    embedders = gather_embedders(embedder)
    values = {
        "owner_id": owner,
        "query": lexical(query),
        "config": name_config(query),
        "words": list_asked_words(query),
        "compounding": WITH_COMPOUNDS,
        **list_other_words(query),
        "everywhere": collections is None,
        "collections": list(collections or ()),
        "limit": limit,
        "min_score": min_score,
    }
    vectors = _Vectors(query)
    for _ in range(ATTEMPTS):
        spaces = await _recall(session, owner)
        shape, chosen = await _choose(spaces, embedders, collections, vectors)
        rows = (await session.execute(build(shape), {**values, **chosen})).all()
        if not rows[0].is_past:
            return [Passage(*row[1:]) for row in rows if row.passage is not None]
        _forget(session)
    raise Unavailable("The content is being changed; ask again")


class _Vectors:
    """The vectors of a question, each made once."""

    def __init__(self, query: str) -> None:
        self._query = query
        self._made: dict[str, NDArray[np.float32]] = {}

    async def get(self, embedder: Embedder) -> "NDArray[np.float32]":
        if embedder.name not in self._made:
            # Some models tell questions from what may answer them.
            embed_question = getattr(embedder, "embed_question", None)
            if embed_question is not None:
                self._made[embedder.name] = await embed_question(self._query)
            else:
                (self._made[embedder.name],) = await embedder.embed([self._query])
        return self._made[embedder.name]


# By the engine of a database: what is in one says nothing of another.
_remembered: WeakKeyDictionary[Any, dict[UUID, tuple[float, Spaces]]] = WeakKeyDictionary()


async def _recall(session: AsyncSession, owner: UUID) -> Spaces:
    """What the collections of an owner are searched by, as this process has read it last."""
    known = _remembered.setdefault(session.bind, {})
    read, spaces = known.get(owner, (0.0, None))
    if spaces is None or time.monotonic() - read > REMEMBERED:
        spaces = await read_spaces(session, owner)
        known[owner] = (time.monotonic(), spaces)
    return spaces


def _forget(session: AsyncSession) -> None:
    _remembered.pop(session.bind, None)


async def _choose(
    spaces: Spaces, embedders: Embedders, collections: Sequence[str] | None, vectors: _Vectors
) -> tuple[Shape, dict[str, Any]]:
    """The shape of the statement, and the parameters that it has for its parts."""
    within = [one for one in spaces.collections.values() if collections is None or one.collection in collections]
    whole = sum(one.passages for one in spaces.collections.values())
    inside = sum(one.passages for one in within)
    values: dict[str, Any] = {
        "version": spaces.version,
        "most_postings": _limit_postings(whole, inside),
    }
    parts: list[Part] = []
    # Collections of one space may differ in what its meaning counts for.
    for space, weight in sorted({(one.space, one.weight) for one in within}, key=repr):
        found = spaces.spaces[space]
        maker = embedders.find(found.name, found.made_by)
        if maker is None:
            continue  # words alone, until the vectors of the embedder that there is are made
        served = [one for one in within if (one.space, one.weight) == (space, weight)]
        # Only where nothing else is in the space: vectors that are being made for other collections are not searched.
        is_whole = len(served) == len(spaces.collections) and all(one.wanted in (None, space) for one in served)
        vector, n = await vectors.get(maker), len(parts)
        many = sum(one.passages for one in served) >= LARGE
        parts.append(Part(space, found.dimensions, is_whole, found.has_index and many))
        values |= {
            f"vector{n}": "[" + ",".join(f"{x:.6g}" for x in vector) + "]",
            # A text without tokens has a vector of zeros, and its cosine with anything is NaN.
            f"has_vector{n}": bool(vector.any()),
            f"weight{n}": weight_of(maker) if weight is None else weight,
        }
        if not is_whole:
            values[f"served{n}"] = [one.collection for one in served]
    return Shape(tuple(parts), by_index=collections is None or inside > FEW or whole <= LARGE), values


def _limit_postings(whole: int, inside: int) -> int:
    if whole <= LARGE:
        return POSTINGS
    return min(int(POSTINGS_OF_LARGE * (whole / max(inside, 1)) ** 0.25), POSTINGS)


UrgentPages = Sequence[tuple[str, Sequence[str]]]


async def read_phrases(pages: UrgentPages) -> Phrases:
    """The phrases of pages, ready to be looked for."""
    # In a thread: the first time, it reads a dictionary.
    return await asyncio.to_thread(compile_phrases, tuple(phrase for _, urgent in pages for phrase in urgent))


async def find_urgent(session: Executor, message: str, pages: UrgentPages | None = None) -> Passage | None:
    """The beginning of the first page one of whose `urgent` phrases the message holds (`knowledge.urgent`).

    `pages` are `URGENT_PAGES` where they have been read, and `read_phrases` before the transaction, which must not wait.
    """
    if pages is None:
        pages = (await session.execute(_URGENT)).scalar_one()
    if not pages:
        return None
    message = message[:MAX_QUERY]
    phrases = await read_phrases(pages)
    spoken = phrases.words.union(list_words(message))
    known = (await session.execute(_LEXICON, {"owner_id": SYSTEM, "words": sorted(spoken)})).all()
    lexicon = Lexicon({word: stem for word, stem, _ in known}, {word for word, _, there in known if there})
    for id, urgent in pages:
        if phrases.find(message, urgent, lexicon):
            return await get_passage(session, id)
    return None


async def get_passage(session: Executor, id: str) -> Passage:
    """The passage that a citation names. Raises NotFound when the content no longer has it."""
    statement = text(_PASSAGE + "where c.owner_id = :owner_id and c.passage = :id")
    row = (await session.execute(statement, {"owner_id": SYSTEM, "id": storable(id)})).one_or_none()
    if row is None:
        raise NotFound("The content no longer has this passage; it was changed or removed since it was cited")
    return Passage(*row)


@dataclass(frozen=True)
class DocumentSummary:
    """A document of the content."""

    id: UUID
    path: str
    collection: str
    title: str
    description: str


@dataclass(frozen=True)
class CollectionSummary:
    """A collection of the content: how many pages it has, and the titles of the first."""

    name: str
    pages: int
    titles: tuple[str, ...]

    @property
    def title(self) -> str:
        """The name for people."""
        return self.name.replace("-", " ").replace("_", " ").capitalize() or "Pages"


async def list_collections(session: Executor) -> list[CollectionSummary]:
    """Every collection in the order of the names."""
    rows = await session.execute(_COLLECTIONS, {"owner_id": SYSTEM})
    return [CollectionSummary(name, pages, tuple(titles)) for name, pages, titles in rows]


async def list_documents(
    session: AsyncSession, *, after: str | None = None, most: int | None = None
) -> list[DocumentSummary]:
    """The documents in the order of the paths, by code points: those after a path, and so many at most."""
    rows = await session.execute(
        text("""
            select id, path, collection, title, description from document
            where owner_id = :owner_id and (cast(:after as text) is null or path collate "C" > :after)
            order by path collate "C" limit :most"""),
        {"owner_id": SYSTEM, "after": after, "most": most},
    )
    return [DocumentSummary(*row) for row in rows]


async def read_document(session: AsyncSession, path: str) -> str:
    """The whole text of the document at `path`. Raises NotFound."""
    row = await session.execute(
        text("select text from document where owner_id = :owner_id and path = :path"),
        {"owner_id": SYSTEM, "path": storable(path)},
    )
    found: str | None = row.scalar_one_or_none()
    if found is None:
        raise NotFound(f"There is no document {quote_value(path)}; paths are as under content/, as in safety/flying.md")
    return found
