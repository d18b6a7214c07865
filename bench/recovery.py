"""How soon another process goes on with the turns of one that was killed.

    python -m bench.recovery [--kills N]

A process answers a turn and is killed (SIGKILL) in the middle of a model call, with text shown. This process is the
other replica: it claims the turn, takes back the text, and follows the turn. Printed are the seconds from the kill to
the claim and to the first new event: with the lock that falls with the process, and with the lock forgotten
(`replica.lock_key` null), when only the heartbeat says that the process is dead.
"""

import argparse
import asyncio
import random
import sys
import time
from typing import Any
from uuid import UUID

from sqlalchemy import text

from agent_server.caller import Caller
from agent_server.db import Database, new_id
from agent_server.heartbeat import BEAT_SECONDS
from agent_server.log import configure_logging
from agent_server.turns.accept import Message, accept
from agent_server.turns.attempt import Attempt, Outcome
from agent_server.turns.events import Reset, TextDelta
from agent_server.turns.hub import Hub
from agent_server.turns.models import Turn
from agent_server.turns.replica import Replica
from agent_server.turns.runner import Runner
from bench.postgres import ROOT, fresh_database
from bench.table import percentile, print_table
from tests.conftest import everything

_FORGET = text("update replica set lock_key = null where id = (select owner from turn where id = :id)")


class Survivor(Runner):
    """The other replica, which notes when it begins a turn."""

    def __init__(self, database: Database, replica: Replica, hub: Hub) -> None:
        super().__init__(database, replica, hub, self._answer)
        self.claimed: dict[UUID, float] = {}

    def begin(self, turn: Turn, *more: Any, **named: Any) -> None:
        self.claimed[turn.id] = time.perf_counter()
        super().begin(turn, *more, **named)

    async def _answer(self, attempt: Attempt) -> Outcome:
        await attempt.writer.append(TextDelta(1, "Again: "))
        return Outcome("assistant")


async def victim(url: str, caller_id: str) -> None:
    """Answer one turn without end, in pieces."""

    async def run(attempt: Attempt) -> Outcome:
        await attempt.writer.append(TextDelta(1, "It is "))
        print(attempt.writer.turn_id, flush=True)
        while True:
            await asyncio.sleep(0.08)
            await attempt.writer.append(TextDelta(1, "and is "))

    database = Database(url)
    replica = Replica(database)
    hub = Hub(database, send=replica.signals.send)
    runner = Runner(database, replica, hub, run)
    await runner.start()
    caller = Caller(id=UUID(caller_id), kind="user", scopes=frozenset({"*"}))
    message = Message(text="What is it?")
    accepted = await accept(database, caller, message, replica=runner.replica.id, queue_limit=5, can_run=True)
    runner.begin(accepted.turn)
    await asyncio.Event().wait()


async def kill_one(database: Database, hub: Hub, survivor: Survivor, *, locked: bool) -> tuple[float, float]:
    """Seconds from the kill to the claim, and to the first event of the other process."""
    caller_id = new_id()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.recovery",
        "--victim",
        database.url,
        str(caller_id),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    turn_id = UUID((await process.stdout.readline()).decode().strip())
    events = hub.follow(caller_id, turn_id)
    for _ in range(3):
        await anext(events)
    await asyncio.sleep(random.random() * BEAT_SECONDS)  # at any time of its heartbeat
    if not locked:
        async with everything(database) as session:
            await session.execute(_FORGET, {"id": turn_id})
    process.kill()
    at = time.perf_counter()
    if not locked:  # it may have beaten in between
        async with everything(database) as session:
            await session.execute(_FORGET, {"id": turn_id})
    first = 0.0
    async for numbered in events:
        if not first and numbered is not None and isinstance(numbered.event, Reset):
            first = time.perf_counter() - at
    await process.wait()
    return survivor.claimed[turn_id] - at, first


async def measure(url: str, kills: int) -> None:
    rows = []
    database = Database(url)
    replica = Replica(database)
    hub = Hub(database, send=replica.signals.send)
    survivor = Survivor(database, replica, hub)
    await survivor.start()
    for name, locked in (("the lock", True), ("the heartbeat alone", False)):
        took = []
        for number in range(kills):
            took.append(await kill_one(database, hub, survivor, locked=locked))
            print(f"\r{name}: {number + 1} of {kills} ", end="", file=sys.stderr)
        claims, firsts = zip(*took, strict=True)
        columns = [f"{f(v):.2f}" for v in (claims, firsts) for f in (_p50, _p95, max)]
        rows.append((name, kills, *columns))
    head = ("found dead by", "kills", "claimed p50, s", "p95", "max", "first event p50, s", "p95", "max")
    print_table("Seconds from kill -9", head, rows)
    await survivor.close()
    await database.close()


def _p50(values: tuple[float, ...]) -> float:
    return percentile(values, 0.5)


def _p95(values: tuple[float, ...]) -> float:
    return percentile(values, 0.95)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kills", type=int, default=50)
    options.add_argument("--victim", nargs=2, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    configure_logging("ERROR", "console")
    if chosen.victim:
        asyncio.run(victim(*chosen.victim))
        return
    with fresh_database() as url:
        asyncio.run(measure(url, chosen.kills))


if __name__ == "__main__":
    main()
