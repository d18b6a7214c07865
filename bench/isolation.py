"""What it costs to keep callers apart in the database: a transaction under row-level security, which says for whom it
is, against the same one of a superuser, to whom neither applies.

    python -m bench.isolation [--rounds N]

The two alternate; medians are printed, of the time on this machine and of this process's CPU.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from agent_server.db import Database, new_id
from bench.postgres import fresh_database
from bench.table import print_table

TIMES = 300
OWNERS, TASKS = 1_000, 50
NEWEST = text("select id, title from task where owner_id = :owner order by id desc limit 20")
ONE = text(
    "select id, title from task where owner_id = :owner and id = (select max(id::text)::uuid from task where owner_id = :owner)"
)
ADD = text("""
    insert into task (owner_id, id, title, description, status, created_at, updated_at)
    values (:owner, gen_random_uuid(), 'x', '', 'open', now(), now())""")

Transaction = Callable[[UUID], AbstractAsyncContextManager[AsyncSession]]


async def fill(database: Database) -> list[UUID]:
    owners = [new_id() for _ in range(OWNERS)]
    async with database.owner.begin() as connection:
        await connection.execute(
            text("""
                insert into task (owner_id, id, title, description, status, created_at, updated_at)
                select o, gen_random_uuid(), 'task ' || n, '', 'open', now(), now()
                from unnest(cast(:owners as uuid[])) o, generate_series(1, :tasks) n"""),
            {"owners": owners, "tasks": TASKS},
        )
        await connection.execute(text("analyze task"))
    return owners


async def spent(transaction: Transaction, statement: TextClause, owners: list[UUID]) -> tuple[float, float]:
    """Milliseconds of a transaction, by the clock and of CPU."""
    clock, cpu = time.perf_counter(), time.process_time()
    for i in range(TIMES):
        owner = owners[i % len(owners)]
        async with transaction(owner) as session:
            await session.execute(statement, {"owner": owner})
    return (time.perf_counter() - clock) / TIMES * 1000, (time.process_time() - cpu) / TIMES * 1000


async def measure(url: str, rounds: int) -> None:
    database = Database(url)
    owners = await fill(database)
    sessions = async_sessionmaker(database.pool, expire_on_commit=False, autoflush=False)

    @asynccontextmanager
    async def plain(_: UUID) -> Any:
        async with sessions() as session, session.begin():
            yield session

    rows = []
    for name, statement in (("20 newest rows", NEWEST), ("one row", ONE), ("an insert", ADD)):
        figures: dict[str, list[tuple[float, float]]] = {"plain": [], "guarded": []}
        for _ in range(rounds):
            figures["plain"].append(await spent(plain, statement, owners))
            figures["guarded"].append(await spent(database.transaction, statement, owners))
        (plain_ms, plain_cpu), (guarded_ms, guarded_cpu) = (
            [statistics.median(values) for values in zip(*figures[way], strict=True)] for way in ("plain", "guarded")
        )
        rows.append(
            (
                name,
                f"{plain_ms:.3f}",
                f"{guarded_ms:.3f}",
                f"{guarded_ms - plain_ms:+.3f}",
                f"{guarded_ms / plain_ms:.2f}",
                f"{guarded_cpu - plain_cpu:+.3f}",
            )
        )
    await database.close()
    head = ("transaction", "plain, ms", "guarded, ms", "difference", "ratio", "of it CPU here")
    print_table("What row-level security costs a transaction", head, rows)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=9)
    chosen = options.parse_args()
    with fresh_database() as url:
        asyncio.run(measure(url, chosen.rounds))


if __name__ == "__main__":
    main()
