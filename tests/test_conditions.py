"""The conditions that servers live under: a crowd at a small pool, clients that read slowly or vanish, clocks that are
wrong, and a link to Postgres that is slow, cut, or half-open. Every turn ends, and nothing happens twice."""

import asyncio
import shutil
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psutil  # type: ignore[import-untyped]
import pytest
from sqlalchemy import text
from sqlmodel import col, select
from structlog.testing import capture_logs

from agent_server.conversations.models import Conversation, Item
from agent_server.conversations.repository import ConversationRepository
from agent_server.db import Database
from agent_server.errors import Unavailable
from agent_server.identity import Caller
from agent_server.tool import ToolContext, tool
from agent_server.turns.events import Numbered, TextDelta, TextDone
from agent_server.turns.journal import NewItem
from agent_server.turns.liveness import ALIVE
from agent_server.turns.models import Turn
from agent_server.turns.runner import Attempt, Outcome
from tests.commands import PATIENCE, Serving, serving
from tests.conftest import ROOT
from tests.proxy import Proxy, proxied
from tests.scripted import Call, Say, Step, scripted_openai
from tests.server import starter
from tests.sse import read_frames
from tests.turns.ledger import Replica, call, count, ended, read_turn, replica, until

CROWD = 200


async def test_a_crowd_at_a_small_pool_is_told_to_come_again_and_each_message_is_answered_once(
    stocked_url: str,
) -> None:
    database = Database(stocked_url, pool_size=4, pool_timeout=0.3)
    refused: Counter[int] = Counter()

    async def send(n: int) -> str:
        """As a client that heeds `Retry-After`, and sends again what was broken off: a connection that was kept."""
        body = {"message": f"fins {n}", "agent": "tasks", "stream": False}
        headers = {**client.auth, "Idempotency-Key": f"k{n}"}
        while True:
            try:
                response = await crowd.post("/api/chat", json=body, headers=headers)
            except httpx.TransportError:
                continue
            if response.status_code == 200:
                assert response.json()["status"] == "done", response.text
                return str(response.json()["turn_id"])
            assert response.status_code in (429, 503), response.text
            refused[response.status_code] += 1
            await asyncio.sleep(float(response.headers["Retry-After"]))

    async def watch(sent: asyncio.Future[list[str]]) -> None:
        connection = await asyncpg.connect(stocked_url)
        try:
            while not sent.done():
                assert (await client.http.get("/health")).status_code == 200
                alive = {row["id"] for row in await connection.fetch(ALIVE)}
                assert alive == {client.server.runner.replica}
                await asyncio.sleep(0.1)
        finally:
            await connection.close()

    with capture_logs() as logs:
        async with (
            scripted_openai(lambda _: Say("Fins float.")) as model,
            starter(database)(openai_base_url=model.url, model="m") as client,
            httpx.AsyncClient(
                base_url=client.http.base_url, limits=httpx.Limits(max_connections=CROWD), timeout=PATIENCE
            ) as crowd,
            asyncio.timeout(PATIENCE),
        ):
            sent = asyncio.ensure_future(asyncio.gather(*(send(n) for n in range(CROWD))))
            await watch(sent)
            assert len(set(await sent)) == CROWD
            said = await rows(stocked_url, "select role, text from item where role is not null")
    assert Counter(said) == Counter(
        {("assistant", "Fins float."): CROWD, **{("user", f"fins {n}"): 1 for n in range(CROWD)}}
    )
    assert refused, "the pool was never full: this shows nothing"
    assert not [line for line in logs if line["event"] in ("replica.silent", "turn.unended")]
    await database.close()


async def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


SLOW = 100
WORDS = 450
GROWTH = 50 << 20
"""How many bytes a process may grow by while nobody reads what it has to say: a copy for each would be 90 MB."""


