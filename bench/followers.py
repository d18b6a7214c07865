"""How soon followers have an event that another process has committed, and what following takes.

    python -m bench.followers

A process writes, this one follows, over one connection that listens. An event comes every 50 ms (calm), then 200 at
once as fast as they commit (burst). Latency is from the writer's commit to a follower's hands, on the machine's
monotonic clock. "On turns of their own": each follower another turn of another owner, of which ten are written to.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import text

from agent_server.caller import Caller
from agent_server.db import Database, new_id
from agent_server.log import configure_logging
from agent_server.turns.accept import Message, accept
from agent_server.turns.attempt import Attempt, Outcome
from agent_server.turns.events import TextDelta
from agent_server.turns.hub import Hub
from agent_server.turns.replica import Replica
from agent_server.turns.runner import Runner
from bench.postgres import ROOT, count_connections, fresh_database
from bench.table import percentile, print_table
from tests.conftest import everything

CALM, BURST, ACTIVE = 60, 200, 10


async def write(url: str, turns: int) -> None:
    """The other process: starts turns, says which, and writes to the first of them when it is told to.

    Prints the turns, then for each written event `[turn, number, when it was committed]`.
    """
    database = Database(url)
    replica, writers, all_begun = Replica(database), [], asyncio.Event()
    hub = Hub(database, send=replica.send)

    async def run(attempt: Attempt) -> Outcome:
        writers.append(attempt.writer)
        if len(writers) == turns:
            all_begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    runner = Runner(database, replica, hub, run, slots=turns, turn_timeout=3600)
    await runner.start()
    for _ in range(turns):
        caller = Caller(id=new_id(), kind="user", scopes=frozenset({"*"}))
        message = Message(text="What is it?")
        accepted = await accept(database, caller, message, replica=runner.replica.id, queue_limit=5, can_run=True)
        runner.begin(accepted.turn)
    await all_begun.wait()
    print(json.dumps([(str(j.owner_id), str(j.turn_id)) for j in writers]), flush=True)
    written = []
    for count, pause in ((CALM, 0.05), (BURST, 0.0)):
        await asyncio.to_thread(sys.stdin.readline)
        for number in range(count):
            writer = writers[number % min(turns, ACTIVE)]
            await writer.append(TextDelta(1, f"{number} "))
            written.append((str(writer.turn_id), time.perf_counter()))
            await asyncio.sleep(pause)
        print(json.dumps(written), flush=True)
        written = []
    await asyncio.Event().wait()


async def start_writer(url: str, turns: int) -> tuple[asyncio.subprocess.Process, list[tuple[UUID, UUID]]]:
    """The process that writes, and the owners and ids of its turns."""
    writer = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.followers",
        "--writer",
        url,
        str(turns),
        cwd=ROOT,
        limit=2**24,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert writer.stdout is not None
    return writer, [(UUID(owner), UUID(id)) for owner, id in json.loads(await writer.stdout.readline())]


async def measure(url: str, followers: int, turns: int) -> list[tuple[object, ...]]:
    writer, begun = await start_writer(url, turns)
    assert writer.stdout is not None and writer.stdin is not None
    before = await count_connections(url)
    database = Database(url)
    replica = Replica(database)
    hub = Hub(database, send=replica.send)
    runner = Runner(database, replica, hub, _none, slots=0)
    await runner.start()
    received: list[tuple[UUID, int, float]] = []

    async def read(owner: UUID, id: UUID) -> None:
        async for numbered in hub.follow(owner, id):
            if numbered is not None:
                received.append((id, numbered.seq, time.perf_counter()))

    reading = [asyncio.create_task(read(*begun[i % turns])) for i in range(followers)]
    await asyncio.sleep(2)
    rows: list[tuple[object, ...]] = []
    seen: dict[UUID, int] = {}
    for pace in ("calm", "burst"):
        received.clear()
        cpu = time.process_time()
        writer.stdin.write(b"\n")
        line = json.loads(await writer.stdout.readline())
        committed: dict[tuple[UUID, int], float] = {}
        for id, at in line:
            seen[UUID(id)] = seen.get(UUID(id), 0) + 1
            committed[UUID(id), seen[UUID(id)]] = at
        expected = len(line) * (followers if turns == 1 else 1)
        async with asyncio.timeout(60):
            while len(received) < expected:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        cpu = time.process_time() - cpu
        delays = [(at - committed[id, seq]) * 1000 for id, seq, at in received]
        seconds = max(at for *_, at in received) - min(committed.values())
        rows.append(
            (
                followers,
                "one" if turns == 1 else f"of their own, {ACTIVE} written to",
                pace,
                f"{percentile(delays, 0.5):.1f}",
                f"{percentile(delays, 0.95):.1f}",
                f"{len(received) / seconds:,.0f}",
                f"{cpu * 1e6 / len(received):.0f}",
                await count_connections(url) - before,
            )
        )
    for task in reading:
        task.cancel()
    await asyncio.gather(*reading, return_exceptions=True)
    writer.kill()
    await writer.wait()
    async with everything(database) as session:  # or the next writer would take over these turns
        await session.execute(text("delete from conversation"))
    await runner.close()
    await database.close()
    return rows


async def _none(_: Attempt) -> Outcome:
    raise AssertionError


async def compare(url: str, shapes: Sequence[tuple[int, int]]) -> None:
    rows = [row for followers, turns in shapes for row in await measure(url, followers, turns)]
    head = ("followers", "turn", "pace", "p50 ms", "p95 ms", "deliveries/s", "CPU us each", "connections")
    print_table("From another process's commit to a follower", head, rows)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--writer", nargs=2, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    configure_logging("ERROR", "console")
    if chosen.writer:
        asyncio.run(write(chosen.writer[0], int(chosen.writer[1])))
        return
    with fresh_database() as url:
        asyncio.run(compare(url, ((1, 1), (100, 1), (1000, 1), (1000, 1000))))


if __name__ == "__main__":
    main()
