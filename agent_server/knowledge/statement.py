"""The statement of a search, in the shape that its content asks for.

Which way each half takes is chosen by the number of passages that are looked through, never by Postgres' planner: with a
filter that takes an approximate index where an exact search is 20 times faster, and finds 4 of 10.

    words      by the index of words, or where few passages are looked through, by all of theirs
    meaning    one part for each space that serves a collection: exact, or by an approximate index
"""

from dataclasses import dataclass
from functools import lru_cache

from sqlalchemy import TextClause, text

from agent_server.db import SYSTEM
from agent_server.knowledge.asked import ASKED
from agent_server.knowledge.vectors.index import MAX_DIMENSIONS

POOL = 100
"""Candidates that each half brings in."""
# One long page must not take every place. Measured on the documentation of four projects: of the pages that answer, 5
# in 100 more are among ten passages, and no fewer answers among five. A fixed number per page is worse at both.
SAME_DOCUMENT = 0.85
"""Each further passage of a document counts this much of the one before when passages are chosen."""
REACH = 100
"""How many neighbours an approximate search keeps in sight. More changed none of the first ten passages in fifty searches of
100,000: what is near in meaning and has a word of the question is found by the word."""


@dataclass(frozen=True)
class Part:
    """A space whose vectors are searched. `is_whole` where it serves every collection that there is."""

    space: int
    dimensions: int
    is_whole: bool
    is_approximate: bool


@dataclass(frozen=True)
class Shape:
    """What of a statement depends on the content. `by_index` says whether words are looked up in their index."""

    parts: tuple[Part, ...]
    by_index: bool


# - `found` has the kin of the asked words too (`asked`).
# - `rn <= 2`: where all words are frequent, the two rarest still give candidates.
# - `is true` keeps the planner from the index of words.
_WORDS = """
    o as materialized (
        select array_agg(((hashtextextended(lexeme, 0) & 536870911) + 1)::int) as words
        from (select lexeme, sum(df) over (order by df, lexeme) as total, row_number() over (order by df, lexeme) as rn
              from found) y
        where total <= :most_postings or rn <= 2),
    lexical as materialized (
        select w.chunk_id, w.lex <#> q.sv as distance from passage_words w, q, o
        where w.owner_id = :owner_id and {condition}
          and (:everywhere or w.collection = any(cast(:collections as text[])))
        order by 2 limit {POOL})"""
# - 'NaN' is the cosine with a passage without tokens, whose vector is all zeros.
# - `+ 0` keeps the planner from an approximate index, which is slower for few passages and loses hits.
_EXACT = """
    dense{n} as materialized (
        select v.chunk_id from passage_vector v
        where :has_vector{n} and v.owner_id = :owner_id and v.space = {space} {within}
        order by (v.emb <=> cast(:vector{n} as halfvec)) + 0 limit {POOL})"""
# - The owner and the space are spelled out: the planner takes a partial index only where it sees its condition.
# - `set_config` within the statement, which is one round trip less; a condition on it alone is looked at first.
_APPROXIMATE = """
    dense{n} as materialized (
        select v.chunk_id from passage_vector v
        where (select set_config('hnsw.ef_search', '{REACH}', true)) is not null
          and (select set_config('hnsw.iterative_scan', 'relaxed_order', true)) is not null
          and :has_vector{n} and v.owner_id = '{SYSTEM}' and v.space = {space} {within}
        order by v.emb::halfvec({dimensions}) <=> cast(:vector{n} as halfvec({dimensions})) limit {POOL})"""
_WITHIN = "and {alias}.collection = any(cast(:served{n} as text[]))"
_SCORE = "coalesce(cast(:weight{n} as float8) * nullif(1 - (v{n}.emb <=> cast(:vector{n} as halfvec)), 'NaN'), 0)"
_JOIN = """
        left join passage_vector v{n} on :has_vector{n} and v{n}.owner_id = :owner_id and v{n}.space = {space}
            and v{n}.collection = w.collection and v{n}.chunk_id = w.chunk_id {within}"""
_UNION = " union select chunk_id from dense{n}"
# - Ties are broken by `passage`, so that the same query always gives the same order.
# - `is_past`: what is searched has changed since this process read it, so that the statement must be made anew.
_SEARCH = """
    with {ASKED}, {halves},
    candidates as (
        select c.id, c.document_id, c.passage,
               least(coalesce(-(w.lex <#> q.sv) / nullif(q.bound, 0), 0), 1) + {score} as score
        from (select chunk_id from lexical {union}) found
        join passage_words w on w.owner_id = :owner_id and w.chunk_id = found.chunk_id
        join chunk c on c.owner_id = :owner_id and c.id = found.chunk_id {joins}
        cross join q),
    ranked as (
        select *, row_number() over (partition by document_id order by score desc, passage) - 1 as above
        from candidates where score >= :min_score),
    chosen as (
        select id, score from ranked order by score * power({SAME_DOCUMENT}, above) desc, passage limit :limit)
    select s.is_past, c.passage, d.path, c.collection, d.title, c.heading, c.text, c.start_offset, c.end_offset, chosen.score
    from (select (select spaces from corpus where owner_id = :owner_id) is distinct from cast(:version as uuid) as is_past) s
    left join (chosen join chunk c on c.owner_id = :owner_id and c.id = chosen.id
               join document d on d.owner_id = c.owner_id and d.id = c.document_id) on not s.is_past
    order by chosen.score desc, c.passage"""


@lru_cache(maxsize=64)
def build(shape: Shape) -> TextClause:
    """The statement. Each part has parameters with its number."""
    overlap = "w.words && o.words"
    halves = [_WORDS.format(POOL=POOL, condition=overlap if shape.by_index else f"({overlap}) is true")]
    union, scores, joins = "", ["0"], ""
    for n, part in enumerate(shape.parts):
        within, within_join = ("" if part.is_whole else _WITHIN.format(alias=alias, n=n) for alias in ("v", f"v{n}"))
        is_approximate = part.is_approximate and part.dimensions <= MAX_DIMENSIONS
        half = _APPROXIMATE if is_approximate else _EXACT
        names = {"n": n, "space": part.space, "dimensions": part.dimensions, "within": within}
        halves.append(half.format(**names, POOL=POOL, REACH=REACH, SYSTEM=SYSTEM))
        union += _UNION.format(n=n)
        scores.append(_SCORE.format(n=n))
        joins += _JOIN.format(n=n, space=part.space, within=within_join)
    return text(
        _SEARCH.format(
            ASKED=ASKED, halves=",".join(halves), score=" + ".join(scores), union=union, joins=joins,
            SAME_DOCUMENT=SAME_DOCUMENT,
        )
    )  # fmt: skip
