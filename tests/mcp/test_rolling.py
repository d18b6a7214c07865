"""A rolling restart under load: each of two replicas is told to stop in its turn, and no call is lost."""

import asyncio
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from agent_server.testing import copy_database
from tests.commands import PATIENCE, Serving, serving
from tests.conftest import ROOT, fetch
from tests.mcp.conformance.proxy import balance
from tests.mcp.conftest import Mode

CLIENTS = 8
# More than a caller may send in a minute.
NO_LIMITS = {"AGENT_SERVER_RATE_PER_CALLER": "0", "AGENT_SERVER_RATE_PER_ADDRESS": "0"}
TOOL = '''
"""Work of half a second."""

import asyncio

from agent_server import ToolContext, tool
from agent_server.audit import AuditRepository


@tool(scope="work:do", effect="stored")
async def work(context: ToolContext, name: str) -> str:
    """Work for half a second."""
    await asyncio.sleep(0.5)
    await AuditRepository(context.session, context.caller).record(
        surface="note", action=name, outcome="note", latency_ms=0
    )
    return name
'''


@pytest.fixture
def url(postgres: str) -> Iterator[str]:
    with copy_database(postgres) as url:
        yield url


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    scaffold = ROOT / "agent_server" / "scaffold"
    folder = shutil.copytree(scaffold, tmp_path / "w", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "tools" / "work.py").write_text(TOOL)
    return folder


@contextmanager
def replicas(workspace: Path, url: str) -> Iterator["tuple[ExitStack, list[Serving]]"]:
    with ExitStack() as stack:
        yield stack, [stack.enter_context(serving(workspace, url, **NO_LIMITS)) for _ in range(2)]


async def test_a_rolling_restart_loses_no_call(workspace: Path, url: str, mode: Mode) -> None:
    made: list[str] = []
    stopping = asyncio.Event()

    async def wait_for_more() -> None:
        """Wait until each client has made two more calls or so."""
        enough = len(made) + 2 * CLIENTS
        async with asyncio.timeout(PATIENCE):
            while True:
                if len(made) >= enough:
                    return
                await asyncio.sleep(0.1)

    async def load(address: str, n: int) -> None:
        async with (
            httpx2.AsyncClient(timeout=PATIENCE) as http,
            Client(
                streamable_http_client(f"{address}/mcp", http_client=http), mode="auto" if mode == "modern" else mode
            ) as client,
        ):
            while not stopping.is_set():
                name = f"{n}-{len(made)}"
                result = await client.call_tool("work", {"name": name})
                assert not result.is_error, result
                made.append(name)

    with replicas(workspace, url) as (stack, (first, second)):
        bases = [str(each.http.base_url).rstrip("/") for each in (first, second)]
        key = first.http.headers["Authorization"].removeprefix("Bearer ")
        async with balance(bases, key, asks=True) as address, asyncio.TaskGroup() as group:
            for n in range(CLIENTS):
                group.create_task(load(address, n))
            for old in (first, second):
                await wait_for_more()
                old.process.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(old.process.wait, PATIENCE) == 0
                bases.remove(str(old.http.base_url).rstrip("/"))
                new = await asyncio.to_thread(stack.enter_context, serving(workspace, url, **NO_LIMITS))
                bases.append(str(new.http.base_url).rstrip("/"))
            await wait_for_more()
            stopping.set()
        written = await fetch(url, "select action from audit where outcome = 'note'")
    assert sorted(name for (name,) in written) == sorted(made)
