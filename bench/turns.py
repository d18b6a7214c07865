"""What the ledger costs a turn: the run loop of the Agents SDK alone in memory, and the same turns through the ledger.

    python -m bench.turns [--rounds N] [--profile]

The model is a script in the process: it asks for tools, then answers in 60 pieces. CPU is this process's, Postgres's
is not in it; the rounds of both kinds alternate, and the medians are printed. Conversations are of ten turns, and each
turn is given those before it. `--profile` prints where the time of a turn of 4 calls and 4 tools goes.
"""

import argparse
import asyncio
import cProfile
import gc
import json
import pstats
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
from agents import Agent, FunctionTool, RunConfig, Runner
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

from agent_server import ToolContext, tool
from agent_server.caller import Caller
from agent_server.calls.call import Runtime
from agent_server.db import Database, new_id
from agent_server.knowledge.embedders.wordllama import WordLlama
from agent_server.log import configure_logging
from agent_server.models.choice import ModelChoice
from agent_server.models.providers import Models
from agent_server.orchestrator.run import Orchestrator
from agent_server.prompts import AgentPrompt
from agent_server.settings import load_settings
from agent_server.turns.accept import Message, accept
from agent_server.turns.hub import Hub
from agent_server.turns.replica import Replica
from agent_server.turns.runner import Runner as TurnRunner
from agent_server.workspace import Workspace
from bench.postgres import fresh_database
from bench.table import print_table

LENGTH = 10
"""Turns of a conversation."""
CONVERSATIONS = 2
"""In a round."""
MESSAGE = "What is on my list for Friday, and is the blue one still there?"
WORDS = [f"word{i} " for i in range(60)]
OUTPUT = {"title": "The blue one", "done": False, "notes": "x" * 200}
LEDGER = ("conversation", "turn", "item", "event", "model_call", "tool_call", "audit")

SHAPES: dict[str, tuple[int, ...]] = {
    "1 call, no tool": (),
    "2 calls, 1 tool": (1,),
    "4 calls, 4 tools": (2, 1, 1),
}
"""How many tools each model call asks for, before the one that answers."""


@tool(scope="list:read", effect="stored")
async def look_up(context: ToolContext, title: str) -> dict[str, Any]:
    """Look an entry up."""
    return OUTPUT


class Scripted(Model):
    """Asks for tools as its shape has it, then answers."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    async def get_response(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    async def stream_response(
        self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any
    ) -> AsyncIterator[Any]:
        answered = 0
        for item in reversed(input):
            if item.get("role") == "user":
                break
            answered += item.get("type") == "function_call_output"
        asked = 0
        for many in self.shape:
            if asked == answered:
                yield _completed([_call() for _ in range(many)])
                return
            asked += many
        for word in WORDS:
            yield ResponseTextDeltaEvent(
                content_index=0,
                delta=word,
                item_id="m",
                logprobs=[],
                output_index=0,
                sequence_number=0,
                type="response.output_text.delta",
            )
        said = ResponseOutputText(annotations=[], text="".join(WORDS), type="output_text")
        yield _completed(
            [ResponseOutputMessage(id="m", content=[said], role="assistant", status="completed", type="message")]
        )


def _call() -> ResponseFunctionToolCall:
    return ResponseFunctionToolCall(
        call_id=f"call_{new_id().hex}", name=look_up.name, arguments='{"title": "the blue one"}', type="function_call"
    )


def _completed(output: list[Any]) -> ResponseCompletedEvent:
    response = Response(
        id="r",
        created_at=0,
        model="scripted",
        object="response",
        output=output,
        parallel_tool_calls=True,
        tool_choice="auto",
        tools=[],
    )
    return ResponseCompletedEvent(response=response, sequence_number=0, type="response.completed")


class ScriptedModels(Models):
    """Every name is the script."""

    model: Scripted

    async def get(self, name: str) -> Model:
        return self.model


PROMPT = AgentPrompt(
    name="assistant",
    description="Looks things up.",
    tools=(look_up.name,),
    knowledge=(),
    model=None,
    examples=(),
    handoffs=(),
    body="You look things up.\n",
    sha="bench",
    file="prompts/assistant.md",
)


class Bare:
    """The run loop alone: no database, the history in a list."""

    def __init__(self, model: Scripted) -> None:
        async def invoke(_: Any, arguments: str) -> str:
            json.loads(arguments)
            return json.dumps(OUTPUT)

        function = FunctionTool(
            name=look_up.name,
            description=look_up.description,
            params_json_schema=look_up.input_schema,
            on_invoke_tool=invoke,
            strict_json_schema=False,
        )
        self.agent = Agent[None](name="assistant", instructions=PROMPT.body, tools=[function], model=model)

    async def talk(self) -> None:
        history: list[Any] = []
        for _ in range(LENGTH):
            result = Runner.run_streamed(
                self.agent,
                [*history, {"role": "user", "content": MESSAGE}],
                run_config=RunConfig(tracing_disabled=True),
            )
            async for _event in result.stream_events():
                pass
            history = result.to_input_list()[-40:]


@dataclass
class Ours:
    """The same through the ledger: accepted, run, followed to the end."""

    database: Database
    hub: Hub
    runner: TurnRunner
    caller: Caller

    async def talk(self) -> None:
        conversation: UUID | None = None
        for _ in range(LENGTH):
            conversation = await self.answer(conversation)

    async def answer(self, conversation: UUID | None) -> UUID:
        """One turn; returns the conversation's id."""
        message = Message(text=MESSAGE, conversation_id=conversation, client_key=new_id().hex)
        accepted = await accept(
            self.database, self.caller, message, replica=self.runner.replica.id, queue_limit=5, can_run=True
        )
        self.runner.begin(accepted.turn)
        kinds = [n.event.kind async for n in self.hub.follow(self.caller.id, accepted.turn.id) if n is not None]
        assert kinds[-1] == "done", kinds
        return accepted.turn.conversation_id


