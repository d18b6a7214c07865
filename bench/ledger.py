"""What the turn ledger costs, and how soon others hear and take over: `python -m bench.ledger [PART...]`

    overhead   CPU of a turn through the ledger against the same run loop in memory; its transactions and rows
    followers  from commit to each of 1, 100 and 1,000 readers of another replica, over one connection
    idle       memory of a stream on which nothing happens
    recovery   from the kill -9 of a process until another has taken its turn

Ratios and differences within one run; CPU in milliseconds of this process, of a median of interleaved rounds.
"""

import asyncio
import gc
import os
import random
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import psutil
from agents import Agent, FunctionTool, RunConfig
from agents import Runner as Loop
from agents.models.interface import Model
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseTextDeltaEvent,
)
from sqlalchemy import event, text

from agent_server.app import create_server
from agent_server.db import Database, new_id
from agent_server.db.embedded import start_embedded
from agent_server.db.migrate import create_tables, missing_tables, upgrade
from agent_server.http.server import Server
from agent_server.identity import Caller
from agent_server.log import configure_logging
from agent_server.orchestrator.models import Models
from agent_server.settings import load_settings
from agent_server.turns.accept import Message, accept
from agent_server.turns.events import TextDelta
from agent_server.turns.hub import Hub
from agent_server.turns.runner import Attempt, Outcome, Runner
from agent_server.workspace import load_workspace
from tests.commands import serving
from tests.scripted import Say, scripted_openai

ROOT = Path(__file__).parent.parent
ROUNDS, TURNS = 7, 30
WORDS = ("It", "is", "on", "your", "list,", "and", "the", "list", "is", "short.")
TOOL = '''"""One tool, which stores a row."""

from sqlmodel import Field

from agent_server import Owned, Repository, ToolContext, tool


class Note(Owned, table=True):
    __tablename__ = "note"
    text: str = Field()


class NoteRepository(Repository[Note]):
    model = Note


@tool(scope="notes:write", effect="stored")
async def note(context: ToolContext, text: str) -> str:
    """Keep a note."""
    await context.repository(NoteRepository).add(Note(text=text))
    return "kept"
'''
PROMPT = """---
name: keeper
description: Keeps notes.
tools: [note]
knowledge: []
examples: [Keep a note]
---
You keep notes.
"""


