"""What is made of all chunks together, when an ingest has stored what is new.

    configs    which text-search configurations the pages have, that of most pages first
    compound   which words of the content are made of two others of it (Trockenanzug: trocken, anzug)
    passages   how many each collection has

Whoever changes chunks sets `corpus.stale` in the same transaction. So what an ingest that was killed left undone is done
by the next one, and of two at once the later one does it last.
"""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from agent_server.db import SYSTEM, Database
from agent_server.knowledge.languages import CONFIGS, WITH_COMPOUNDS
from agent_server.knowledge.vectors.spaces import count_passages

_LOCK = 7_300_422

_STALE = text("select stale from corpus where owner_id = :owner_id")
_LANGUAGES = text("select language from document where owner_id = :owner_id group by 1 order by count(*) desc, 1")
_SETTLE = text("update corpus set configs = :configs, stale = false where owner_id = :owner_id")
_FORGET = text("delete from compound where owner_id = :owner_id")
# The first part is stemmed: between the parts of a compound stands what an ending may be (Sicherheit-s-stopp).
_COMPOUNDS = text("""
    insert into compound (owner_id, part, lexeme)
    select distinct cast(:owner_id as uuid), part, t.lexeme
    from term t cross join generate_series(4, 24) i
    join term r on r.owner_id = t.owner_id and r.lexeme = substr(t.lexeme, i + 1) and r.n > 0
    join term l on l.owner_id = t.owner_id and l.n > 0
       and l.lexeme = (ts_lexize(cast(:dictionary as regdictionary), left(t.lexeme, i)))[1]
    cross join lateral (values (l.lexeme), (r.lexeme)) parts(part)
    where t.owner_id = :owner_id and t.n > 0 and length(t.lexeme) between 8 and 60 and i <= length(t.lexeme) - 4
      and t.lexeme !~ '[0-9_./@-]'
    on conflict do nothing""")


async def lock(session: AsyncSession) -> None:
    """Let one writer at a time in. Readers are not held up."""
    # A batch may take longer than a query may, and the wait for the lock is the whole batch of the other writer.
    await session.execute(text("set local statement_timeout = 0"))
    await session.execute(text("set local lock_timeout = 0"))
    await session.execute(text("select pg_advisory_xact_lock(:key)"), {"key": _LOCK})


async def settle(database: Database) -> None:
    """Make anew what is made of all chunks together, where they have changed."""
    values = {"owner_id": SYSTEM}
    async with database.transaction(SYSTEM, patient=True) as session:
        if not (await session.execute(_STALE, values)).scalar_one_or_none():
            return
        await lock(session)
        languages = (await session.execute(_LANGUAGES, values)).scalars()
        configs = list(dict.fromkeys(CONFIGS.get(language, "english") for language in languages)) or ["english"]
        await session.execute(_FORGET, values)
        for config in configs:
            if config in WITH_COMPOUNDS:
                await session.execute(_COMPOUNDS, {**values, "dictionary": f"{config}_stem"})
        await count_passages(session)
        await session.execute(_SETTLE, {**values, "configs": configs})
