"""What it takes Postgres to look for one of very many conversations, by what kind of words they are looked for.

It is the processor time of the process of Postgres that answers, which other work of the machine makes little longer,
against a piece of work that is always the same.
"""

from statistics import median
from uuid import UUID

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from agent_server.caller import Caller
from agent_server.conversations.repository import ConversationRepository
from agent_server.db import Database
from agent_server.db.late_indexes import build_indexes
from agent_server.db.migrate import upgrade
from agent_server.workspace import load_workspace
from bench.cost import Tell
from bench.figures import Figure
from bench.stage import WORKSPACE, Stage
from bench.table import percentile
from bench.talks import fill_talks, spell_searches
from bench.work import WORK, Backend, spend_work

PAGE = 20
PAGES = 10
"""How far down each search is read. The first page and the last of them are measured."""
_DATABASE = "bench_search"


async def measure_search(stage: Stage, *, conversations: int, times: int, tell: Tell) -> list[Figure]:
    """Search for each kind of words among the conversations of one caller, beside those of a hundred others."""
    async with stage.database("postgres") as postgres:
        await postgres.execute(f"create database {_DATABASE}")
        try:
            return await _measure(stage.url_of(_DATABASE), conversations, times, tell)
        finally:
            await postgres.execute(f"drop database {_DATABASE} with (force)")


async def _measure(url: str, conversations: int, times: int, tell: Tell) -> list[Figure]:
    database, connection = Database(url), await asyncpg.connect(url)
    load_workspace(WORKSPACE)  # the rights to its tables follow from its models
    await upgrade(database, WORKSPACE)
    try:
        # Built when all is there, they take a fraction of the time.
        await connection.execute("drop index ix_item_said, ix_conversation_title")
        owner = await fill_talks(connection, conversations, tell)
        tell("indexing")
        await build_indexes(database)
        await connection.execute("vacuum analyze")
        work = await spend_work(connection)
        spent: dict[str, list[float]] = {}
        for kind, words in await spell_searches(connection, owner):
            tell(f"searching for {kind}: {words[:30]}")
            spent.setdefault(kind, []).extend(await _search(database, owner, words, times))
        listed = await _search(database, owner, None, times)
        work = (work + await spend_work(connection)) / 2
    finally:
        await connection.close()
        await database.close()
    everything = [one for kind in spent.values() for one in kind]
    among = f"of {len(everything)} searches among {conversations:,}"
    figures = [
        Figure("search", f"p{round(share * 100)} {among}", percentile(everything, share), "ms of a core", WORK, work)
        for share in (0.5, 0.95, 0.99)
    ]
    figures.append(Figure("search", f"the longest {among}", max(everything), "ms of a core", WORK, work))
    figures.append(Figure("search", "a page of the list without words", listed[0], "ms of a core", WORK, work))
    return figures + [
        Figure("search", f"the longest for {kind}", max(found), "ms of a core", WORK, work)
        for kind, found in spent.items()
    ]


async def _search(database: Database, owner: UUID, words: str | None, times: int) -> list[float]:
    """The milliseconds that the first page and, where there are as many, the last take; the medians of so many times."""
    async with database.transaction(owner) as session:
        backend = Backend((await session.execute(text("select pg_backend_pid()"))).scalar_one())
        repository = ConversationRepository(session, Caller(id=owner, kind="user"))
        cursor, spent = None, []
        for page in range(1, PAGES + 1):
            if page in (1, PAGES):
                spent.append(await _spend(session, backend, repository, cursor, words, times))
            cursor = (await repository.page_recent(PAGE, cursor, words)).next_cursor
            if cursor is None:
                break
    return spent


async def _spend(
    session: AsyncSession,
    backend: Backend,
    repository: ConversationRepository,
    cursor: str | None,
    words: str | None,
    times: int,
) -> float:
    spent = []
    for _ in range(times + 1):  # the first fills the caches
        before = backend.spent()
        await repository.page_recent(PAGE, cursor, words)
        spent.append(backend.spent() - before)
        session.expunge_all()
    return median(spent[1:])
