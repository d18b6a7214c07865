"""Processes that come and go: SIGTERM, rolling restarts, several workers, a load balancer; no turn is lost or done twice."""

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from agent_server.heartbeat import LOCK_SPACE
from agent_server.testing import Call, Say, ScriptedOpenAI, Step, scripted_openai
from tests.commands import PATIENCE, Serving, serving
from tests.conftest import ROOT, fetch
from tests.needs import find_program
from tests.server import Start
from tests.sse import read_frames
from tests.test_serve import until

NGINX = find_program("nginx")
ANSWER = "It is on your list."


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    """The reference workspace, where the server may write its key."""
    for folder in ("tools", "prompts", "content", "migrations"):
        shutil.copytree(ROOT / folder, tmp_path / "reference" / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "reference"


@asynccontextmanager
async def listing(held: asyncio.Event) -> AsyncIterator[ScriptedOpenAI]:
    """A model that puts what it is told on the list and says so; of that it says two words before `held` is set."""

    def answer(request: dict[str, Any]) -> Step:
        last = request["messages"][-1]
        if last["role"] == "tool":
            return Say(ANSWER, hold=(2, held))
        return Call("create_task", {"title": last["content"]})

    async with scripted_openai(answer) as model:
        yield model


def variables(model: ScriptedOpenAI, **more: str) -> dict[str, str]:
    return {"OPENAI_BASE_URL": model.url, "AGENT_SERVER_MODEL": "scripted", **more}


@contextmanager
def asked(server: Serving, message: str) -> Iterator[tuple[httpx.Response, Iterator[str]]]:
    """A message whose answer has begun: the response, and the rest of its lines."""
    with server.http.stream("POST", "/api/chat", json={"message": message, "agent": "tasks"}) as response:
        lines = response.iter_lines()
        for line in lines:
            if '"It' in line:
                break
        yield response, lines


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    return asyncio.run(fetch(url, query))


LOCKS = f"select count(*) from pg_locks where locktype = 'advisory' and classid = {LOCK_SPACE} and granted"
TURNS = "select status, attempts from turn"
TASKS = "select title from task"
ANSWERS = "select text from item where role = 'assistant' and text <> ''"


async def test_told_to_stop_a_server_says_so_and_finishes_what_it_is_saying(reference: Path, stocked_url: str) -> None:
    held, loop = asyncio.Event(), asyncio.get_running_loop()

    def run(model: ScriptedOpenAI) -> None:
        with serving(reference, stocked_url, **variables(model)) as server:
            with asked(server, "Service the regulator") as (_, lines):
                server.process.terminate()
                until(lambda: httpx.get(f"{server.http.base_url}/readyz").status_code == 503)
                assert httpx.get(f"{server.http.base_url}/health").status_code == 200
                loop.call_soon_threadsafe(held.set)
                rest = "\n".join(lines)
            assert rest.rstrip().endswith("data: [DONE]")
            assert server.process.wait(PATIENCE) == 0

    async with listing(held) as model:
        await asyncio.to_thread(run, model)
    assert await asyncio.to_thread(rows, stocked_url, TURNS) == [("done", 1)]
    assert await asyncio.to_thread(rows, stocked_url, ANSWERS) == [(ANSWER,)]


@pytest.mark.parametrize("patience", ["0", "600"])
async def test_what_a_stopping_server_cannot_finish_another_does_at_once(
    patience: str, reference: Path, stocked_url: str
) -> None:
    held, loop = asyncio.Event(), asyncio.get_running_loop()

    def run(model: ScriptedOpenAI) -> None:
        told = variables(model, AGENT_SERVER_DRAIN_SECONDS=patience)
        with serving(reference, stocked_url, **told) as one, serving(reference, stocked_url, **told) as two:
            with asked(one, "Service the regulator") as (response, lines):
                one.process.terminate()
                if patience != "0":
                    one.wait_for("Stopping. Answers that are being given have 600 s")
                    one.process.terminate()  # whoever says it twice is in a hurry
                assert "[DONE]" not in "".join(lines)
            assert one.process.wait(PATIENCE) == 0
            loop.call_soon_threadsafe(held.set)
            last = until(lambda: two.get(f"/api/turns/{response.headers['X-Turn-Id']}")["finished_at"])
            assert last
            events = two.http.get(f"/api/turns/{response.headers['X-Turn-Id']}/events").text
            assert "event: reset" in events
            assert events.count("event: done") == 1

    async with listing(held) as model:
        await asyncio.to_thread(run, model)
    assert await asyncio.to_thread(rows, stocked_url, TURNS) == [("done", 1)], "a hand-over is no failed attempt"
    assert await asyncio.to_thread(rows, stocked_url, TASKS) == [("Service the regulator",)]
    assert await asyncio.to_thread(rows, stocked_url, ANSWERS) == [(ANSWER,)]


async def test_a_rolling_restart_under_a_trickle_of_turns_loses_none(reference: Path, stocked_url: str) -> None:
    held = asyncio.Event()
    held.set()

    def run(model: ScriptedOpenAI) -> int:
        told, ports = variables(model, AGENT_SERVER_DRAIN_SECONDS="0.1"), [free_port(), free_port()]
        stop = threading.Event()
        answered: list[str] = []

        def trickle(key: str) -> None:
            while not stop.is_set():
                answered.append(ask_any(ports, key, f"Task {len(answered)}"))

        with serving(reference, stocked_url, "--port", str(ports[0]), **told) as one:
            sender = threading.Thread(target=trickle, args=(one.http.headers["Authorization"],))
            with serving(reference, stocked_url, "--port", str(ports[1]), **told) as two:
                sender.start()
                until(lambda: len(answered) > 2)
                assert one.end(signal.SIGTERM) == 0
                before = len(answered)
                until(lambda: len(answered) > before + 2)
                with serving(reference, stocked_url, "--port", str(ports[0]), **told):
                    assert two.end(signal.SIGTERM) == 0
                    before = len(answered)
                    until(lambda: len(answered) > before + 2)
                    stop.set()
                    sender.join()
        assert answered == [ANSWER] * len(answered)
        return len(answered)

    async with listing(held) as model:
        turns = await asyncio.to_thread(run, model)
    states = await asyncio.to_thread(rows, stocked_url, TURNS)
    assert [status for status, _ in states] == ["done"] * turns
    assert sorted(await asyncio.to_thread(rows, stocked_url, TASKS)) == sorted((f"Task {i}",) for i in range(turns))
    assert await asyncio.to_thread(rows, stocked_url, ANSWERS) == [(ANSWER,)] * turns


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask_any(ports: list[int], authorization: str, message: str) -> str:
    """Send a message to whichever server takes it, under one key, until there is an answer."""
    headers = {"Authorization": authorization, "Idempotency-Key": uuid4().hex}
    give_up = time.monotonic() + PATIENCE
    for attempt in range(10_000):
        assert time.monotonic() < give_up, "nobody answers"
        url = f"http://127.0.0.1:{ports[attempt % 2]}/api/chat"
        try:
            body = {"message": message, "agent": "tasks", "stream": False}
            response = httpx.post(url, json=body, headers=headers, timeout=PATIENCE)
        except httpx.TransportError:
            continue
        if response.status_code == 503:
            continue
        assert response.status_code == 200, response.text
        if response.json()["status"] == "done":
            return str(response.json()["text"])
    raise AssertionError


def workers_of(server: Serving) -> set[int]:
    """The processes that the server started to serve."""
    return find_workers(server)[1]


def find_workers(server: Serving) -> tuple[int, set[int]]:
    """The process that those which serve were forked from, and those."""
    listed = subprocess.run(
        ["ps", "-A", "-ww", "-o", "pid=,ppid=,command="], capture_output=True, text=True, check=True
    )
    found = [line.split(maxsplit=2) for line in listed.stdout.splitlines()]
    ours = [pid for pid, parent, *rest in found if int(parent) == server.process.pid and "forkserver" in str(rest)]
    return int(ours[0]) if ours else 0, {int(pid) for pid, parent, *_ in found if parent in ours}


async def test_workers_share_a_port_and_one_that_is_killed_is_replaced(reference: Path, stocked_url: str) -> None:
    held, loop = asyncio.Event(), asyncio.get_running_loop()

    def run(model: ScriptedOpenAI) -> None:
        with serving(reference, stocked_url, "--workers", "2", **variables(model)) as server:
            first, second = until(lambda: len(found := workers_of(server)) == 2 and found)
            with asked(server, "Service the regulator") as (response, _):
                for killed in (first, second):  # one of them runs the turn
                    os.kill(killed, signal.SIGKILL)
                    until(lambda killed=killed: len(found := workers_of(server)) == 2 and killed not in found)  # type: ignore[misc]
            loop.call_soon_threadsafe(held.set)
            until(lambda: server.get(f"/api/turns/{response.headers['X-Turn-Id']}")["finished_at"])
            assert "".join(server.written).count(" is ready") == 1

            held.clear()
            until(lambda: rows(stocked_url, LOCKS) == [(2,)])  # those that took their places are ready
            with asked(server, "Rinse the mask") as (_, lines):
                serve = workers_of(server)
                server.process.terminate()
                for _ in serve:
                    server.wait_for("Stopping. ")
                for worker in serve:  # systemd tells them all, so that they hear it twice
                    os.kill(worker, signal.SIGTERM)
                    server.wait_for("Stopping. ")
                loop.call_soon_threadsafe(held.set)
                assert "data: [DONE]" in "".join(lines)
            assert server.process.wait(PATIENCE) == 0

    async with listing(held) as model:
        await asyncio.to_thread(run, model)
    assert [status for status, _ in await asyncio.to_thread(rows, stocked_url, TURNS)] == ["done", "done"]
    tasks = await asyncio.to_thread(rows, stocked_url, TASKS)
    assert sorted(tasks) == [("Rinse the mask",), ("Service the regulator",)]


def refused(server: Serving) -> bool:
    try:
        server.http.get("/health")
    except httpx.ConnectError:
        return True
    return False


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_the_process_that_started_them(by: signal.Signals, reference: Path, stocked_url: str) -> None:
    with serving(reference, stocked_url, "--workers", "2", AGENT_SERVER_MODEL="offline") as server:
        assert server.get("/health")["status"] == "ok"
        server.process.send_signal(by)
        assert server.process.wait(PATIENCE) == (130 if by == signal.SIGINT else -signal.SIGKILL)
        until(lambda: refused(server))


def test_workers_are_replaced_when_the_process_is_gone_that_they_were_forked_from(
    reference: Path, stocked_url: str
) -> None:
    with serving(reference, stocked_url, "--workers", "2", AGENT_SERVER_MODEL="offline") as server:
        forks, before = until(lambda: len((found := find_workers(server))[1]) == 2 and found)
        until(lambda: rows(stocked_url, LOCKS) == [(2,)])
        os.kill(forks, signal.SIGTERM)  # to the whole group, say: it stays
        assert server.get("/health")["status"] == "ok"
        assert find_workers(server) == (forks, before)
        os.kill(forks, signal.SIGKILL)
        until(lambda: len((found := find_workers(server))[1] - before) == 2 and found[0] != forks)
        for worker in before:
            until(lambda worker=worker: not Path(f"/proc/{worker}").exists())  # type: ignore[misc]
        assert until(lambda: server.get("/health"))["status"] == "ok"


@asynccontextmanager
async def nginx(*replicas: httpx.URL) -> AsyncIterator[str]:
    """The nginx that docs/deploy.md shows, in front of these; its address."""
    assert NGINX is not None
    shown = re.search("```nginx\n(.*?)```", (ROOT / "docs" / "deploy.md").read_text(), re.DOTALL)
    assert shown is not None
    port = free_port()
    site = shown[1].replace("listen 80;", f"listen 127.0.0.1:{port};")
    for number, replica in enumerate(replicas, 1):
        site = site.replace(f"10.0.0.{number}:8000", f"{replica.host}:{replica.port}")
    folder = Path(tempfile.mkdtemp(prefix="nginx"))
    folders = "".join(
        f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off;\npid {folder}/pid;\nerror_log stderr crit;\nevents {{}}\nhttp {{\naccess_log off;\n{folders}{site}}}\n"
    )
    arguments = ("-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf"))
    process = await asyncio.create_subprocess_exec(NGINX, *arguments)
    try:
        await asyncio.to_thread(until, lambda: httpx.get(f"http://127.0.0.1:{port}/health"))
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()
        shutil.rmtree(folder)


