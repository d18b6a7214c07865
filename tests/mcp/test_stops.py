"""A server that is told to stop answers the calls that it is making, over HTTP in both generations and over stdio."""

import asyncio
import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp_types import CLIENT_CAPABILITIES_META_KEY, PROTOCOL_VERSION_META_KEY

from agent_server.mcp import McpApp
from agent_server.testing import copy_database
from tests import zygote
from tests.commands import PATIENCE, Serving, environment, serving
from tests.conftest import ROOT
from tests.mcp.conftest import HELLO, VERSIONS, Mode, Notebook

SLOW = '''
"""Something that takes its time."""

import asyncio
from pathlib import Path

from agent_server import ToolContext, tool


@tool(scope="slow:read", effect="read")
async def wait_for(context: ToolContext, folder: str) -> str:
    """Wait for a file."""
    (Path(folder) / "begun").touch()
    while not (Path(folder) / "open").exists():
        await asyncio.sleep(0.02)
    return "it is there"
'''


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    scaffold = ROOT / "agent_server" / "scaffold"
    folder = shutil.copytree(scaffold, tmp_path / "slow", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "tools" / "slow.py").write_text(SLOW)
    return folder


@pytest.fixture
def empty(postgres: str) -> Iterator[str]:
    with copy_database(postgres) as url:
        yield url


def call(mode: Mode, folder: Path, id: int = 7) -> dict[str, Any]:
    params: dict[str, Any] = {"name": "wait_for", "arguments": {"folder": str(folder)}}
    if mode == "modern":
        params["_meta"] = {PROTOCOL_VERSION_META_KEY: VERSIONS[mode], CLIENT_CAPABILITIES_META_KEY: {}}
    return {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}


def answers_in(text: str) -> list[dict[str, Any]]:
    if text.startswith("{"):
        return [json.loads(text)]
    return [json.loads(line[5:]) for line in text.splitlines() if line.startswith("data:") and line[5:].strip()]


class Call(threading.Thread):
    """A call of `wait_for` that has begun."""

    def __init__(self, server: Serving, mode: Mode, folder: Path) -> None:
        super().__init__()
        self._server, self._mode, self._folder = server, mode, folder
        self.response: httpx.Response | None = None
        self.start()
        until(lambda: (folder / "begun").exists() or not self.is_alive())
        assert (folder / "begun").exists(), self.response

    def run(self) -> None:
        headers = {
            "Authorization": self._server.http.headers["Authorization"],
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": VERSIONS[self._mode],
        }
        if self._mode == "modern":
            headers |= {"Mcp-Method": "tools/call", "Mcp-Name": "wait_for"}
        url = self._server.http.base_url.join("/mcp")
        self.response = httpx.post(url, json=call(self._mode, self._folder), headers=headers, timeout=PATIENCE)

    def answer(self) -> dict[str, Any]:
        self.join(PATIENCE)
        assert self.response is not None
        assert self.response.status_code == 200
        (answer,) = answers_in(self.response.text)
        return answer


def until(holds: Any, seconds: float = PATIENCE) -> None:
    """Wait until something holds that another process brings about."""
    waited = threading.Event()
    for _ in range(int(seconds * 50)):
        if holds():
            return
        waited.wait(0.02)
    raise AssertionError("it did not come about")


def test_a_call_in_flight_is_answered_by_a_server_that_is_told_to_stop(
    workspace: Path, empty: str, mode: Mode, tmp_path: Path
) -> None:
    with serving(workspace, empty, AGENT_SERVER_DRAIN_SECONDS=str(PATIENCE)) as server:
        calling = Call(server, mode, tmp_path)
        server.process.terminate()
        until(lambda: server.http.get("/readyz").status_code == 503)
        (tmp_path / "open").touch()
        assert calling.answer()["result"]["content"] == [{"type": "text", "text": "it is there"}]
        assert server.process.wait(PATIENCE) == 0


def test_a_call_that_does_not_end_in_time_is_answered_with_an_error(
    workspace: Path, empty: str, mode: Mode, tmp_path: Path
) -> None:
    with serving(workspace, empty, AGENT_SERVER_DRAIN_SECONDS="0.2") as server:
        calling = Call(server, mode, tmp_path)
        server.process.terminate()
        answer = calling.answer()
        assert answer["id"] == 7
        assert answer["error"]["data"] == {"code": "unavailable"}
        assert server.process.wait(PATIENCE) == 0


async def test_a_call_that_comes_when_all_are_ended_is_told_so(app: McpApp, notebook: Notebook, mode: Mode) -> None:
    await app.drain(0)
    answer = await notebook.post(mode, "tools/call", {"name": "wait_forever", "arguments": {}})
    (message,) = answers_in(answer.text)
    assert message["error"]["data"] == {"code": "unavailable"}
    assert await notebook.notes() == []


async def test_it_is_not_waited_for_longer_than_calls_last(app: McpApp, notebook: Notebook, mode: Mode) -> None:
    calling = asyncio.create_task(notebook.post(mode, "tools/call", {"name": "wait_forever", "arguments": {}}))
    async with asyncio.timeout(PATIENCE):
        await notebook.gate.begun.wait()
        draining = asyncio.create_task(app.drain(3600))
        notebook.gate.open.set()
        await draining
        assert '"result"' in (await calling).text


@contextmanager
def running(workspace: Path, url: str) -> Iterator[tuple[zygote.Process, int, int]]:
    """`agent-server mcp` with the ends of its standard input and output."""
    (given, to), (out, into) = os.pipe(), os.pipe()
    with open(workspace / "errors", "w") as errors:
        process = zygote.start(
            "agent_server",
            "mcp",
            "--workspace",
            str(workspace),
            cwd=workspace,
            environment=environment({"DATABASE_URL": url}),
            files=(given, into, errors),
        )
    os.close(given)
    os.close(into)
    try:
        yield process, to, out
    finally:
        process.kill()
        process.wait(PATIENCE)


def greet(mode: Mode) -> bytes:
    """What a client of before 2026 begins with."""
    if mode == "modern":
        return b""
    hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": HELLO}
    ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    return "".join(json.dumps(message) + "\n" for message in (hello, ready)).encode()


def test_over_stdio_what_was_asked_is_answered_when_the_input_ends(
    workspace: Path, empty: str, mode: Mode, tmp_path: Path
) -> None:
    with running(workspace, empty) as (process, to, out):
        sent = "".join(json.dumps(call(mode, tmp_path, id)) + "\n" for id in (7, 8))
        os.write(to, greet(mode) + sent.encode())
        until((tmp_path / "begun").exists)
        os.close(to)
        (tmp_path / "open").touch()
        with open(out) as lines:
            answers = {message["id"]: message for message in map(json.loads, lines)}
        assert process.wait(PATIENCE) == 0
    for id in (7, 8):
        assert answers[id]["result"]["content"] == [{"type": "text", "text": "it is there"}]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=str)
def test_over_stdio_a_signal_ends_a_server_that_waits_for_input(
    workspace: Path, empty: str, number: signal.Signals, tmp_path: Path
) -> None:
    with running(workspace, empty) as (process, to, out):
        os.write(to, json.dumps(call("modern", tmp_path)).encode() + b"\n")
        until((tmp_path / "begun").exists)
        process.send_signal(number)
        assert process.wait(PATIENCE) == (130 if number == signal.SIGINT else -signal.SIGTERM)
        os.close(to)
        os.close(out)
