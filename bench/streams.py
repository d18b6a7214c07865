"""What a stream costs on which nothing happens: memory of the server, and connections to Postgres.

    python -m bench.streams [--streams N]

A server process (`agent-server serve`) holds the streams of turns that another process runs and does not write to:
all of one turn, or each of a turn and an owner of its own. Warmed up with a few streams of each kind first.
"""

import argparse
import asyncio
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from agent_server.db import Database
from agent_server.identity.credentials import issue_key
from bench.followers import start_writer
from bench.postgres import ROOT, count_connections, fresh_database
from bench.table import print_table
from tests.commands import Serving, serving
from tests.conftest import everything

WARM, SETTLE = 30, 4.0


async def compare(url: str, workspace: Path, streams: int) -> None:
    writer, begun = await start_writer(url, streams + WARM)
    database = Database(url)
    async with everything(database) as session:
        keys = [(await issue_key(session, owner, name="bench", scopes=["*"])).text for owner, _ in begun]
    await database.close()
    turns = [(str(id), key) for (_, id), key in zip(begun, keys, strict=True)]
    rows = []
    for name, followed in (("of one turn", turns[:1] * len(turns)), ("of a turn each", turns)):
        with serving(workspace, url, PYTHONPATH=str(ROOT)) as server:  # another, so that each begins with no memory
            rows.append((name, streams, *await measure(url, server, followed)))
    writer.kill()
    await writer.wait()
    head = ("idle streams", "how many", "kB each", "more connections to Postgres", "server's CPU ms a second")
    print_table("Streams on which nothing happens", head, rows)


async def measure(url: str, server: Serving, followed: Sequence[tuple[str, str]]) -> tuple[object, ...]:
    process = psutil.Process(server.process.pid)
    address = server.http.base_url.host, server.http.base_url.port
    opened = [await _open(*address, *turn) for turn in followed[:WARM]]
    await asyncio.sleep(SETTLE)
    memory, connections = process.memory_info().rss, await count_connections(url)
    opened += [await _open(*address, *turn) for turn in followed[WARM:]]
    await asyncio.sleep(SETTLE)
    grown = (process.memory_info().rss - memory) / (len(followed) - WARM) / 1000
    more = await count_connections(url) - connections
    cpu, began = sum(process.cpu_times()[:2]), time.monotonic()
    await asyncio.sleep(10)
    busy = (sum(process.cpu_times()[:2]) - cpu) * 1000 / (time.monotonic() - began)
    for stream in opened:
        stream.close()
    return f"{grown:.1f}", more, f"{busy:.0f}"


async def _open(host: str, port: int | None, turn: str, key: str) -> asyncio.StreamWriter:
    reader, writer = await asyncio.open_connection(host, port)
    request = f"GET /api/turns/{turn}/events HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {key}\r\n\r\n"
    writer.write(request.encode())
    status = await reader.readline()
    assert b" 200 " in status, status
    return writer


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--streams", type=int, default=1000)
    streams = options.parse_args().streams
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 3 * streams + 500), most))
    with tempfile.TemporaryDirectory(prefix="bench") as folder, fresh_database(Path(folder)) as url:
        (Path(folder) / "prompts").mkdir()
        (Path(folder) / "prompts" / "assistant.md").write_text(
            "---\nname: assistant\ndescription: Answers.\nknowledge: []\n---\nYou answer.\n"
        )
        asyncio.run(compare(url, Path(folder), streams))


if __name__ == "__main__":
    main()
