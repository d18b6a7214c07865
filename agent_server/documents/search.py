"""Search in a caller's own documents, by words and by meaning, beside the content.

Scores are made as those of the content are (knowledge/search.py), so that passages of both stand in one order. How rare a
word is follows from the own documents and the content together: in a few passages alone every word would be frequent.
A caller has some thousand passages at most, and each is looked at: a condition on the owner keeps row-level security and
an index of texts or vectors from working together.
"""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from agent_server.db import Executor, storable
from agent_server.folding import unify
from agent_server.knowledge.asked import DICTIONARIES, lexical, list_other_words, name_config
from agent_server.knowledge.embedders.base import DENSE_WEIGHT, Embedder
from agent_server.knowledge.passages import Passage
from agent_server.knowledge.rarity import CONTENT_COUNT, CONTENT_PASSAGES, MAX_WORDS, Rarity
from agent_server.knowledge.search import MAX_QUERY
from agent_server.knowledge.statement import SAME_DOCUMENT
from agent_server.knowledge.words import forms_of

COLLECTION = "own documents"
"""What stands in the place of a collection in own passages. No folder of the content is meant by it."""
HAS_OWN = "(select exists (select from own_document d where d.owner_id = c.owner_id))"
"""SQL of whether the owner of a conversation `c` has documents, for whoever reads that anyway."""
_OTHERS = 1000
"""Passages of nobody's that words count as rare in, where there is hardly any content."""

_DF = f"""
    (select coalesce(sum(w.n), 0) from own_word w where w.owner_id = :owner_id and w.lexeme = v.lexeme)
    + {CONTENT_COUNT.format(lexeme="v.lexeme")}"""  # noqa: S608  # constants of ours
_COLUMNS = "p.passage, d.name, d.title, p.heading, p.text, p.start_offset, p.end_offset"

# `bound` is the highest BM25 there could be, 2.2 is k1 + 1, and 536870911 cuts the hash to 29 bits, as in the search of the
# content. Words that stand for an asked one are looked for where nothing has the asked one.
_SEARCH = text(f"""
    with own as materialized (
        select sum(passages) as n, (array_agg(config order by (config = :config) desc, passages desc, id))[1] as config
        from own_document where owner_id = :owner_id),
    x as materialized (
        select config, {DICTIONARIES} as dictionary, n + {_OTHERS} + {CONTENT_PASSAGES} as n from own where n > 0),
    asked as materialized (
        select v.lexeme, cardinality(v.positions) as qtf, {_DF} as df
        from x cross join unnest(to_tsvector(cast(x.config as regconfig), :query)) v),
    others as materialized (
        select v.lexeme, v.qtf, max(v.sure) as sure, max({_DF}) as df
        from (select distinct coalesce((ts_lexize(cast(x.dictionary as regdictionary), u.other))[1], u.other) as lexeme, u.sure, a.qtf
              from x cross join unnest(cast(:asked as text[]), cast(:others as text[]), cast(:sure as float8[])) u(asked, other, sure)
              join asked a on a.df = 0
               and a.lexeme = coalesce((ts_lexize(cast(x.dictionary as regdictionary), u.asked))[1], u.asked)) v
        where v.lexeme not in (select lexeme from asked)
        group by v.lexeme, v.qtf),
    weights as materialized (
        select a.lexeme, a.qtf * ln(1 + (x.n - a.df + 0.5) / (a.df + 0.5)) as w from x cross join asked a
        union all
        select o.lexeme, o.qtf * o.sure * ln(1 + (x.n - o.df + 0.5) / (o.df + 0.5)) from x cross join others o where o.df > 0),
    q as materialized (
        select ('{{' || string_agg(h || ':' || w, ',') || '}}/1000000000')::sparsevec as sv,
               (select sum((a.qtf * ln(1 + (x.n - a.df + 0.5) / (a.df + 0.5)))::real) * 2.2 from x cross join asked a) as bound
        from (select (hashtextextended(lexeme, 0) & 536870911) + 1 as h, sum(w)::real as w from weights group by 1) h),
    scored as materialized (
        select p.id, p.document_id, p.passage,
               least(coalesce(-(p.lex <#> q.sv) / nullif(q.bound, 0), 0), 1) + case
               when :has_vector and d.embedder = :embedder
               then coalesce(cast(:dense_weight as float8) * nullif(1 - (p.emb <=> cast(:vector as halfvec)), 'NaN'), 0) else 0 end as score
        from own_document d join own_passage p on p.owner_id = d.owner_id and p.document_id = d.id cross join q
        where d.owner_id = :owner_id),
    ranked as (
        select *, row_number() over (partition by document_id order by score desc, passage) - 1 as above
        from scored where score >= :min_score),
    chosen as (
        select id, score from ranked order by score * power({SAME_DOCUMENT}, above) desc, passage limit :limit)
    select {_COLUMNS}, chosen.score
    from chosen join own_passage p on p.owner_id = :owner_id and p.id = chosen.id
    join own_document d on d.owner_id = p.owner_id and d.id = p.document_id
    order by chosen.score desc, p.passage""")  # noqa: S608  # constants of ours
