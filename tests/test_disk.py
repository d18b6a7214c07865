"""A database whose disk is full: what is stored can be read, what cannot be stored is refused, and nothing is lost."""

import asyncio
import os
import random
import string
import subprocess
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from agent_server.db import Database
from tests.conftest import database_url, execute
from tests.scripted import Say, scripted_openai
from tests.server import starter
from tests.turns.ledger import count, until

SIZE = 64 << 20
ANSWER = "".join(random.Random(0).choices(string.ascii_letters, k=400_000))
"""Too long for what is left over in a table's last page, and not to be compressed."""


@dataclass
class Disk:
    """A disk of 64 MiB with one database on it."""

    folder: Path
    url: str

    def fill(self) -> None:
        """Leave not a byte."""
        with (self.folder / "ballast").open("wb", buffering=0) as ballast:
            try:
                while ballast.write(bytes(4096)):
                    pass
            except OSError:
                return

    def free(self) -> None:
        (self.folder / "ballast").unlink()


def mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"a small disk is needed here, which takes root: {done.stderr}"


@pytest.fixture
def disk(postgres: str, stocked_template: str) -> Iterator[Disk]:
    # The tables' disk, not that of the write-ahead log: for want of that Postgres stops, which is being away.
    folder, name = Path(tempfile.mkdtemp(prefix="disk")), f"small_{uuid4().hex}"
    data = Path(postgres.rpartition("?host=")[2])
    mount("-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder))
    try:
        (folder / "tables").mkdir()
        for path in (folder, folder / "tables"):
            os.chown(path, data.stat().st_uid, data.stat().st_gid)
        asyncio.run(
            execute(
                postgres,
                f"create tablespace {name} location '{folder / 'tables'}'",
                f"create database {name} template {stocked_template} tablespace {name}",
            )
        )
        yield Disk(folder, database_url(postgres, name))
        asyncio.run(execute(postgres, f"drop database {name} with (force)", f"drop tablespace {name}"))
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
async def database(disk: Disk) -> AsyncIterator[Database]:
    database = Database(disk.url)
    yield database
    await database.close()


async def test_on_a_full_disk_reads_go_on_writes_are_refused_and_with_room_again_every_message_is_answered_once(
    disk: Disk, database: Database
) -> None:
    go_on = asyncio.Event()
    long = " ".join(ANSWER[n : n + 100] for n in range(0, len(ANSWER), 100))

    def script(request: dict[str, object]) -> Say:
        held = "begun before" in str(request["messages"])
        return Say(long, hold=(2, go_on)) if held else Say("Fins float.")

    async def send(message: str) -> httpx.Response:
        headers = {**client.auth, "Idempotency-Key": message[:20]}
        body = {"message": message, "agent": "tasks"}
        async with client.http.stream("POST", "/api/chat", json=body, headers=headers) as response:
            if response.status_code != 200:
                await response.aread()
        return response

    async with scripted_openai(script) as model, starter(database)(openai_base_url=model.url, model="m") as client:
        begun = await send("begun before")
        turn, conversation = begun.headers["X-Turn-Id"], begun.headers["X-Conversation-Id"]
        disk.fill()
        sent = ["begun before"]
        while (response := await send(f"{len(sent)} ".ljust(1_900, "x"))).status_code == 200:
            sent.append(f"{len(sent)} ".ljust(1_900, "x"))  # into what is left over in the last pages
        assert response.status_code == 503, response.text
        assert response.headers["Retry-After"]
        go_on.set()
        asked = len(model.requests)

        async def asked_again() -> bool:
            return len(model.requests) > asked

        await until(asked_again)  # for what could not be kept
        assert (await client.http.get("/health")).status_code == 200
        assert (await client.get(f"/api/turns/{turn}"))["status"] == "running"
        assert (await client.get(f"/api/conversations/{conversation}/messages"))["items"][0]["text"] == "begun before"

        disk.free()
        sent.append(f"{len(sent)} ".ljust(1_900, "x"))
        assert (await send(sent[-1])).status_code == 200

        async def all_done() -> bool:
            return await count(database, "turn where status <> 'done'") == 0

        await until(all_done)
        async with database.transaction() as session:
            said = (await session.execute(text("select role, text from item where role is not null"))).all()
            attempts = (await session.execute(text("select distinct attempts from turn"))).scalars().all()
        assert Counter(tuple(row) for row in said) == Counter(
            {("assistant", long): 1, ("assistant", "Fins float."): len(sent) - 1, **{("user", one): 1 for one in sent}}
        )
        assert attempts == [1]