async def test_clients_that_read_slowly_or_never_and_vanish_hold_up_nobody_and_fill_no_memory(stocked_url: str) -> None:
    database, process = Database(stocked_url), psutil.Process()
    go_on = asyncio.Event()
    go_on.set()
    words = " ".join(["w" * 2_000] * WORDS)

    async def read(turn: str) -> str:
        async with client.http.stream("GET", f"/api/turns/{turn}/events", headers=client.auth) as response:
            return "".join([f.data["text"] async for f in read_frames(response) if f.event == "text"])

    async def begin(agent: str = "tasks") -> tuple[str, str]:
        async with client.http.stream(
            "POST", "/api/chat", json={"message": "fins", "agent": agent}, headers=client.auth
        ) as response:
            assert response.status_code == 200
            return response.headers["X-Turn-Id"], response.headers["X-Conversation-Id"]

    async with (
        scripted_openai(lambda _: Say(words, hold=(2, go_on))) as model,
        starter(database)(openai_base_url=model.url, model="m") as client,
    ):
        port = client.http.base_url.port
        assert port is not None
        assert await read((await begin())[0]) == words  # what any such answer takes is taken before the count
        go_on.clear()
        turn, conversation = await begin()
        paths = (f"/api/turns/{turn}/events", f"/api/chat/{conversation}/stream")
        slow = [await _connect(port, paths[n % 2], client.auth) for n in range(SLOW)]
        before = process.memory_info().rss
        go_on.set()
        dawdling = [asyncio.create_task(_dawdle(link)) for link in slow[: SLOW // 2]]
        assert await read(turn) == words
        assert (await client.get(f"/api/turns/{turn}"))["status"] == "done"
        assert all(link.fileno() >= 0 for link in slow)
        assert process.memory_info().rss - before < GROWTH
        for task in dawdling:
            task.cancel()
        for link in slow:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            link.close()

        async def forgotten() -> bool:
            ours = [c for c in process.net_connections("tcp") if c.laddr.port == port and c.status == "ESTABLISHED"]
            return len(ours) <= 1  # the patient client's

        await until(forgotten)
        assert await read(turn) == words
    await database.close()


async def _connect(port: int, path: str, headers: dict[str, str]) -> socket.socket:
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


def _clock(offset: str) -> dict[str, str]:
    """The variables of a process whose clock is wrong by `offset`; the clock that only counts is left alone."""
    library = next(Path("/usr/lib").glob("**/faketime/libfaketimeMT.so.1"), None)
    assert library is not None, "there is no libfaketime: install it with `apt-get install faketime`"
    return {"LD_PRELOAD": str(library), "FAKETIME": offset, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


async def test_replicas_whose_clocks_are_two_hours_apart_leave_each_other_their_turns(
    reference: Path, stocked_url: str
) -> None:
    loop, held = asyncio.get_running_loop(), asyncio.Event()

    def script(request: dict[str, Any]) -> Step:
        last = request["messages"][-1]
        if last["role"] == "tool":
            return Say("It is on your list.", hold=(2, held))
        return Call("create_task", {"title": last["content"]})

    def run(variables: dict[str, str]) -> None:
        with ExitStack() as stack:
            fast, slow = (
                stack.enter_context(serving(reference, stocked_url, **variables, **_clock(offset)))
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
                assert not [line for line in server.written if "replica.silent" in line or "turn.fenced" in line]

    async with scripted_openai(script) as model:
        await asyncio.to_thread(run, {"OPENAI_BASE_URL": model.url, "AGENT_SERVER_MODEL": "scripted"})
    # those that waited were claimed once
    epochs = await rows(stocked_url, "select input ->> 'message', status, epoch, attempts from turn order by 1")
    assert epochs == [(f"task {n}", "done", 1 if n in (0, 4) else 2, 1) for n in range(5)]
    assert Counter(await rows(stocked_url, "select title from task")) == Counter((f"task {n}",) for n in range(5))


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
        began = await rows(url, "select now()")

        async def beaten() -> bool:
            beats = await rows(url, "select beat from replica")
            return len(beats) == 2 and all(beat > began[0][0] + timedelta(seconds=2) for (beat,) in beats)

        await until(beaten)

    asyncio.run_coroutine_threadsafe(waited(), loop).result(PATIENCE)


@tool(scope="conversations:write", effect="stored")
async def note_down(context: ToolContext) -> str:
    """Leave a row in this database."""
    await context.repository(ConversationRepository).add(Conversation(title="noted"))
    return "noted"


NOTES = "conversation where title = 'noted'"


@dataclass
class Talk:
    """One replica's run: half an answer, whatever `meanwhile` does, the rest of it, and a tool."""

    database: Database
    meanwhile: Callable[[Attempt], Awaitable[None]] | None = None
    cancelled: int = 0
    ran: list[int] = field(default_factory=list)
    """The epochs of the attempts."""

    async def __call__(self, attempt: Attempt) -> Outcome:
        journal = attempt.journal
        self.ran.append(journal.epoch)
        answered = await journal.model_calls() if attempt.resumed else {}
        if not answered:
            await journal.append(TextDelta(1, "Fins "))
            try:
                if self.meanwhile is not None:
                    await self.meanwhile(attempt)
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            await journal.record_model_call(
                1,
                agent="assistant",
                request_sha=b"",
                response={},
                events=[TextDelta(1, "float."), TextDone(1)],
                items=[NewItem({"role": "assistant", "content": "Fins float."}, role="assistant", text="Fins float.")],
            )
        await call(self.database, attempt, note_down)
        return Outcome("assistant")


@dataclass
class Pair:
    """Two replicas on one database: one behind `proxy`, one that reaches it directly."""

    proxy: Proxy
    behind: Replica
    behind_talk: Talk
    direct: Replica
    direct_talk: Talk

    async def is_answered_once(self, *turns: Turn) -> None:
        """Wait until the turns have ended, and look at what is left of them."""
        database = self.direct.database
        await until(lambda: ended(database, *turns))
        for turn in turns:
            assert (await read_turn(database, turn)).status == "done"
            assert await _said(database, turn) == [turn.input["message"], "Fins float."]
            events = await self.events(turn)
            assert [event.seq for event in events] == list(range(1, len(events) + 1))
            assert Counter(event.event.kind for event in events)["done"] == 1
        assert await count(database, NOTES) == len(turns)

    async def events(self, turn: Turn) -> list[Numbered]:
        return await (await self.direct.journal(turn)).events()

    async def serves_again(self, me: Caller) -> list[Turn]:
        """Wait until the replica behind the proxy is known to live, and takes a message and what waits behind it, with
        the other one on its way out; returns their turns."""
        before = len(self.behind_talk.ran)
        await until(self._alive)
        await self.direct.runner.drain(0)
        sent: list[Turn] = []

        async def taken() -> bool:
            with suppress(Unavailable):
                sent.append(await self.behind.send(me, "again", client_key="again"))
            return bool(sent)

        await until(taken)
        sent.append(await self.behind.send(me, "and again", conversation_id=sent[0].conversation_id))
        await until(lambda: ended(self.direct.database, *sent))
        assert len(self.behind_talk.ran) == before + 2
        return sent

    async def _alive(self) -> bool:
        async with self.direct.database.transaction() as session:
            return self.behind.runner.replica in set((await session.execute(text(ALIVE))).scalars())


async def _said(database: Database, turn: Turn) -> list[str]:
    async with database.transaction() as session:
        said = select(Item.text).where(col(Item.turn_id) == turn.id, col(Item.role).is_not(None))
        return [str(text) for text in (await session.execute(said.order_by(col(Item.k)))).scalars()]


@pytest.fixture
async def pair(url: str, database: Database) -> AsyncIterator[Pair]:
    async with proxied(url) as proxy:
        far = Database(proxy.url, pool_timeout=2, answer_timeout=3)
        behind, direct = Talk(far), Talk(database)
        async with replica(far, behind) as one, replica(database, direct) as two:
            await asyncio.gather(*(count(far, "turn") for _ in range(8)))  # the pool is full of connections
            yield Pair(proxy, one, behind, two, direct)
            proxy.heal()
        await far.close()


async def test_over_a_slow_link_turns_are_answered_by_the_replica_that_took_them(pair: Pair, me: Caller) -> None:
    pair.proxy.latency = 0.1
    turns = await asyncio.gather(*(pair.behind.send(me, f"Fins {n}") for n in range(4)))
    await pair.is_answered_once(*turns)
    assert [(await read_turn(pair.direct.database, turn)).epoch for turn in turns] == [1, 1, 1, 1]
    assert pair.direct_talk.ran == []


async def _held_behind(pair: Pair, me: Caller, gate: asyncio.Event) -> Turn:
    """A turn that the replica behind the proxy has half answered, and goes on with when `gate` is open."""
    reached = asyncio.Event()

    async def hold(_: Attempt) -> None:
        reached.set()
        await gate.wait()

    pair.behind_talk.meanwhile = hold
    turn = await pair.behind.send(me, "fins")
    async with asyncio.timeout(30):
        await reached.wait()
    pair.behind_talk.meanwhile = None
    return turn


async def test_a_replica_that_is_cut_off_stops_its_turns_another_ends_them_and_later_it_serves_again(
    pair: Pair, me: Caller
) -> None:
    turn = await _held_behind(pair, me, asyncio.Event())
    pair.proxy.cut()
    with pytest.raises(Unavailable):
        await pair.behind.send(me)
    await pair.is_answered_once(turn)
    assert pair.direct_talk.ran == [2]

    async def stopped() -> bool:
        return pair.behind_talk.cancelled == 1

    await until(stopped)
    pair.proxy.heal()
    await pair.is_answered_once(turn, *await pair.serves_again(me))


async def test_a_replica_that_comes_back_to_a_turn_that_another_has_ended_writes_nothing(
    pair: Pair, me: Caller
) -> None:
    gate = asyncio.Event()
    turn = await _held_behind(pair, me, gate)
    pair.proxy.cut()
    await pair.is_answered_once(turn)
    before = await pair.events(turn)
    pair.proxy.heal()
    gate.set()
    await pair.is_answered_once(turn, *await pair.serves_again(me))
    assert await pair.events(turn) == before


@pytest.mark.parametrize("lost", [False, True], ids=["held up", "lost"])
async def test_a_replica_on_a_half_open_link_stops_its_turns_another_ends_them_and_later_it_serves_again(
    lost: bool, pair: Pair, me: Caller
) -> None:
    turn = await _held_behind(pair, me, asyncio.Event())
    pair.proxy.hang()
    await pair.is_answered_once(turn)
    assert pair.direct_talk.ran == [2]

    async def stopped() -> bool:
        return pair.behind_talk.cancelled == 1

    await until(stopped)
    if lost:
        pair.proxy.lose()
    pair.proxy.heal()
    await pair.is_answered_once(turn, *await pair.serves_again(me))


async def test_a_write_that_a_half_open_link_holds_back_neither_keeps_the_turn_nor_comes_later(
    pair: Pair, me: Caller
) -> None:
    hung = asyncio.Event()

    async def write(attempt: Attempt) -> None:
        async with pair.behind.database.transaction() as session:
            await attempt.journal.write(session, [TextDelta(1, "or ")])
            pair.proxy.hang()  # the row is locked, and the commit stays on its way
            hung.set()

    pair.behind_talk.meanwhile = write
    turn = await pair.behind.send(me, "fins")
    async with asyncio.timeout(30):
        await hung.wait()
    pair.behind_talk.meanwhile = None
    await pair.is_answered_once(turn)
    before = await pair.events(turn)
    pair.proxy.heal()
    await pair.is_answered_once(turn, *await pair.serves_again(me))
    assert await pair.events(turn) == before


async def test_on_a_half_open_link_a_request_is_told_that_the_database_is_away(pair: Pair, me: Caller) -> None:
    pair.proxy.hang()
    async with asyncio.timeout(60):
        answers = await asyncio.gather(*(pair.behind.send(me) for _ in range(10)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {Unavailable}