_PASSAGE = text(f"""
    select {_COLUMNS}, 0.0::float8 from own_passage p
    join own_document d on d.owner_id = p.owner_id and d.id = p.document_id
    where p.owner_id = :owner_id and p.passage = :passage""")  # noqa: S608  # constants of ours
_HAS_ANY = text("select exists (select from own_document where owner_id = :owner_id)")
_COUNT = text(f"""
    with own as materialized (
        select coalesce(sum(passages), 0) as n, array_agg(distinct config) as configs
        from own_document where owner_id = :owner_id),
    forms as materialized (
        select distinct u.word, coalesce((ts_lexize(cast({DICTIONARIES} as regdictionary), u.form))[1], u.form) as lexeme
        from own cross join unnest(cast(:words as text[]), cast(:forms as text[])) u(word, form)
        cross join unnest(own.configs) config)
    select null as word, n from own
    union all
    select f.word, sum(w.n) from forms f join own_word w on w.owner_id = :owner_id and w.lexeme = f.lexeme
    group by f.word""")  # noqa: S608  # a constant of ours


async def search_own(
    session: AsyncSession, embedder: Embedder, query: str, *, owner: UUID, limit: int = 5, min_score: float = 0.0
) -> list[Passage]:
    """The `limit` passages of the owner's documents that best match `query`, with the best first."""
    if not (await session.execute(_HAS_ANY, {"owner_id": owner})).scalar_one():
        return []
    query = unify(storable(query[:MAX_QUERY])).strip()
    (vector,) = await embedder.embed([query])
    values = {
        "owner_id": owner,
        "query": lexical(query),
        "config": name_config(query),
        **list_other_words(query),
        "vector": "[" + ",".join(f"{x:.6g}" for x in vector) + "]",
        "has_vector": bool(vector.any()),
        "dense_weight": getattr(embedder, "weight", DENSE_WEIGHT),
        "embedder": embedder.name,
        "limit": limit,
        "min_score": min_score,
    }
    return [_passage(*row) for row in await session.execute(_SEARCH, values)]


async def find_own_passage(session: Executor, id: str, *, owner: UUID) -> Passage | None:
    """The passage of the owner's documents that a citation names. None where there is none."""
    row = (await session.execute(_PASSAGE, {"owner_id": owner, "passage": storable(id)})).one_or_none()
    return None if row is None else _passage(*row)


async def add_own_words(
    session: Executor, rarity: Rarity, words: Sequence[str], language: str, *, owner: UUID
) -> Rarity:
    """How rare words are in the content (`rarity`) and the owner's documents together."""
    pairs = [
        (word, form) for word in dict.fromkeys(map(storable, words[:MAX_WORDS])) for form in forms_of(word, language)
    ]
    values = {"owner_id": owner, "words": [word for word, _ in pairs], "forms": [form for _, form in pairs]}
    counts, passages = dict(rarity.counts), rarity.passages
    for word, n in (await session.execute(_COUNT, values)).all():
        if word is None:
            passages += int(n)
        else:
            counts[word] = counts.get(word, 0) + int(n)
    return Rarity(passages, counts)


def _passage(id: str, name: str, title: str, heading: str, text: str, start: int, end: int, score: float) -> Passage:
    return Passage(id, name, COLLECTION, title, heading, text, start, end, score)
