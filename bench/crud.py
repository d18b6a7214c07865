"""What it takes to create, read, change and delete a row through the REST tools, beside the same statements by asyncpg.

    python -m bench.crud [--connections 100,500] [--rows N]

Each of so many clients goes through the four steps with a row of its own, over and over: a task (todo), a customer
(retail), and reads alone of destinations and sites (diving, whose tables no caller writes). The plain side sends the
statements that do the work in one transaction each, over a pool of the same size, as the owner of the tables. What REST adds
is HTTP, JSON, the credential, the scope, the checks of arguments and results, row-level security and the row of the audit.
Compare the ratios: both sides share the machine with the clients.
"""

import argparse
import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any
from uuid import UUID

import asyncpg
import httpx

from agent_server.db import new_id, now
from bench.stage import ROOT, Stage, stage
from bench.table import percentile, print_table

POOL = 8
"""Connections to Postgres on either side: the server's default."""
Times = defaultdict[str, list[float]]

# The work of each step. A row that is changed is locked first, as the tools do.
_PLAIN: Mapping[str, Mapping[str, Sequence[str]]] = {
    "todo": {
        "create": (
            "insert into task (owner_id, id, title, description, status, created_at, updated_at)"
            " values ($1, $2, 'A task', '', 'open', $3, $3)",
        ),
        "read": ("select * from task where owner_id = $1 and id = $2",),
        "change": (
            "select * from task where owner_id = $1 and id = $2 for update",
            "update task set title = 'Another' where owner_id = $1 and id = $2",
        ),
        "delete": (
            "select * from task where owner_id = $1 and id = $2 for update",
            "delete from task where owner_id = $1 and id = $2",
        ),
    },
    "retail": {
        "create": (
            "insert into customer (owner_id, id, name, address, note, version, created_at, updated_at)"
            " values ($1, $2, 'A customer', '', '', 1, $3, $3)",
        ),
        "read": ("select * from customer where id = $2 and deleted_at is null",),
        "change": (
            "select * from customer where id = $2 and deleted_at is null for update",
            "update customer set address = 'There', version = version + 1 where owner_id = $1 and id = $2",
        ),
        "delete": (
            "select * from customer where id = $2 and deleted_at is null for update",
            "update customer set deleted_at = now() where owner_id = $1 and id = $2",
        ),
    },
    "diving": {"read": ("select * from destination order by name",)},
}
_TOOLS: Mapping[str, Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "todo": {
        "create": ("create_task", {"title": "A task"}),
        "read": ("get_task", {"task": "{id}"}),
        "change": ("update_task", {"task": "{id}", "title": "Another"}),
        "delete": ("delete_task", {"task": "{id}"}),
    },
    "retail": {
        "create": ("add_customer", {"name": "A customer"}),
        "read": ("get_customer", {"customer": "{id}"}),
        "change": ("update_customer", {"customer": "{id}", "address": "There"}),
        "delete": ("delete_customer", {"customer": "{id}"}),
    },
    "diving": {"read": ("list_destinations", {})},
}


async def _timed(times: Times, name: str, work: Awaitable[Any]) -> Any:
    began = time.perf_counter()
    result = await work
    times[name].append((time.perf_counter() - began) * 1000)
    return result


async def _call(http: httpx.AsyncClient, key: str, tool: str, arguments: Mapping[str, Any]) -> Any:
    answer = await http.post(f"/api/tools/{tool}", json=arguments, headers={"Authorization": f"Bearer {key}"})
    if answer.status_code == 429 or answer.status_code == 503:
        return None
    return answer.raise_for_status().json()


async def measure_tools(there: Stage, domain: str, connections: int, rows: int) -> tuple[Times, int]:
    """Milliseconds of each step through the REST tools, and how many calls the server refused because it was busy."""
    times, refused = Times(list), 0
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    async with (
        there.ours(workspace=ROOT) as server,
        httpx.AsyncClient(base_url=server.address, timeout=60, limits=limits) as http,
    ):

        async def client(number: int) -> None:
            nonlocal refused
            key = server.keys[number % len(server.keys)]
            for _ in range(rows):
                id = ""
                for name, (tool, arguments) in _TOOLS[domain].items():
                    given = {k: id if v == "{id}" else v for k, v in arguments.items()}
                    result = await _timed(times, name, _call(http, key, tool, given))
                    if result is None:
                        refused += 1
                        times[name].pop()
                        break
                    id = result.get("id", id) if isinstance(result, dict) else id

        await asyncio.gather(*(client(number) for number in range(connections)))
    return times, refused


async def measure_plain(url: str, domain: str, connections: int, rows: int) -> Times:
    """Milliseconds of each step's statements by asyncpg, the wait for a connection of the pool among them."""
    times = Times(list)

    async with asyncpg.create_pool(url, min_size=POOL, max_size=POOL) as pool:

        async def step(statements: Sequence[str], owner: UUID, id: UUID) -> None:
            values = (owner, id, now())
            async with pool.acquire() as connection, connection.transaction():
                for statement in statements:
                    wanted = [value for n, value in enumerate(values, 1) if f"${n}" in statement]
                    # Parameters are numbered from 1, and asyncpg wants those that the statement has.
                    text = statement if "$1" in statement else statement.replace("$2", "$1")
                    await connection.fetch(text, *wanted)

        async def client() -> None:
            owner = new_id()
            for _ in range(rows):
                id = new_id()
                for name, statements in _PLAIN[domain].items():
                    await _timed(times, name, step(statements, owner, id))

        await asyncio.gather(*(client() for _ in range(connections)))
    return times


async def measure(connections: Sequence[int], rows: int) -> list[tuple[object, ...]]:
    """A line for each domain, number of connections, step and percentile."""
    found: list[tuple[object, ...]] = []
    async with stage() as there:
        await asyncio.to_thread(there.run, "db", "upgrade", AGENT_SERVER_WORKSPACE=str(ROOT))
        for domain in _TOOLS:
            for clients in connections:
                tools, refused = await measure_tools(there, domain, clients, rows)
                plain = await measure_plain(there.url, domain, clients, rows)
                for name in tools:
                    for share in (0.5, 0.95, 0.99):
                        ours, base = percentile(tools[name], share), percentile(plain[name], share)
                        line = (domain, clients, name, f"p{share * 100:.0f}", f"{ours:.1f}", f"{base:.1f}")
                        found.append((*line, f"{ours / base:.1f}", refused))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.crud")
    parser.add_argument("--connections", default="100,500", help="numbers of clients at the same time")
    parser.add_argument("--rows", type=int, default=5, help="rows of each client")
    given = parser.parse_args(arguments)
    rows = asyncio.run(measure([int(number) for number in given.connections.split(",")], given.rows))
    head = ("domain", "connections", "step", "", "REST, ms", "asyncpg, ms", "ratio", "refused as busy")
    print_table("CRUD through the REST tools, and the same statements by asyncpg", head, rows)


if __name__ == "__main__":
    main()
