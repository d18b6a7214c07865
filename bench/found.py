"""How long a caller looks for one of very many conversations."""

import time
from typing import Any

import asyncpg
import httpx

from bench.clients import ask_in
from bench.cost import Pair, Tell
from bench.figures import Figure
from bench.stage import Stage
from bench.table import percentile

TABLES = ("conversation", "turn", "item")
"""In the order in which their rows refer to each other; the other tables are not searched."""
WORDS = ("word7", "password account", "reset", "tried", "zebra", "mail 4711")
"""Of all messages, of some, of one, of none."""


async def measure_search(stage: Stage, servers: Pair, *, conversations: int, times: int, tell: Tell) -> list[Figure]:
    """Search by words among the conversations of one caller, against the first page of their list."""
    talk, _ = await ask_in(servers.ours.address, servers.ours.keys[0], None)
    tell(f"copying {conversations:,} conversations")
    async with stage.database() as connection:
        for table in TABLES:
            await _copy(connection, table, talk, conversations)
        await connection.execute("vacuum analyze")
    seconds: dict[str, list[float]] = {"list": [], "search": []}
    headers = {"Authorization": f"Bearer {servers.ours.keys[0]}"}
    async with httpx.AsyncClient(base_url=servers.ours.address, headers=headers, timeout=600) as http:
        for number in range(times):
            tell(f"search {number + 1} of {times}")
            for name, asked in (("list", {}), ("search", {"q": WORDS[number % len(WORDS)]})):
                began = time.monotonic()
                (await http.get("/api/conversations", params=asked)).raise_for_status()
                seconds[name].append((time.monotonic() - began) * 1000)
    against = "the first page of the same list"
    return [
        Figure(
            "search",
            f"a search among {conversations:,}, {name}",
            percentile(seconds["search"], share),
            "ms",
            against,
            percentile(seconds["list"], share),
        )
        for name, share in (("p50", 0.5), ("p95", 0.95))
    ]


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