class Scripted(Model):
    """Asks for `tools` tools in as many calls, then says something; it goes by what it is given, and so replays."""

    def __init__(self, tools: int) -> None:
        self.tools = tools

    async def get_response(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    async def stream_response(self, _: Any, input: Any, *__: Any, **___: Any) -> AsyncIterator[Any]:
        done = sum(item.get("type") == "function_call_output" for item in input) if isinstance(input, list) else 0
        output: list[Any] = []
        if done < self.tools:
            arguments = f'{{"text": "note {done}"}}'
            output = [
                ResponseFunctionToolCall(
                    arguments=arguments, call_id=f"call_{uuid4().hex}", name="note", type="function_call"
                )
            ]
        else:
            for n, word in enumerate(WORDS):
                yield ResponseTextDeltaEvent(
                    content_index=0,
                    delta=f"{word} ",
                    item_id="m",
                    output_index=0,
                    sequence_number=n,
                    type="response.output_text.delta",
                    logprobs=[],
                )
            said = ResponseOutputText(annotations=[], text=" ".join(WORDS), type="output_text")
            output = [
                ResponseOutputMessage(id="m", content=[said], role="assistant", status="completed", type="message")
            ]
        response = Response(
            id="r",
            created_at=0,
            model="scripted",
            object="response",
            output=output,
            tool_choice="auto",
            tools=[],
            parallel_tool_calls=False,
        )
        yield ResponseCompletedEvent(response=response, sequence_number=99, type="response.completed")


class ScriptedModels(Models):
    """The scripted model, whatever is asked for."""

    model: Model

    async def get(self, name: str) -> Model:
        return self.model


@asynccontextmanager
async def empty(server: str, workspace: Path = ROOT) -> AsyncIterator[str]:
    """The URL of a database of its own, migrated for a workspace."""
    name = f"bench_{uuid4().hex}"
    admin = await asyncpg.connect(server)
    await admin.execute(f"create database {name}")
    url = server.replace("/postgres?", f"/{name}?")
    database = Database(url)
    await upgrade(database, workspace)
    await database.close()
    try:
        yield url
    finally:
        await admin.execute(f"drop database {name} with (force)")
        await admin.close()


async def overhead(server: str) -> None:
    """CPU per turn: the run loop in memory, the same through accept, journal, tools on record, finish and a reader."""
    folder = Path(tempfile.mkdtemp(prefix="bench"))
    for path, content in {"tools/notes.py": TOOL, "prompts/keeper.md": PROMPT}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    (folder / "content").mkdir()
    async with empty(server) as url:
        database = Database(url)
        parts = create_server(
            load_settings(environment="test", model="scripted", openai_base_url="http://127.0.0.1:1/v1"),
            load_workspace(folder),
            database,
        )
        async with database.engine.begin() as connection:
            tables = await connection.run_sync(missing_tables)
            await connection.run_sync(create_tables, tables)
        models = ScriptedModels(parts.settings)
        orchestrator: Any = vars(parts.runner)["_run"].__self__
        orchestrator.models = models
        await parts.runner.start()
        print("\na turn of            in memory   through the ledger   difference, CPU ms   write transactions   rows")
        for tools, name in ((0, "1 call, no tool"), (1, "2 calls, 1 tool"), (4, "5 calls, 4 tools")):
            models.model = Scripted(tools)
            await _compare(name, parts, models.model, database)
        await parts.runner.close()
        await database.close()


async def _compare(name: str, parts: Server, model: Model, database: Database) -> None:
    caller = Caller(id=new_id(), kind="user", scopes=frozenset({"*"}))

    async def kept(_: Any, __: str) -> str:
        return "kept"

    schema = parts.workspace.tools["note"].input_schema
    tool = FunctionTool(name="note", description="Keep a note.", params_json_schema=schema, on_invoke_tool=kept)
    agent = Agent(name="keeper", instructions="You keep notes.", tools=[tool], model=model)

    async def in_memory() -> None:
        result = Loop.run_streamed(agent, "Keep four notes", run_config=RunConfig(tracing_disabled=True))
        async for _ in result.stream_events():
            pass

    async def durable() -> None:
        turn = (await parts.accept(caller, Message(text="Keep four notes"))).turn
        events = [n.event.kind async for n in parts.hub.follow(turn.owner_id, turn.id) if n]
        assert events[-1] == "done", events

    for _ in range(5):
        await in_memory()
        await durable()
    gc.collect()
    gc.freeze()
    plain, through = [], []
    for _ in range(ROUNDS):
        plain.append(await _cpu(in_memory))
        through.append(await _cpu(durable))
    rows, writes = await _written(database, durable)
    a, b = statistics.median(plain), statistics.median(through)
    print(f"{name:<20} {a:>9.2f}   {b:>18.2f}   {b - a:>18.2f}   {writes:>18}   {rows:>4}")


async def _cpu(work: Callable[[], Awaitable[None]]) -> float:
    began = time.process_time()
    for _ in range(TURNS):
        await work()
    return (time.process_time() - began) * 1000 / TURNS


async def _written(database: Database, work: Callable[[], Awaitable[None]]) -> tuple[int, int]:
    """Rows that one turn leaves, and transactions that write: those with an insert, an update or a delete."""
    wrote: set[int] = set()
    count = 0
    pool = vars(database)["_pool"].sync_engine

    def statement(connection: Any, _: Any, sql: str, *__: Any) -> None:
        words = sql.lower()
        if "replica" not in words and any(f"{verb} " in words for verb in ("insert into", "update", "delete from")):
            wrote.add(id(connection))

    def committed(connection: Any) -> None:
        nonlocal count
        count += id(connection) in wrote
        wrote.discard(id(connection))

    async def rows() -> int:
        tables = ("turn", "item", "event", "model_call", "tool_call", "audit", "conversation", "note")
        async with database.transaction() as session:
            counted = " + ".join(f"(select count(*) from {table})" for table in tables)
            return int((await session.execute(text(f"select {counted}"))).scalar_one())

    before = await rows()
    event.listen(pool, "before_cursor_execute", statement)
    event.listen(pool, "commit", committed)
    await work()
    event.remove(pool, "before_cursor_execute", statement)
    event.remove(pool, "commit", committed)
    return await rows() - before, count


async def followers(server: str) -> None:
    """One replica writes 40 events, 50 ms apart; readers of another one, in this same process."""
    print("\nreaders   connections that listen   p50 ms   p95 ms   deliveries")
    for readers in (1, 100, 1000):
        async with empty(server) as url:
            await _follow(readers, Database(url), Database(url))


async def _follow(readers: int, one: Database, other: Database) -> None:
    go_on, delays = asyncio.Event(), []

    async def run(attempt: Attempt) -> Outcome:
        await go_on.wait()
        for _ in range(40):
            await attempt.journal.append(TextDelta(1, str(time.perf_counter())))
            await asyncio.sleep(0.05)
        return Outcome()

    here, there = Hub(one), Hub(other)
    writer, listener = Runner(one, here, run), Runner(other, there, run)
    await writer.start()
    await listener.start()
    caller = Caller(id=new_id(), kind="user", scopes=frozenset())
    turn = (await accept(one, caller, Message(text="x"), replica=writer.replica, queue_limit=5, can_run=True)).turn
    writer.begin(turn)

    async def read() -> None:
        async for numbered in there.follow(turn.owner_id, turn.id):
            if numbered and isinstance(numbered.event, TextDelta):
                delays.append((time.perf_counter() - float(numbered.event.text)) * 1000)

    reading = [asyncio.create_task(read()) for _ in range(readers)]
    await asyncio.sleep(1.5)
    async with one.transaction() as session:
        listen = "select count(*) from pg_stat_activity where datname = current_database() and query ilike 'listen%'"
        listening = max(1, int((await session.execute(text(listen))).scalar_one()))
    go_on.set()
    await asyncio.gather(*reading)
    await writer.close()
    await listener.close()
    await one.close()
    await other.close()
    print(f"{readers:>7}   {listening:>23}   {_at(delays, 0.5):>6.2f}   {_at(delays, 0.95):>6.2f}   {len(delays):>10}")


async def idle(server: str) -> None:
    """A thousand streams of one turn whose model says nothing, held by one server process."""
    streams = 1000
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    workspace = Path(tempfile.mkdtemp(prefix="bench")) / "workspace"
    init = [sys.executable, "-m", "agent_server", "init", str(workspace)]
    await asyncio.to_thread(subprocess.run, init, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    hold = Say("a b", hold=(1, asyncio.Event()))
    async with empty(server, workspace) as url, scripted_openai([hold]) as model:
        with serving(workspace, url, OPENAI_BASE_URL=model.url, AGENT_SERVER_MODEL="m") as process:
            base, auth = process.http.base_url, process.http.headers["Authorization"]
            async with httpx.AsyncClient(base_url=str(base), headers={"Authorization": auth}, timeout=60) as http:
                sending = asyncio.create_task(http.post("/api/chat", json={"message": "hello", "stream": False}))
                await asyncio.sleep(2)
                conversations = (await http.get("/api/conversations")).json()["items"]
                path = f"/api/chat/{conversations[0]['id']}/stream"
                memory = psutil.Process(process.process.pid)
                writers = [await _open(base.host, base.port, path, auth) for _ in range(20)]
                await asyncio.sleep(1)
                before = memory.memory_info().rss
                writers += [await _open(base.host, base.port, path, auth) for _ in range(streams)]
                await asyncio.sleep(3)
                each = (memory.memory_info().rss - before) / streams / 1000
                connections = await _connections(url)
                for writer in writers:
                    writer.close()
                sending.cancel()
    print(f"\nan idle stream takes {each:.1f} kB; {streams} of them and their server hold {connections} connections")


async def _open(host: str, port: int | None, path: str, auth: str) -> asyncio.StreamWriter:
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: {auth}\r\n\r\n".encode())
    await reader.readline()
    return writer


async def _connections(url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        of_the_server = (
            "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        )
        return int(await connection.fetchval(of_the_server))
    finally:
        await connection.close()


async def recovery(server: str) -> None:
    """A process that runs a turn is killed; another, which sweeps, takes the turn."""
    print("\nrecovery, s           kills    p50    p95    max")
    for name, kills, forget in (("by the lock", 50, "select 1"), ("by the heartbeat", 10, _WITHOUT_LOCKS)):
        async with empty(server) as url:
            connection = await asyncpg.connect(url)
            await connection.execute(forget)
            await connection.close()
            times = [await _recover(url) for _ in range(kills)]
            print(f"{name:<20} {kills:>6}   {_at(times, 0.5):.2f}   {_at(times, 0.95):.2f}   {max(times):.2f}")


_WITHOUT_LOCKS = """
    create function forget() returns trigger language plpgsql as $$ begin new.lock_key = null; return new; end $$;
    create trigger forget before insert or update on replica for each row execute function forget()"""


async def _recover(url: str) -> float:
    taken: asyncio.Queue[float] = asyncio.Queue()

    async def take(_: Attempt) -> Outcome:
        taken.put_nowait(time.perf_counter())
        return Outcome()

    victim = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.ledger", "victim", url, cwd=ROOT)
    connection = await asyncpg.connect(url)
    while not await connection.fetchval("select count(*) from turn where status = 'running'"):  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    await connection.close()
    database = Database(url)
    runner = Runner(database, Hub(database), take)
    await runner.start()
    await asyncio.sleep(0.5 + random.random())  # the sweeps and heartbeats are to be met at any moment
    killed = time.perf_counter()
    os.kill(victim.pid, signal.SIGKILL)
    after = await taken.get() - killed
    await victim.wait()
    await runner.close()
    await database.close()
    return after


async def _victim(url: str) -> None:
    async def hang(_: Attempt) -> Outcome:
        await asyncio.Event().wait()
        raise AssertionError

    database = Database(url)
    runner = Runner(database, Hub(database), hang)
    await runner.start()
    caller = Caller(id=UUID(int=7), kind="user", scopes=frozenset())
    made = await accept(database, caller, Message(text="x"), replica=runner.replica, queue_limit=5, can_run=True)
    runner.begin(made.turn)
    await asyncio.Event().wait()


def _at(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


PARTS = {"overhead": overhead, "followers": followers, "idle": idle, "recovery": recovery}


def main(arguments: Sequence[str]) -> None:
    configure_logging("ERROR", "console")
    if arguments[:1] == ["victim"]:
        asyncio.run(_victim(arguments[1]))
        return
    server = start_embedded(Path(tempfile.mkdtemp(prefix="bench")))
    for name in arguments or PARTS:
        asyncio.run(PARTS[name](server))


if __name__ == "__main__":
    main(sys.argv[1:])
