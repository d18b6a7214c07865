"""A real pgbouncer in front of Postgres: what a pooler in transaction mode takes away, and that nobody misses it."""

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, urlencode, urlsplit

import asyncpg
import pytest
from sqlalchemy import text

from agent_server.db import Database
from agent_server.db.direct import check_direct
from agent_server.db.migrate import upgrade
from agent_server.errors import InvalidInput, Unavailable
from agent_server.testing import Call, Say, Step, copy_database, scripted_openai
from tests.commands import PATIENCE, agent_server, serving
from tests.conftest import ROOT
from tests.needs import find_program
from tests.server import Client, starter
from tests.sse import read_frames, text_of

SMALL = Path(__file__).parent / "other_workspace"
BINARY = find_program("pgbouncer")
pytestmark = pytest.mark.needs("pgbouncer")
SECRET = "opens-everything-0123456789"
REFUSAL = (
    "leads through a pooler in transaction mode; the server must listen on a connection of its own: set "
    "DATABASE_DIRECT_URL to the address of the Postgres server itself"
)

Mode = Literal["transaction", "session"]
Pooler = Callable[..., str]


@contextmanager
def pgbouncer(url: str, mode: Mode, connections: int) -> Iterator[str]:
    """A pgbouncer in front of the server of `url`; the URL of the same database through it."""
    assert BINARY is not None
    parts = urlsplit(url)
    sockets = Path(parse_qs(parts.query)["host"][0])
    owner = sockets.stat()  # it refuses to run as root, and others may not open the server's socket
    folder = Path(tempfile.mkdtemp(prefix="pgbouncer"))
    os.chown(folder, owner.st_uid, owner.st_gid)
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = host={sockets} user=postgres\n"
        f"[pgbouncer]\nunix_socket_dir = {folder}\nlisten_port = 6432\nauth_type = any\n"
        f"pool_mode = {mode}\ndefault_pool_size = {connections}\nmax_client_conn = 200\nlog_connections = 0\nlog_disconnections = 0\n"
    )
    process = subprocess.Popen(
        [BINARY, str(folder / "pgbouncer.ini")],
        stderr=subprocess.PIPE,
        text=True,
        user=owner.st_uid if os.getuid() == 0 else None,
        group=owner.st_gid if os.getuid() == 0 else None,
        extra_groups=[] if os.getuid() == 0 else None,
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "process up" in line:
                break
        query = urlencode({"host": str(folder), "port": "6432"})
        yield f"postgresql://postgres:{SECRET}@{parts.path}?{query}"
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)
        shutil.rmtree(folder)


@pytest.fixture
def through() -> Iterator[Pooler]:
    """`through(url, mode="transaction", connections=3)`: the URL of the same database, through a pooler of its own."""
    with ExitStack() as poolers:
        yield lambda url, mode="transaction", connections=3: poolers.enter_context(pgbouncer(url, mode, connections))


@pytest.fixture
def empty(postgres: str) -> Iterator[str]:
    """The URL of a database with nothing in it."""
    with copy_database(postgres) as url:
        yield url


async def test_turns_with_tools_run_on_two_replicas_behind_a_pooler(stocked_url: str, through: Pooler) -> None:
    pooled = through(stocked_url)
    script: list[Step] = [
        Call("create_task", {"title": "Service the regulator"}),
        Say("It is on your list."),
        Call("list_tasks", {}),
        Say("One task."),
    ]
    databases = [Database(pooled, stocked_url) for _ in range(2)]
    async with scripted_openai(script) as model:
        settings = {"openai_base_url": model.url, "model": "scripted"}
        async with starter(databases[0])(**settings) as one, starter(databases[1])(**settings) as two:
            first = await ask(one, "Remind me to service the regulator")
            events = await one.get(f"/api/turns/{first['turn_id']}")
            assert events["status"] == "done"
            two.key = one.key
            async with two.http.stream("GET", f"/api/turns/{first['turn_id']}/events", headers=two.auth) as response:
                assert [frame.event async for frame in read_frames(response)][-1] == "done"
            frames = await two.chat("What is on my list?", id=first["conversation_id"])
            assert text_of(frames) == "One task."
            assert "Service the regulator" in str(model.requests[-1]["messages"][-1])
    for database in databases:
        await database.close()


