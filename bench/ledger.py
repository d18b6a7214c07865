"""What a turn asks of Postgres and leaves in it, and what a server asks of it that has nothing to do.

Statements are those of Postgres's own log, transactions and rows those of its statistics. What goes on beside turns is
subtracted at the rate of the idle server.
"""

import asyncio
import re
import time
from collections import Counter
from dataclasses import dataclass

from bench.clients import ask_in
from bench.cost import Pair, Tell
from bench.figures import Figure
from bench.stage import DATABASE, Stage

EARLIER = 5
"""Turns that the conversation of each counted turn has had."""
WRITING = "transactions that write or notify"
"""Those that Postgres gave a number."""
_FLUSH_SECONDS = 10.5
"""A process of Postgres that reported its statistics within a second does so again once it has idled for ten."""
_LOGGED = re.compile(rf"^[^|\n]*\|{DATABASE}\|LOG:  (?:statement|execute [^:]*): (.*)$", re.M)
_CONTROL = re.compile(
    r"(?i)\s*(begin|start transaction|commit|rollback|savepoint|release|set|reset|select set_config)\b"
)
_COUNTED = f"""
    select xact_commit as transactions, pg_snapshot_xmax(pg_current_snapshot())::text as "{WRITING}",
        tup_inserted as rows_inserted, tup_updated as rows_updated, tup_deleted as rows_deleted
    from pg_stat_database where datname = $1"""
PLAIN, CONTROL = "statements", "statements that only begin, scope and end a transaction"


@dataclass(frozen=True)
class State:
    """What was counted up to a moment."""

    at: float
    cpu: float
    counts: Counter[str]
    log: int

    def since(self, before: "State") -> tuple[float, Counter[str]]:
        """Seconds, and counts of that time."""
        counts = Counter(self.counts)
        counts.subtract(before.counts)
        return self.at - before.at, counts


async def measure_ledger(stage: Stage, servers: Pair, *, turns: int, idle_seconds: float, tell: Tell) -> list[Figure]:
    """Counts for one turn, and for a second of an idle server."""
    async with stage.database("postgres") as connection:
        for setting in (
            "log_line_prefix = '%p|%d|'",
            "log_parameter_max_length = 0",
            "log_statement = 'all'",
            "autovacuum = off",
        ):
            await connection.execute(f"alter system set {setting}")
        await connection.execute("select pg_reload_conf()")
    try:
        return await _measure(stage, servers, turns, idle_seconds, tell)
    finally:
        async with stage.database("postgres") as connection:
            await connection.execute("alter system reset all")
            await connection.execute("select pg_reload_conf()")


async def _measure(stage: Stage, servers: Pair, turns: int, idle_seconds: float, tell: Tell) -> list[Figure]:
    size = await _size(stage)
    talks: list[str] = []
    for number in range(turns):
        tell(f"conversation {number + 1} of {turns}")
        talk = None
        for _ in range(EARLIER):
            talk, _ = await ask_in(servers.ours.address, servers.ours.keys[0], talk)
        assert talk is not None
        talks.append(talk)
    tell(f"{idle_seconds:g} idle seconds")
    await asyncio.sleep(_FLUSH_SECONDS)
    start = await _state(stage, servers)
    await asyncio.sleep(idle_seconds)
    idle = await _state(stage, servers)
    answers = [(await ask_in(servers.ours.address, servers.ours.keys[0], talk))[1] for talk in talks]
    busy = await _state(stage, servers)
    grown = (await _size(stage) - size) / (turns * (EARLIER + 1))
    idle_time, beside = idle.since(start)
    busy_time, counted = busy.since(idle)
    per = {what: (counted[what] - beside[what] * busy_time / idle_time) / turns for what in counted}
    nothing = "the bare SDK, which has no database"
    figures = [
        Figure("ledger", what, per.get(what, 0.0), what.split()[0], nothing)
        for what in ("transactions", WRITING, PLAIN, CONTROL, "rows inserted", "rows updated", "rows deleted")
    ]
    return [
        *figures,
        Figure("ledger", "bytes in tables and indexes, after vacuum full", grown, "bytes", nothing),
        Figure("ledger", "bytes of the answer", sum(answers) / turns, "bytes", "its 60 words", 470),
        Figure("idle", "statements", beside[PLAIN] / idle_time, "a second", nothing),
        Figure("idle", "transactions", beside["transactions"] / idle_time, "a second", nothing),
        Figure("idle", "share of a core", (idle.cpu - start.cpu) / idle_time, "cores", "a server that sleeps"),
    ]


async def _state(stage: Stage, servers: Pair) -> State:
    await asyncio.sleep(_FLUSH_SECONDS)
    at, cpu = time.monotonic(), servers.ours.cpu()
    log = stage.folder / "postgres" / "log"
    text = log.read_text(errors="replace")
    counts = Counter(kinds_of(text))
    async with stage.database("postgres") as connection:
        row = await connection.fetchrow(_COUNTED, DATABASE)
    counts.update({what.replace("_", " "): int(count) for what, count in row.items()})
    return State(at, cpu, counts, len(text))


def kinds_of(log: str) -> list[str]:
    """For each statement in Postgres's log, whether it does anything, `PLAIN` or `CONTROL`."""
    kinds = []
    for found in _LOGGED.finditer(log):
        if _CONTROL.match(found[1]):  # only these are sent several at a time
            kinds += [CONTROL if _CONTROL.match(part) else PLAIN for part in found[1].split(";") if part.strip()]
        else:  # the first line may be empty, where a statement begins with a new one
            kinds.append(PLAIN)
    return kinds


async def _size(stage: Stage) -> int:
    """Bytes of all tables with their indexes, without what is dead in them."""
    async with stage.database() as connection:
        await connection.execute("vacuum full")
        return int(await connection.fetchval("select sum(pg_total_relation_size(relid)) from pg_stat_user_tables"))
