"""The conditions that servers live under: a crowd at a small pool, clients that read slowly or vanish, and clocks that are
wrong. Every turn ends, and nothing happens twice."""

import asyncio
import os
import shutil
import socket
import struct
from collections import Counter
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]
import pytest
from structlog.testing import capture_logs

from agent_server.db import Database
from agent_server.testing import Call, Say, Step, scripted_openai
from agent_server.turns.answer_log import FLUSH_SECONDS
from tests.commands import PATIENCE, Serving, serving
from tests.conftest import ROOT, fetch
from tests.needs import find_faketime
from tests.server import starter
from tests.sse import read_frames
from tests.turns.ledger import until

CROWD = 200


async def test_a_crowd_at_a_small_pool_is_told_to_come_again_and_each_message_is_answered_once(
    stocked_url: str,
) -> None:
    database = Database(stocked_url, pool_size=4, pool_timeout=1)
    # a connection that was kept may be closed by the server in the instant that it is used again
    limits = httpx.Limits(max_connections=CROWD, max_keepalive_connections=0)
    refused: Counter[int] = Counter()

    async def send(n: int) -> str:
        """As a client that heeds `Retry-After`."""
        body = {"message": f"fins {n}", "agent": "tasks", "stream": False}
        headers = {**client.auth, "Idempotency-Key": f"k{n}"}
        while True:
            response = await crowd.post("/api/chat", json=body, headers=headers)
            if response.status_code == 200:
                assert response.json()["status"] == "done", response.text
                return str(response.json()["turn_id"])
            assert response.status_code in (429, 503), response.text
            refused[response.status_code] += 1
            await asyncio.sleep(float(response.headers["Retry-After"]))

    async def watch(sent: asyncio.Future[list[str]]) -> None:
        while not sent.done():
            assert (await client.http.get("/health")).status_code == 200
            await asyncio.sleep(0.1)

    with capture_logs() as logs:
        async with (
            scripted_openai(lambda _: Say("Fins float.")) as model,
            starter(database)(openai_base_url=model.url, model="m", waiting_per_user=32) as client,
            httpx.AsyncClient(base_url=client.http.base_url, limits=limits, timeout=PATIENCE) as crowd,
            asyncio.timeout(PATIENCE),
        ):
            sent = asyncio.ensure_future(asyncio.gather(*(send(n) for n in range(CROWD))))
            await watch(sent)
            assert len(set(await sent)) == CROWD
            said = await fetch(stocked_url, "select role, text from item where role is not null")
    assert Counter(said) == Counter(
        {("assistant", "Fins float."): CROWD, **{("user", f"fins {n}"): 1 for n in range(CROWD)}}
    )
    assert refused, "nobody was told to come again: this shows nothing"
    assert not [line for line in logs if line["event"] == "turn.unended"]
    await database.close()


SLOW = 200
PIECES = 75
PIECE = 12_000
GROWTH = 50 << 20
"""How many bytes a process may grow by while nobody reads what it has to say: a copy for each would be 180 MB."""