@asynccontextmanager
async def ledger(
    url: str, model: Scripted, caller_id: UUID | None = None, *, hints: bool = True
) -> AsyncIterator[Ours]:
    settings, database, embedder = load_settings(environment="test"), Database(url), WordLlama()
    workspace = Workspace(
        root=Path("."), name="bench", tools={look_up.name: look_up}, agents={PROMPT.name: PROMPT}, entry=PROMPT.name
    )
    models = ScriptedModels(settings)
    models.model = model
    runtime = Runtime(settings=settings, database=database)
    orchestrator = Orchestrator(runtime, workspace, models, ModelChoice("openai/scripted"), embedder)
    replica = Replica(database)
    hub = Hub(database, send=replica.signals.send if hints else None)
    runner = TurnRunner(database, replica, hub, orchestrator.run)
    await runner.start()
    try:
        yield Ours(database, hub, runner, Caller(id=caller_id or new_id(), kind="user", scopes=frozenset({"*"})))
    finally:
        await runner.close()
        await database.close()


async def cpu_ms(work: Callable[[], Awaitable[object]], times: int) -> float:
    """CPU of this process, ms for each of `times`."""
    gc.collect()
    began = time.process_time()
    for _ in range(times):
        await work()
    return (time.process_time() - began) * 1000 / times


async def cost(url: str, rounds: int) -> None:
    """CPU per turn, bare and through the ledger."""
    model, rows = Scripted(()), []
    bare = Bare(model)
    async with ledger(url, model) as ours:
        for name, shape in SHAPES.items():
            model.shape = shape
            pairs: list[tuple[float, float]] = []
            for round in range(rounds + 1):
                alone = await cpu_ms(bare.talk, CONVERSATIONS) / LENGTH
                pairs.append((alone, await cpu_ms(ours.talk, CONVERSATIONS) / LENGTH))
                print(f"\r{name}: round {round} of {rounds} ", end="", file=sys.stderr)
            floor, through = (statistics.median(column) for column in zip(*pairs[1:], strict=True))
            extra = statistics.median(through - alone for alone, through in pairs[1:])
            rows.append((name, f"{floor:.1f}", f"{through:.1f}", f"{extra:.1f}", f"{through / floor:.2f}"))
        idle = time.process_time()
        await asyncio.sleep(4)
        idle = (time.process_time() - idle) * 1000 / 4
    head = ("turn", "run loop in memory, CPU ms", "through the ledger, CPU ms", "the ledger, CPU ms", "ratio")
    print_table("What a turn costs", head, rows)
    print(f"\nA replica that does nothing uses {idle:.1f} CPU ms a second (heartbeat, sweep).")


async def writes(url: str, turns: int = 20) -> None:
    """What a turn writes, and how many statements it takes.

    A transaction that writes is one that Postgres gave a number; rows are what its statistics have counted, which is
    everything once the connections are closed. Heartbeats, sweeps, hints and autovacuum are left out.
    """
    await _execute(url, "alter system set autovacuum = off", "select pg_reload_conf()")
    rows = []
    for name, shape in SHAPES.items():
        for place, later in (("first", False), ("later", True)):
            rows.append((f"{name}; {place} turn of a conversation", *await _writes(url, Scripted(shape), turns, later)))
    head = ("turn", "write transactions", "rows (inserted + updated)", "all transactions", "statements", "which rows")
    print_table("What a turn writes", head, rows)


