"""The disk is full: what is stored is still read, what is sent is refused with 503, and when there is room again the
same server goes on by itself.

It is the disk of the tables that is full, by a tablespace on a file system of a few megabytes. Without room for its log
Postgres stops, which is a database that is away (`http/test_database_away.py`).
"""

import asyncio
import os
import random
import shutil
import string
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from agent_server.db import Database
from agent_server.db.embedded import start_embedded
from agent_server.db.migrate import upgrade
from agent_server.testing import Call, Say, Step, scripted_openai
from tests.commands import PATIENCE
from tests.conftest import ROOT, database_url, execute, fetch
from tests.server import Client, starter
from tests.turns.ledger import until

MEGABYTES = 64
REFUSED_IN_A_ROW = 5
"""How many messages are refused before the disk counts as full: what has room in pages that are there is stored."""


def _noise(length: int) -> str:
    """A text that no compression makes room for."""
    return "".join(random.choices(string.ascii_letters + string.digits, k=length))


STORY = f"Once upon a time {_noise(30_000)}"


@dataclass(frozen=True)
class Disk:
    """A small file system, and the database whose tables are on it."""

    folder: Path
    url: str

    def fill(self) -> None:
        with self._ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(self.folder).free)

    def free(self) -> None:
        self._ballast.unlink()

    @property
    def _ballast(self) -> Path:
        return self.folder / "ballast"


@contextmanager
def _mounted(folder: Path) -> Iterator[None]:
    mount = ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m,mode=0755", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.fail(f"A small disk could not be mounted: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def disk() -> Iterator[Disk]:
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    server = start_embedded(folder)
    small = folder / "small"
    small.mkdir()
    with _mounted(small):
        tables, owner = small / "tables", (folder / "postgres").stat()
        tables.mkdir()
        os.chown(tables, owner.st_uid, owner.st_gid)
        create = (f"create tablespace small location '{tables}'", "create database small tablespace small")
        asyncio.run(execute(server, *create))
        yield Disk(small, database_url(server, "small"))
        asyncio.run(execute(server, "drop database small with (force)", "drop tablespace small"))
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.needs("mount")
async def test_on_a_full_disk_reads_go_on_writes_are_refused_and_all_goes_on_when_there_is_room(disk: Disk) -> None:
    database, held = Database(disk.url), asyncio.Event()
    await upgrade(database, ROOT)

    def script(request: dict[str, Any]) -> Step:
        last = request["messages"][-1]
        if last["role"] == "tool":
            return Say("It is on your list.")
        if last["content"] == "tell me":
            return Say(STORY, hold=(4, held))
        return Call("create_task", {"title": _title(last["content"])})

    with capture_logs() as logs:
        async with (
            scripted_openai(script) as model,
            starter(database)(openai_base_url=model.url, model="m") as client,
            asyncio.timeout(PATIENCE),
        ):
            before = await _send(client, "before")
            await until(lambda: _ended(client, before))
            running = await _send(client, "tell me")
            disk.fill()
            sent = await _send_until_refused(client)
            held.set()
            await until(lambda: _logged(logs, "turn.interrupted"))
            await _beaten(disk.url)
            assert await _said(client, before) == ["before", "It is on your list."]
            listed = [c["id"] for c in (await client.get("/api/conversations"))["items"]]
            assert {turn.headers["X-Conversation-Id"] for turn in (before, running)} <= set(listed)
            assert (await client.http.get("/readyz")).status_code == 200
            disk.free()
            for message in sent:
                sent[message] = await _send(client, message)
                assert sent[message].status_code == 200, sent[message].text
                await until(partial(_ended, client, sent[message]))
                assert await _said(client, sent[message]) == [message, "It is on your list."]
            await until(lambda: _ended(client, running))
            assert await _said(client, running) == ["tell me", STORY]
            assert (await client.get(f"/api/turns/{running.headers['X-Turn-Id']}"))["attempts"] == 1
            events = await client.http.get(f"/api/turns/{running.headers['X-Turn-Id']}/events", headers=client.auth)
            numbers = [int(line.rpartition(":")[2]) for line in events.text.splitlines() if line.startswith("id: ")]
            assert numbers == list(range(1, len(numbers) + 1))
    assert {line["event"] for line in logs} <= {"turn.interrupted", "database.unavailable"}
    await database.close()
    titles = [title for (title,) in await fetch(disk.url, "select title from task")]
    assert Counter(titles) == Counter(_title(message) for message in ("before", *sent))
    # every page is read, and its checksum with it
    await execute(disk.url, "vacuum (freeze, disable_page_skipping)")


def _title(message: str) -> str:
    return message[:20]


async def _send(client: Client, message: str) -> httpx.Response:
    """Send a message under a key of its own, and leave as soon as it is accepted or refused."""
    body, headers = {"message": message, "agent": "tasks"}, {**client.auth, "Idempotency-Key": _title(message)}
    async with client.http.stream("POST", "/api/chat", json=body, headers=headers) as response:
        if response.status_code != 200:
            await response.aread()
    return response


async def _send_until_refused(client: Client) -> dict[str, httpx.Response]:
    """What was sent, and how it was answered, until one after the other was refused."""
    answers: dict[str, httpx.Response] = {}
    refused = 0
    while refused < REFUSED_IN_A_ROW:
        message = _noise(2_000)
        answers[message] = response = await _send(client, message)
        refused = refused + 1 if response.status_code != 200 else 0
        if refused:
            assert response.status_code == 503, response.text
            assert response.json()["code"] == "unavailable"
            assert response.json()["detail"] == "The database has no room for this; try again later"
            assert response.headers["Retry-After"]
    return answers


async def _logged(logs: list[Any], event: str) -> bool:
    return any(line["event"] == event for line in logs)


async def _beaten(url: str) -> None:
    """Wait until the one replica has said that it lives, and has looked for turns to take, for a second."""
    [(began,)] = await fetch(url, "select now()")

    async def later() -> bool:
        [(beat,)] = await fetch(url, "select beat from replica")
        return bool(beat > began + timedelta(seconds=1))

    await until(later)


async def _said(client: Client, turn: httpx.Response) -> list[str]:
    messages = await client.get(f"/api/conversations/{turn.headers['X-Conversation-Id']}/messages")
    return [message["text"] for message in messages["items"]]


async def _ended(client: Client, turn: httpx.Response) -> bool:
    return (await client.get(f"/api/turns/{turn.headers['X-Turn-Id']}"))["finished_at"] is not None