@pytest.mark.needs("nginx")
async def test_behind_a_load_balancer_a_stream_is_resumed_on_whichever_replica_comes(start: Start) -> None:
    held = asyncio.Event()
    async with (
        listing(held) as model,
        start(openai_base_url=model.url, model="scripted") as one,
        start(openai_base_url=model.url, model="scripted") as two,
        nginx(one.http.base_url, two.http.base_url) as base,
        httpx.AsyncClient(base_url=base, headers=one.auth, timeout=PATIENCE) as http,
    ):
        body = {"message": "Service the regulator", "agent": "tasks"}
        async with http.stream("POST", "/api/chat", json=body) as response:
            turn = response.headers["X-Turn-Id"]
            async for frame in read_frames(response):
                if '"It' in frame.raw:  # not held back: the model has not said more yet
                    break
        ids: list[str] = []
        for _ in range(4):  # round robin: each replica is asked twice
            last = {"Last-Event-ID": ids[-1]} if ids else {}
            async with http.stream("GET", f"/api/turns/{turn}/events", headers=last) as response:
                if len(ids) > 2:
                    held.set()
                async for frame in read_frames(response):
                    ids.append(str(frame.id))
                    if not held.is_set():
                        break
        assert frame.event == "done"
        assert ids == [f"{turn}:{number}" for number in range(1, len(ids) + 1)]