async def test_clients_that_read_slowly_or_never_and_vanish_hold_up_nobody_and_fill_no_memory(stocked_url: str) -> None:
    database, process = Database(stocked_url), psutil.Process()
    go_on = asyncio.Event()
    words = " ".join(["w" * PIECE] * PIECES)

    async def read(turn: str) -> str:
        async with client.http.stream("GET", f"/api/turns/{turn}/events", headers=client.auth) as response:
            return "".join([f.data["text"] async for f in read_frames(response) if f.event == "text"])

    async def begin() -> tuple[str, str]:
        body = {"message": "fins", "agent": "tasks"}
        async with client.http.stream("POST", "/api/chat", json=body, headers=client.auth) as response:
            assert response.status_code == 200
            return response.headers["X-Turn-Id"], response.headers["X-Conversation-Id"]

    async with (
        scripted_openai([Say(words), Say(words, hold=(2, go_on), pause=FLUSH_SECONDS)]) as model,
        starter(database)(openai_base_url=model.url, model="m") as client,
    ):
        assert await read((await begin())[0]) == words  # what any such answer takes is taken before the count
        turn, conversation = await begin()
        tasks = len(asyncio.all_tasks())
        paths = (f"/api/turns/{turn}/events", f"/api/chat/{conversation}/stream")
        slow = [await _connect(client.http.base_url.port, paths[n % 2], client.auth) for n in range(SLOW)]
        assert len(asyncio.all_tasks()) >= tasks + SLOW
        before = process.memory_info().rss
        go_on.set()
        dawdling = [asyncio.create_task(_dawdle(link)) for link in slow[: SLOW // 2]]
        assert await read(turn) == words
        assert (await client.get(f"/api/turns/{turn}"))["status"] == "done"
        assert process.memory_info().rss - before < GROWTH
        assert len(asyncio.all_tasks()) >= tasks + SLOW  # they are still being answered
        for task in dawdling:
            task.cancel()
        for link in slow:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            link.close()

        async def forgotten() -> bool:
            return len(asyncio.all_tasks()) <= tasks

        await until(forgotten)
        assert await read(turn) == words
    await database.close()


async def _connect(port: int | None, path: str, headers: dict[str, str]) -> socket.socket:
    """A client that has asked for `path`, has seen that it is being answered, and has next to no buffer."""
    loop, link = asyncio.get_running_loop(), socket.socket()
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the least that the system gives
    link.setblocking(False)
    await loop.sock_connect(link, ("127.0.0.1", port))
    lines = [f"GET {path} HTTP/1.1", "Host: localhost", *(f"{name}: {value}" for name, value in headers.items())]
    await loop.sock_sendall(link, "\r\n".join([*lines, "", ""]).encode())
    assert await loop.sock_recv(link, 12) == b"HTTP/1.1 200"
    return link


async def _dawdle(link: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while await loop.sock_recv(link, 1):  # noqa: ASYNC110
        await asyncio.sleep(0.05)


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    """The reference workspace, where servers may write the key that they share."""
    for folder in ("tools", "prompts", "content", "migrations"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def _clock(offset: str, folder: Path) -> dict[str, str]:
    """The variables of a process whose clock is wrong by `offset`; the clock that only counts is left alone.

    The library changes how long threads and uvloop wait, too: what a server imports beside its work is there before, and
    no uvloop.
    """
    library = find_faketime()
    assert library is not None
    before = "import sys\nsys.modules['uvloop'] = None\nimport agent_server.orchestrator.run\n"
    (folder / "sitecustomize.py").write_text(before)
    more = {"PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])}
    # Its own remedy for the clock that only counts would end at once each wait of a thread for Python's lock.
    counting = {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_FORCE_MONOTONIC_FIX": "0"}
    return {"LD_PRELOAD": library, "FAKETIME": offset, **counting, **more}


@pytest.mark.needs("faketime")
async def test_replicas_whose_clocks_are_two_hours_apart_leave_each_other_their_turns(
    reference: Path, stocked_url: str, tmp_path: Path
) -> None:
    loop, held = asyncio.get_running_loop(), asyncio.Event()
    (without := tmp_path / "without").mkdir()

    def script(request: dict[str, Any]) -> Step:
        last = request["messages"][-1]
        if last["role"] == "tool":
            return Say("It is on your list.", hold=(2, held))
        return Call("create_task", {"title": last["content"]})

    def run(variables: dict[str, str]) -> bool:
        """Returns whether a replica got no time to say that it lives: then it rightly loses its turns."""
        with ExitStack() as stack:
            fast, slow = (
                stack.enter_context(serving(reference, stocked_url, **variables, **_clock(offset, without)))
                for offset in ("+1h", "-1h")
            )
            assert _now(fast) - _now(slow) > 7_000
            conversation: dict[str, str] = {}
            turns = []
            for n, server in enumerate((fast, slow, fast, slow)):
                turn = _send(server, f"task {n}", **conversation)
                conversation = {"id": turn.headers["X-Conversation-Id"]}
                turns.append(turn.headers["X-Turn-Id"])
                again = _send((slow, fast)[n % 2], f"task {n}", **(conversation if n else {}))
                assert again.headers["X-Turn-Id"] == turns[-1]
            other = _send(slow, "task 4").headers["X-Turn-Id"]  # one that runs on each
            _wait_for_beats(loop, stocked_url)
            loop.call_soon_threadsafe(held.set)
            for turn_id in (*turns, other):
                for server in (fast, slow):
                    assert "event: done" in server.http.get(f"/api/turns/{turn_id}/events").text
            for server in (fast, slow):
                listed = server.get(f"/api/conversations/{conversation['id']}/messages")["items"]
                assert [m["text"] for m in listed if m["role"] == "user"] == [f"task {n}" for n in range(4)]
            logs = fast.ended() + slow.ended()
            return "database.direct_lost" in logs or "replica.silent" in logs

    async with scripted_openai(script) as model:
        starved = await asyncio.to_thread(run, {"OPENAI_BASE_URL": model.url, "AGENT_SERVER_MODEL": "scripted"})
    # those that waited were claimed once
    epochs = await fetch(stocked_url, "select input ->> 'message', status, epoch, attempts from turn order by 1")
    assert starved or epochs == [(f"task {n}", "done", 1 if n in (0, 4) else 2, 1) for n in range(5)]
    assert {status for _, status, _, _ in epochs} == {"done"}
    assert Counter(await fetch(stocked_url, "select title from task")) == Counter((f"task {n}",) for n in range(5))


def _now(server: Serving) -> float:
    """What time the server thinks it is."""
    return datetime.fromisoformat(server.get("/health")["timestamp"]).timestamp()


def _send(server: Serving, message: str, **body: str) -> httpx.Response:
    """Send a message, under a key of its own, and leave as soon as it is accepted."""
    json, key = {"message": message, "agent": "tasks", **body}, {"Idempotency-Key": message}
    with server.http.stream("POST", "/api/chat", json=json, headers=key) as response:
        assert response.status_code == 200, response.read()
    return response


def _wait_for_beats(loop: asyncio.AbstractEventLoop, url: str) -> None:
    """Until both replicas have beaten, and swept, several times."""

    async def waited() -> None:
        began = await fetch(url, "select now()")

        async def beaten() -> bool:
            beats = await fetch(url, "select beat from replica")
            return len(beats) == 2 and all(beat > began[0][0] + timedelta(seconds=2) for (beat,) in beats)

        await until(beaten)

    asyncio.run_coroutine_threadsafe(waited(), loop).result(PATIENCE)