async def _writes(url: str, model: Scripted, turns: int, later: bool) -> tuple[str, ...]:
    async with ledger(url, model) as ours:
        conversations = [await ours.answer(None) if later else None for _ in range(turns)]
        caller_id = ours.caller.id
    before = await _rows(url)
    async with ledger(url, model, caller_id, hints=False) as ours:  # a NOTIFY takes a transaction number, too
        statements, transactions = count_of_turns(ours.database)
        written = -await _transaction_number(url)
        for conversation in conversations:
            await ours.answer(conversation)
        written += await _transaction_number(url)
        took = len(transactions) / turns, len(statements) / turns
    grown = {key: value - before.get(key, 0) for key, value in (await _rows(url)).items()}
    tables = [t for t in LEDGER if grown[f"{t} ins"] or grown[f"{t} upd"]]
    inserted, updated = (sum(grown[f"{t} {what}"] for t in tables) / turns for what in ("ins", "upd"))
    return (
        f"{(written - grown['replica upd']) / turns:g}",
        f"{inserted + updated:g} ({inserted:g} + {updated:g})",
        *(f"{each:g}" for each in took),
        ", ".join(f"{t} {grown[f'{t} ins'] / turns:g} + {grown[f'{t} upd'] / turns:g}" for t in tables),
    )


def count_of_turns(database: Database) -> tuple[list[str], list[str]]:
    """Lists that grow with each statement and each commit, those of heartbeats and sweeps left out."""
    statements: list[str] = []
    transactions: list[str] = []

    def executed(_: Any, __: Any, statement: str, *___: Any) -> None:
        if not _in_background():
            statements.append(statement)

    def committed(_: Any) -> None:
        if not _in_background():
            transactions.append("commit")

    event.listen(database.pool.sync_engine, "before_cursor_execute", executed)
    event.listen(database.pool.sync_engine, "commit", committed)
    return statements, transactions


def _in_background() -> bool:
    task = asyncio.current_task()
    return task is not None and getattr(task.get_coro(), "__name__", "") == "_every"


async def _transaction_number(url: str) -> int:
    connection = await asyncpg.connect(url)
    number = int(await connection.fetchval("select pg_snapshot_xmax(pg_current_snapshot())::text"))
    await connection.close()
    return number


async def _rows(url: str) -> dict[str, int]:
    connection = await asyncpg.connect(url)
    found: dict[str, int] = {}
    for row in await connection.fetch("select relname, n_tup_ins, n_tup_upd from pg_stat_user_tables"):
        found |= {f"{row['relname']} {what}": row[f"n_tup_{what}"] for what in ("ins", "upd")}
    await connection.close()
    return found


async def _execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


async def driver(url: str, rounds: int, times: int = 300) -> None:
    """What one transaction costs this process, by who sends it."""
    database = Database(url)
    statement = text("select status, epoch from turn where owner_id = :owner and id = :id")
    values = {"owner": new_id(), "id": new_id()}
    connection = await asyncpg.connect(url)
    sql = "select status, epoch from turn where owner_id = $1 and id = $2"

    async def one() -> None:
        async with database.transaction(values["owner_id"]) as session:
            (await session.execute(statement, values)).one_or_none()

    async def two() -> None:
        async with database.transaction(values["owner_id"]) as session:
            (await session.execute(statement, values)).one_or_none()
            (await session.execute(statement, values)).one_or_none()

    async def through_engine() -> None:
        async with database.pool.begin() as on:
            (await on.execute(statement, values)).one_or_none()

    async def bare() -> None:
        async with connection.transaction():
            await connection.fetchrow(sql, *values.values())

    ways = {
        "Database.transaction()": one,
        "the same with two statements": two,
        "pool.begin()": through_engine,
        "asyncpg": bare,
    }
    figures: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, work in ways.items():
            figures[name].append(await cpu_ms(work, times))
    await connection.close()
    await database.close()
    rows = [(name, f"{statistics.median(values):.3f}") for name, values in figures.items()]
    print_table("A transaction of one statement", ("by", "CPU ms"), rows)


async def profile(url: str) -> None:
    """Where the time of a turn of 4 calls and 4 tools goes."""
    async with ledger(url, Scripted(SHAPES["4 calls, 4 tools"])) as ours:
        await ours.talk()
        profiler = cProfile.Profile()
        profiler.enable()
        for _ in range(CONVERSATIONS):
            await ours.talk()
        profiler.disable()
    pstats.Stats(profiler).sort_stats("tottime").print_stats(45).sort_stats("cumtime").print_stats(
        "agent_server|sqlalchemy.*(asyncpg|session|pool/base)|agents/run"
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--profile", action="store_true")
    chosen = options.parse_args()
    configure_logging("WARNING", "console")
    with fresh_database() as url:
        if chosen.profile:
            asyncio.run(profile(url))
            return
        asyncio.run(cost(url, chosen.rounds))
        asyncio.run(writes(url))
        asyncio.run(driver(url, chosen.rounds))


if __name__ == "__main__":
    main()
