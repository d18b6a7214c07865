"""What it takes Postgres to look for one of very many conversations, by what kind of words they are looked for.

It is the processor time of the process of Postgres that answers, which other work of the machine does not make longer.
"""

from typing import Any
from uuid import UUID

import asyncpg
import psutil
from sqlalchemy import text

from agent_server.caller import Caller
from agent_server.conversations.repository import ConversationRepository
from agent_server.db import Database
from bench.clients import ask_in
from bench.cost import Pair, Tell
from bench.figures import Figure
from bench.stage import DATABASE, Stage

TABLES = ("conversation", "turn", "item")
"""In the order in which their rows refer to each other; the other tables are not searched."""
KINDS = {
    "a word of all": "word7",
    "two letters of all": "wo",
    "a word of one": "mail 4711",
    "a word of none": "zebra",
    "two letters of none": "zq",
    "a phrase of none, of parts that all have": "word7 word9 word7",
    "a long phrase of none, of parts that all have": "word1 word3 word5 word7 word9 word11 word13 word15 word17",
    "words in another script, of none": "潜水 mail",
    "a word of the older half": "mail ago",
}
"""Words for each kind. The copies have a number behind each `mail`, the older half of them `ago`."""
PAGE = 20
_AGE = """
    update conversation set updated_at = now() - abs(hashtext(id::text)) % 1000000 * interval '1 second';
    update item i set text = replace(text, 'mail ', 'mail ago ') from conversation c
    where c.owner_id = i.owner_id and c.id = i.conversation_id and c.updated_at < now() - interval '500000 seconds'"""


async def measure_search(stage: Stage, servers: Pair, *, conversations: int, times: int, tell: Tell) -> list[Figure]:
    """Search for each kind of words among the conversations of one caller, against the first page of their list."""
    talk, _ = await ask_in(servers.ours.address, servers.ours.keys[0], None)
    tell(f"copying {conversations:,} conversations")
    async with stage.database() as connection:
        for table in TABLES:
            await _copy(connection, table, talk, conversations)
        await connection.execute(_AGE)
        await connection.execute("vacuum analyze")
        owner = await connection.fetchval("select owner_id from conversation where id = $1::text::uuid", talk)
    database = Database(stage.url_of(DATABASE))
    try:
        listed = await _spend(database, owner, None, 25 * times)  # clocks of processors tick a hundred times a second
        figures = []
        for kind, words in KINDS.items():
            tell(f"searching for {kind}")
            spent = await _spend(database, owner, words, times)
            figures.append(Figure("search", f"{kind}, among {conversations:,}", spent, "ms of a core", _LIST, listed))
        return figures
    finally:
        await database.close()


_LIST = "the first page of the same list"


async def _spend(database: Database, owner: UUID, words: str | None, times: int) -> float:
    """The milliseconds of processor time that one search takes Postgres, after one that fills its caches."""
    async with database.transaction(owner) as session:
        process = psutil.Process((await session.execute(text("select pg_backend_pid()"))).scalar_one())
        repository = ConversationRepository(session, Caller(id=owner, kind="user"))
        await repository.page_recent(PAGE, words=words)
        before = process.cpu_times()
        for _ in range(times):
            await repository.page_recent(PAGE, words=words)
        after = process.cpu_times()
    return (after.user + after.system - before.user - before.system) / times * 1000


async def _copy(connection: asyncpg.Connection, table: str, talk: str, many: int) -> None:
    """Copy the rows of one conversation so often, each copy with ids and a word of its own."""
    columns: list[Any] = await connection.fetch(
        """select column_name from information_schema.columns
           where table_schema = current_schema() and table_name = $1 and is_generated = 'NEVER'""",
        table,
    )
    names = ", ".join(f'"{row[0]}"' for row in columns)
    chosen = "id" if table == "conversation" else "conversation_id"
    turn = await connection.fetchval("select id::text from turn where conversation_id = $1::text::uuid", talk)
    # The ids of a copy follow from its number, so that the rows of its tables refer to each other.
    await connection.execute(
        f"""insert into {table} ({names})
            select {", ".join(f'(copy)."{row[0]}"' for row in columns)}
            from (
                select jsonb_populate_record(null::{table}, replace(replace(replace(
                    to_jsonb(original)::text, '{talk}', md5('conversation' || n)::uuid::text),
                    '{turn}', md5('turn' || n)::uuid::text), 'mail', 'mail ' || n)::jsonb) as copy
                from {table} original, generate_series(1, {many}) n
                where original.{chosen} = '{talk}'
            ) copies"""
    )
