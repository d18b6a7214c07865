"""What it costs to remove the events and the calls of turns that ended long ago, and what a turn feels of it.

The rows are as a one-tool turn leaves them, of many owners, in the order of time; nearly all are past their retention. They
are stored past the checks of foreign keys, and items without the index of what was said, which a removal does not touch.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from uuid import UUID

import asyncpg
import psutil  # type: ignore[import-untyped]
from sqlalchemy import text

from agent_server.db import Database
from agent_server.db.migrate import upgrade
from agent_server.turns.prune import prune_turns
from agent_server.workspace import load_workspace
from bench.cost import Tell
from bench.figures import Figure
from bench.stage import WORKSPACE, Stage
from bench.table import percentile
from bench.work import WORK, spend_work

OWNERS = 1_000
CHUNK = 20_000
"""Turns that are stored in one transaction."""
KEPT_SHARE = 0.05
"""Of the turns that are within their retention."""
ALONE = 200
"""Writes that are measured before it."""
_PARTS, _MEASURED = (0.0, 0.1, 0.45, 0.55, 0.9, 1.0), 0.11
"""Shares of what is pruned after each other. The tenths are measured; in the long ones a turn writes meanwhile."""
_DATABASE = "bench_prune"

_TURNS = """
    create temp table t on commit drop as
    select n, o.owner_id, md5('c' || o.owner_id || n / 5000)::uuid as conversation_id, f.at, md5(n::text) as word,
        (lpad(to_hex((extract(epoch from f.at) * 1000)::bigint), 12, '0') || '7' || substr(md5(n::text), 1, 3) || '8'
            || substr(md5(n::text), 4, 15))::uuid as id
    from generate_series({first}, {last}) n
    cross join lateral (select md5('o' || abs(hashint4(n)) % {owners})::uuid as owner_id) o
    cross join lateral (
        select now() - interval '40 days' + n::float / {turns} * interval '30 days'
            + case when n > {turns} * (1 - {kept}) then interval '10 days' else interval '0' end as at) f"""
_ROWS = (
    """insert into conversation (owner_id, id, title, next_turn, created_at, updated_at)
       select distinct on (owner_id, conversation_id) owner_id, conversation_id, 'A talk', 2, at, at from t
       on conflict do nothing""",
    """insert into turn (owner_id, id, conversation_id, turn_no, client_key, body_sha, status, epoch, attempts, last_event,
           last_item, cancel, input, agent, usage, created_at, finished_at)
       select owner_id, id, conversation_id, n, word, decode(word || word, 'hex'), 'done', 1, 1, 64, 4, false,
           jsonb_build_object('text', repeat('word ', 20)), 'guide', '{"input_tokens": 1200}', at, at from t order by n""",
    """insert into event (owner_id, turn_id, seq, kind, body, at)
       select owner_id, id, k * 16, 'batch', json_build_object('events', repeat('{"text": "word "}, ', 30)), at
       from t, generate_series(1, 4) k order by n, k""",
    """insert into model_call (owner_id, turn_id, n, agent, request_sha, response)
       select owner_id, id, k, 'guide', decode(word || word, 'hex'),
           json_build_object('output', repeat('a word of an answer ', 35)) from t, generate_series(1, 2) k order by t.n, k""",
    """insert into tool_call (owner_id, turn_id, call_id, name, effect, args_sha, state, result, epoch)
       select owner_id, id, 'call_' || word, 'find', 'stored', decode(word || word, 'hex'), 'done',
           jsonb_build_object('output', repeat('what a tool returned ', 50)), 1 from t order by n""",
    """insert into item (owner_id, conversation_id, turn_no, k, turn_id, body, sources, created_at)
       select owner_id, conversation_id, n, k, id, jsonb_build_object('output', repeat('what was said ', 20)), '[]', at
       from t, generate_series(1, 2) k order by n, k""",
)
_SIZES = """
    select sum(pg_total_relation_size(name::regclass))::bigint from unnest(array['turn', 'event', 'model_call', 'tool_call']) name"""
_FENCE = text("update turn set last_event = last_event + 1 where owner_id = :owner_id and id = :id and epoch = 1")


async def fill_turns(connection: asyncpg.Connection, turns: int, tell: Tell) -> None:
    """Store so many turns that have ended."""
    await connection.execute("set session_replication_role = replica; set synchronous_commit = off; set jit = off")
    for first in range(0, turns, CHUNK):
        tell(f"{first} of {turns} turns stored")
        last = min(first + CHUNK, turns) - 1
        async with connection.transaction():
            values = {"first": first, "last": last, "turns": turns, "owners": OWNERS, "kept": KEPT_SHARE}
            await connection.execute(_TURNS.format(**values))
            for rows in _ROWS:
                await connection.execute(rows)
    await connection.execute("reset session_replication_role")
    await connection.execute("vacuum analyze")


@dataclass
class _Spent:
    """The milliseconds of processor time that some turns took Postgres, all of its processes, and this process."""

    turns: int
    postgres: float
    process: float

    def __add__(self, other: "_Spent") -> "_Spent":
        return _Spent(self.turns + other.turns, self.postgres + other.postgres, self.process + other.process)


async def measure_prune(stage: Stage, *, turns: int, tell: Tell) -> list[Figure]:
    """Figures of the prune of nearly all of `turns` turns, in parts, beside those of a tenth as many. In two of the parts
    a turn writes meanwhile, again and again."""
    figures: list[Figure] = []
    fewer = None
    for many in (max(turns // 10, 1), turns):
        async with stage.database("postgres") as postgres:
            await postgres.execute(f"create database {_DATABASE}")
            try:
                found, fewer = await _measure(stage.url_of(_DATABASE), many, fewer, tell)
            finally:
                await postgres.execute(f"drop database {_DATABASE} with (force)")
        figures += found
    return figures


async def _measure(url: str, turns: int, fewer: _Spent | None, tell: Tell) -> tuple[list[Figure], _Spent]:
    database = Database(url)
    load_workspace(WORKSPACE)  # the rights to its tables follow from its models
    await upgrade(database, WORKSPACE)
    connection = await asyncpg.connect(url)
    try:
        await fill_turns(connection, turns, tell)
        size = await connection.fetchval(_SIZES)
        owner, turn = await connection.fetchrow("select owner_id, id from turn order by finished_at desc limit 1")
        alone = await _write(database, owner, turn, lambda writes: writes < ALONE)
        work = await spend_work(connection)
        start = await connection.fetchval("select pg_current_wal_lsn()")
        parts, beside = [], []
        for first, last in pairwise(_PARTS):
            tell(f"pruning from {first:.0%} to {last:.0%} of {turns:,}")
            pruning = asyncio.create_task(_prune(connection, database, turns, last))
            if last - first > _MEASURED:
                beside += await _write(database, owner, turn, lambda _, task=pruning: not task.done())  # type: ignore[misc]
            parts.append(await pruning)
        work = (work + await spend_work(connection)) / 2
        written = await connection.fetchval("select pg_current_wal_lsn() - $1::pg_lsn", start)
        await connection.execute("vacuum turn, event, model_call, tool_call")
        left = await connection.fetchval(_SIZES)
    finally:
        await connection.close()
        await database.close()
    pruned = sum(part.turns for part in parts)
    measured = dict(zip(("first", "middle", "last"), parts[::2], strict=True))
    tenths = parts[0] + parts[2] + parts[4]
    figures = [Figure("prune", f"turns pruned of {turns:,}", pruned, "turns", "those that were stored", turns)]
    for name, part in measured.items():
        for whose, spent in (("Postgres", part.postgres), ("the process", part.process)):
            what = f"CPU of {whose}, the {name} tenth of {turns:,}"
            figures.append(Figure("prune", what, _each(spent, part), "ms a turn", WORK, work))
    if fewer is not None:
        now, before = _each(tenths.postgres, tenths), _each(fewer.postgres, fewer)
        figures.append(
            Figure("prune", f"CPU of Postgres, of {turns:,}", now, "ms a turn", "the same of a tenth as many", before)
        )
    figures += [
        Figure("prune", f"bytes of the log of writes, of {turns:,}", float(written) / max(pruned, 1), "a turn", "nothing"),
        Figure("prune", "size of the tables after it and a vacuum", left, "bytes", "the size before", size),
        Figure(
            "prune", "a turn's write meanwhile, p95", percentile(beside, 0.95), "ms", "alone", percentile(alone, 0.95)
        ),
        Figure("prune", "a turn's write meanwhile, the longest", max(beside), "ms", "alone", max(alone)),
    ]  # fmt: skip
    return figures, tenths


def _each(spent: float, part: _Spent) -> float:
    return spent / max(part.turns, 1)


async def _prune(connection: asyncpg.Connection, database: Database, turns: int, share: float) -> _Spent:
    """Prune this share of all turns, from the oldest on."""
    hours = int((40 - 30 * share) * 24)
    before = _processor(connection)
    pruned = await prune_turns(database, event_hours=hours, call_hours=hours)
    after = _processor(connection)
    # Events and calls are counted apart.
    return _Spent(pruned // 2, *(1000 * (end - begin) for begin, end in zip(before, after, strict=True)))


def _processor(connection: asyncpg.Connection) -> tuple[float, float]:
    """The seconds of processor time of Postgres, with its processes that have ended, and of this process."""
    mine = psutil.Process().cpu_times()
    postgres = psutil.Process(connection.get_server_pid()).parent()
    seconds = sum(postgres.cpu_times()[:4])
    for child in postgres.children():
        with suppress(psutil.NoSuchProcess):
            seconds += sum(child.cpu_times()[:2])
    return seconds, mine.user + mine.system


async def _write(database: Database, owner: UUID, turn: UUID, go_on: Callable[[int], bool]) -> list[float]:
    """Write to a turn as long as it is said to. Returns the milliseconds of each write."""
    times: list[float] = []
    while go_on(len(times)):
        began = time.monotonic()
        async with database.quick(owner) as session:
            await session.execute(_FENCE, {"owner_id": owner, "id": turn})
        times.append((time.monotonic() - began) * 1000)
    return times