async def ask(client: Client, message: str) -> dict[str, str]:
    body = {"message": message, "agent": "tasks", "stream": False}
    response = await client.http.post("/api/chat", json=body, headers=client.auth)
    assert response.status_code == 200, response.text
    answer: dict[str, str] = response.json()
    return answer


async def test_many_clients_at_once_leave_no_prepared_statement_behind_the_pooler(url: str, through: Pooler) -> None:
    pooled = through(url)
    clients = [Database(pooled, url, pool_size=1) for _ in range(16)]

    async def work(database: Database, number: int) -> list[int]:
        found = []
        for i in range(10):
            async with database.transaction() as session:
                await session.execute(text(f"select {number} as n{number}, cast(:i as int)"), {"i": i})
                found.append((await session.execute(text("select cast(:i as int)"), {"i": i})).scalar_one())
        return found

    answers = await asyncio.gather(*(work(database, n) for n, database in enumerate(clients)))
    assert answers == [list(range(10))] * 16
    async with clients[0].transaction() as session:
        assert (await session.execute(text("select name from pg_prepared_statements where name <> ''"))).all() == []
    for database in clients:
        await database.close()


async def test_the_limits_of_a_session_hold_in_each_transaction_and_only_there(url: str, through: Pooler) -> None:
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "jit")
    shown = "select " + ", ".join(f"current_setting('{name}')" for name in names)
    pooled = through(url, connections=1)  # whatever one client leaves behind, the other finds
    stranger = await asyncpg.connect(pooled, statement_cache_size=0)
    before = await stranger.fetchrow(shown)
    database = Database(f"{pooled}&application_name=mine", url)
    async with database.transaction() as session:
        assert tuple((await session.execute(text(shown))).one()) == ("15s", "5s", "10s", "off")
        assert (await session.execute(text("show application_name"))).scalar_one() == "mine"
    assert await stranger.fetchrow(shown) == before != ("15s", "5s", "10s", "off")
    await stranger.close()
    await database.close()
    with pytest.raises(InvalidInput, match="DATABASE_URL: leave out options"):
        Database(f"{pooled}&options=-c%20work_mem%3D5MB", url)


@pytest.mark.names_no_owner
async def test_migrations_run_past_the_pooler(empty: str, through: Pooler) -> None:
    database = Database(through(empty), empty)
    await upgrade(database, ROOT)
    assert database.owner.url.query["host"] == parse_qs(urlsplit(empty).query)["host"][0]
    async with database.transaction() as session:
        assert (await session.execute(text("select current_user"))).scalar_one() == "agent_server_app"
        assert (await session.execute(text("select count(*) from turn"))).scalar_one() == 0
    await database.close()


def test_without_a_direct_address_the_server_refuses_a_pooler_in_transaction_mode(url: str, through: Pooler) -> None:
    pooled = through(url)
    for _ in range(2):  # the second finds what the first prepared
        refused = agent_server("serve", "--port", "0", cwd=SMALL, DATABASE_URL=pooled)
        assert refused.returncode == 1
        assert f"invalid_input: DATABASE_URL: {REFUSAL}" in refused.stderr
        assert SECRET not in refused.stderr
        assert "Traceback" not in refused.stderr
    other = through(url)
    refused = agent_server("serve", "--port", "0", cwd=SMALL, DATABASE_URL=pooled, DATABASE_DIRECT_URL=other)
    assert refused.returncode == 1
    assert f"invalid_input: DATABASE_DIRECT_URL: {REFUSAL}" in refused.stderr
    assert SECRET not in refused.stderr


async def test_a_direct_address_that_does_not_answer_is_named(url: str) -> None:
    database = Database(url, f"postgresql://someone:{SECRET}@127.0.0.1:1/nothing")
    with pytest.raises(Unavailable, match="DATABASE_DIRECT_URL: the database does not answer") as away:
        await check_direct(database)
    assert SECRET not in away.value.message
    await database.close()


def test_a_pooler_in_session_mode_needs_no_second_address(empty: str, through: Pooler, tmp_path: Path) -> None:
    workspace = shutil.copytree(SMALL, tmp_path / "small", ignore=shutil.ignore_patterns("__pycache__"))
    with serving(workspace, through(empty, "session", connections=20)) as server:
        assert server.ask("How do I start a worker?")["status"] == "done"
