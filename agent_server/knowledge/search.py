"""Search by words and by meaning in one statement.

A passage's score is its BM25 as a share of the highest BM25 that any passage could have for this query, plus half its
cosine similarity. The sum is comparable between queries, so that "nothing relevant" has a threshold.

Both halves are exact. A content of more than about 20,000 chunks wants a partial HNSW index for its dense half, which is
not built yet.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from agent_server.db import SYSTEM, Executor, storable
from agent_server.errors import NotFound, quote_value
from agent_server.folding import unify
from agent_server.knowledge.asked import ASKED, DICTIONARIES, lexical, list_other_words, name_config
from agent_server.knowledge.asked import list_words as list_asked_words
from agent_server.knowledge.embedders.base import Embedder
from agent_server.knowledge.languages import WITH_COMPOUNDS
from agent_server.knowledge.passages import Passage
from agent_server.knowledge.urgent import Lexicon, Phrases, compile_phrases, list_words

POOL = 100
"""Candidates that each half brings in."""
# At 100,000 chunks the lexical half takes 9 ms with this limit and 60 ms without. The first ten stay the same.
MAX_POSTINGS = 5000
"""Candidates come from a query's rarest words until this many; every word still scores."""
# nDCG@10 over eight collections is .673; .4 and .7 give .671. Rank fusion loses .05, the best `ts_rank` has .591.
DENSE_WEIGHT = 0.5
# One long page must not take every place. Measured on the documentation of four projects: of the pages that answer, 5
# in 100 more are among ten passages, and no fewer answers among five. A fixed number per page is worse at both.
SAME_DOCUMENT = 0.85
"""Each further passage of a document counts this much of the one before when passages are chosen."""
FIRST_TITLES = 3
"""Titles of a collection that tell what it is about."""
MAX_QUERY = 4_000
"""Characters of a query that are read."""

# Comparing vectors of two sizes is an error, and both are there while pages are embedded anew: hence `vector_dims`. It
# costs nothing that can be measured, since the comparison reads the vector anyway.
# - `found` has the kin of the asked words too (`asked`).
# - `rn <= 2`: where all words are frequent, the two rarest still give candidates.
# - `quote_literal`: a word of the content may hold signs that are operators in a tsquery.
# - `+ 0` keeps the planner from an HNSW index, which is slower for less than about 20,000 chunks and loses hits.
# - 'NaN' is the cosine with a passage without tokens, whose vector is all zeros.
# - Ties are broken by `passage`, so that the same query always gives the same order.
_SEARCH = text(f"""
    with {ASKED},
    o as materialized (
        select string_agg(quote_literal(lexeme), ' | ')::tsquery as tq
        from (select lexeme, sum(df) over (order by df, lexeme) as total, row_number() over (order by df, lexeme) as rn
              from found) y
        where total <= {MAX_POSTINGS} or rn <= 2),
    lexical as (
        select c.id from chunk c, q, o
        where c.owner_id = :owner_id and c.tsv @@ o.tq and (:everywhere or c.collection = any(cast(:collections as text[])))
        order by c.lex <#> q.sv limit {POOL}),
    dense as (
        select c.id from chunk c
        where :has_vector and vector_dims(c.emb) = :dimensions and c.owner_id = :owner_id
          and (:everywhere or c.collection = any(cast(:collections as text[])))
        order by (c.emb <=> cast(:vector as halfvec)) + 0 limit {POOL}),
    candidates as (
        select c.id, c.document_id, c.passage,
               least(coalesce(-(c.lex <#> q.sv) / nullif(q.bound, 0), 0), 1) + case
               when :has_vector and vector_dims(c.emb) = :dimensions
               then coalesce(cast(:dense_weight as float8) * nullif(1 - (c.emb <=> cast(:vector as halfvec)), 'NaN'), 0) else 0 end as score
        from (select id from lexical union select id from dense) found
        join chunk c on c.owner_id = :owner_id and c.id = found.id cross join q),
    ranked as (
        select *, row_number() over (partition by document_id order by score desc, passage) - 1 as above
        from candidates where score >= :min_score),
    chosen as (
        select id, score from ranked order by score * power({SAME_DOCUMENT}, above) desc, passage limit :limit)
    select c.passage, d.path, c.collection, d.title, c.heading, c.text, c.start_offset, c.end_offset, chosen.score
    from chosen join chunk c on c.owner_id = :owner_id and c.id = chosen.id
    join document d on d.owner_id = c.owner_id and d.id = c.document_id
    order by chosen.score desc, c.passage""")  # noqa: S608  # the values are constants of this module

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
    (vector,) = await embedder.embed([query])
    values = {
        "owner_id": owner,
        "query": lexical(query),
        "config": name_config(query),
        "words": list_asked_words(query),
        "compounding": WITH_COMPOUNDS,
        **list_other_words(query),
        "vector": "[" + ",".join(f"{x:.6g}" for x in vector) + "]",
        # A text without tokens has a vector of zeros, and its cosine with anything is NaN.
        "has_vector": bool(vector.any()),
        "dense_weight": getattr(embedder, "weight", DENSE_WEIGHT),
        "dimensions": len(vector),
        "everywhere": collections is None,
        "collections": list(collections or ()),
        "limit": limit,
        "min_score": min_score,
    }
    return [Passage(*row) for row in await session.execute(_SEARCH, values)]


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
