"""The ledger with a run loop of the test's own: a replica, its turns, and what the tables hold of them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text

from agent_server.caller import Caller
from agent_server.calls.call import Runtime, call_tool
from agent_server.conversations.items import BODY
from agent_server.db import Database, new_id
from agent_server.settings import load_settings
from agent_server.tool import Tool
from agent_server.turns.accept import Accepted, Message, accept
from agent_server.turns.attempt import Attempt, Outcome, Run
from agent_server.turns.calls import CallLedger
from agent_server.turns.earlier import read_earlier, read_numbered
from agent_server.turns.events import Numbered
from agent_server.turns.hub import Hub
from agent_server.turns.models import Turn
from agent_server.turns.places import Place
from agent_server.turns.replica import Replica as Process
from agent_server.turns.runner import Runner
from agent_server.turns.writer import TurnWriter
from tests.conftest import everything

SETTINGS = load_settings(environment="test", tool_timeout=20.0)


@dataclass
class Replica:
    """One process of several: its own hub and runner, the database in common."""

    database: Database
    hub: Hub
    runner: Runner

    async def accept(self, caller: Caller, message: str = "hello", **more: Any) -> Accepted:
        """Accept a message, and do nothing about its turn."""
        with self.runner.arriving(caller.id) as place:
            return await self._accept(caller, place, message, **more)

    async def send(self, caller: Caller, message: str = "hello", **more: Any) -> Turn:
        """What POST /api/chat does with a message."""
        with self.runner.arriving(caller.id, at_once=more.get("at_once")) as place:
            accepted = await self._accept(caller, place, message, **more)
            self.runner.take_up(place, accepted)
        return accepted.turn

    async def _accept(
        self,
        caller: Caller,
        place: Place,
        message: str,
        *,
        queue_limit: int = 5,
        at_once: int | None = None,
        **more: Any,
    ) -> Accepted:
        return await accept(
            self.database,
            caller,
            Message(text=message, **more),
            replica=self.runner.replica.id,
            queue_limit=queue_limit,
            can_run=place.has_slot,
            at_once=at_once,
            turn_id=place.turn_id,
            format=self.runner.replica.format,
        )

    async def read_to_the_end(self, turn: Turn, after: int = 0) -> list[Numbered]:
        """Follow the turn until it has ended."""
        async with asyncio.timeout(30):
            events = self.hub.follow(turn.owner_id, turn.id, after)
            return [numbered async for numbered in events if numbered is not None]

    async def writer(self, turn: Turn) -> TurnWriter:
        """The writer of an attempt under the turn's present epoch."""
        row = await read_turn(self.database, turn)
        return TurnWriter(
            database=self.database,
            hub=self.hub,
            owner_id=row.owner_id,
            conversation_id=row.conversation_id,
            turn_id=row.id,
            turn_no=row.turn_no,
            epoch=row.epoch,
            format=self.runner.replica.format,
            earlier=await read_earlier(self.database, owner_id=row.owner_id, turn_id=row.id),
        )


@asynccontextmanager
async def replica(database: Database, run: Run, **more: Any) -> AsyncIterator[Replica]:
    """A replica that runs turns by `run`."""
    process = Process(database)
    hub = Hub(database, send=process.send)
    runner = Runner(database, process, hub, run, **more)
    await runner.start()
    try:
        yield Replica(database, hub, runner)
    finally:
        await runner.close()


async def answer(_: Attempt) -> Outcome:
    """The shortest run loop."""
    return Outcome("assistant")


async def never(_: Attempt) -> Outcome:
    """A run loop that hangs."""
    await asyncio.Event().wait()
    raise AssertionError


def call(database: Database, attempt: Attempt, tool: Tool[..., Any], call_id: str = "call_1", **arguments: Any) -> Any:
    """Call a tool as the run loop does, through the attempt's ledger."""
    return call_tool(
        Runtime(settings=SETTINGS, database=database),
        tool,
        arguments,
        caller=attempt.caller,
        surface="agent",
        ledger=CallLedger(writer=attempt.writer, call_id=call_id, name=tool.name, effect=tool.effect, args_sha=b""),
    )


async def kill(database: Database, turn: Turn) -> None:
    """What the others see when the replica that runs `turn` is dead: an owner that does not beat."""
    async with everything(database) as session:
        statement = text("update turn set owner = :nobody where id = :id and status = 'running'")
        await session.execute(statement, {"nobody": new_id(), "id": turn.id})


async def read_turn(database: Database, turn: Turn) -> Turn:
    async with everything(database) as session:
        return await session.get_one(Turn, (turn.owner_id, turn.id))


async def read_log(database: Database, turn: Turn) -> list[Numbered]:
    """The events of a turn, as the table has them."""
    async with everything(database) as session:
        return list(await read_numbered(session, owner_id=turn.owner_id, turn_id=turn.id))


async def bodies(database: Database, conversation_id: UUID) -> list[dict[str, Any]]:
    """The bodies of a conversation's items, in order."""
    async with everything(database) as session:
        statement = text(f"select {BODY} from item i where conversation_id = :id order by turn_no, k")  # our own
        return list((await session.execute(statement, {"id": conversation_id})).scalars())


async def count(database: Database, table: str) -> int:
    async with everything(database) as session:
        return int((await session.execute(text(f"select count(*) from {table}"))).scalar_one())


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a row of another connection, which has no event."""
    pause = 0.02
    async with asyncio.timeout(30):
        while not await condition():
            await asyncio.sleep(pause)
            pause = min(pause * 1.2, 0.1)  # to ask takes more of the processor than most of what is waited for


async def ended(database: Database, *turns: Turn) -> bool:
    return all([(await read_turn(database, turn)).finished_at is not None for turn in turns])
