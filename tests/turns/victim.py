"""A process that answers one turn and can be held at any point of it: `python -m tests.turns.victim URL CALLER EFFECT`.

The run does what the orchestrator does: it asks for a response, journals it, calls the tool that the response names,
asks again, and ends. Whoever holds the lock of a point (`POINTS`) holds the turn there: the run waits for the lock
where it passes the point, a trigger does before a row is written.
"""

import asyncio
import sys
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from agent_server.caller import Caller
from agent_server.calls.call import Runtime, call_tool
from agent_server.conversations.items import assistant_message, tool_call_item
from agent_server.conversations.models import Conversation
from agent_server.conversations.repository import ConversationRepository
from agent_server.db import Database, new_id
from agent_server.errors import AgentServerError
from agent_server.tool import Tool, ToolContext, tool
from agent_server.turns.attempt import Attempt, Outcome
from agent_server.turns.calls import CallLedger
from agent_server.turns.events import Event, TextDelta, TextDone, ToolCalled
from tests.turns.ledger import SETTINGS, replica

POINTS = {
    "accepting": "insert on turn for each row",
    "accepted": None,
    "shown 1": None,
    "answering 1": "insert on model_call for each row when (new.n = 1)",
    "answered 1": None,
    "starting": "insert on tool_call for each row when (new.state = 'started')",
    "acting": None,
    "acted": None,
    "returning": "insert or update on tool_call for each row when (new.state = 'done')",
    "returned": None,
    "shown 2": None,
    "answering 2": "insert on model_call for each row when (new.n = 2)",
    "answered 2": None,
    "finishing": "update on turn for each row when (new.status = 'done')",
    "finished": None,
}
"""In the order in which a turn passes them; with the write that a trigger holds before its transaction commits."""
HOLD = 730_099
"""The first key of the points' advisory locks; the second is the place in `POINTS`."""
KEY = "the client's"


@dataclass
class World:
    """What is outside of the ledger, over a connection of its own: what happens there is not rolled back."""

    connection: asyncpg.Connection

    async def reach(self, point: str) -> None:
        await self.connection.execute("select pg_advisory_xact_lock($1, $2)", HOLD, list(POINTS).index(point))

    async def happen(self, what: str, key: str | None = None) -> None:
        await self.connection.execute("insert into outside (what, key) values ($1, $2)", what, key)


@tool(scope="conversations:write", effect="stored")
async def note_down(context: ToolContext) -> str:
    """Store a row in this database."""
    world = context.resource(World)
    await world.reach("acting")
    await context.repository(ConversationRepository).add(Conversation(title="noted"))
    await world.reach("acted")
    return "did it"


@tool(scope="outside:write", effect="keyed")
async def charge_card(context: ToolContext) -> str:
    """Something outside that is handed a key."""
    return await _act(context)


@tool(scope="outside:write", effect="once")
async def send_letter(context: ToolContext) -> str:
    """Something outside that nobody can take back or ask about."""
    return await _act(context)


async def _act(context: ToolContext) -> str:
    world = context.resource(World)
    await world.reach("acting")
    await world.happen("effect", context.idempotency_key)
    await world.reach("acted")
    return "did it"


TOOLS: dict[str, Tool[[], str]] = {tool.effect: tool for tool in (note_down, charge_card, send_letter)}


@dataclass
class Talk:
    """The run; the turn's message is the effect of the tool that the first response calls."""

    database: Database
    world: World

    async def __call__(self, attempt: Attempt) -> Outcome:
        journaled = attempt.earlier.model_calls
        for n in (1, 2):
            response = journaled[n].response if n in journaled else await self._ask(attempt, n)
            await self.world.reach(f"answered {n}")
            if n == 1:
                await self._call(attempt, response["call_id"])
                await self.world.reach("returned")
        return Outcome("assistant")

    async def _ask(self, attempt: Attempt, n: int) -> dict[str, str]:
        await self.world.happen(f"asked {n}")
        await attempt.writer.append(TextDelta(n, f"Answer {n} "))
        await self.world.reach(f"shown {n}")
        said = f"Answer {n} is this."
        response = {"said": said, "call_id": f"call_{new_id().hex}"}  # a model that is asked again makes up another
        events: list[Event] = [TextDelta(n, "is this."), TextDone(n)]
        items = [assistant_message(said)]
        if n == 1:
            call_id, name = response["call_id"], TOOLS[attempt.message].name
            events.append(ToolCalled(call_id, name, {}))
            items.append(tool_call_item(call_id, name, "{}"))
        await attempt.writer.record_model_call(
            n, agent="assistant", request_sha=b"", response=response, events=events, items=items
        )
        return response

    async def _call(self, attempt: Attempt, call_id: str) -> None:
        tool = TOOLS[attempt.message]
        try:
            await call_tool(
                Runtime(settings=SETTINGS, database=self.database, resources={World: self.world}),
                tool,
                {},
                caller=attempt.caller,
                surface="agent",
                ledger=CallLedger(
                    writer=attempt.writer, call_id=call_id, name=tool.name, effect=tool.effect, args_sha=b""
                ),
            )
        except AgentServerError as error:
            if error.code != "outcome_unknown":
                raise


async def main(url: str, caller_id: str, effect: str) -> None:
    """Accept a turn, run it, and end."""
    database, world = Database(url), World(await asyncpg.connect(url))
    async with replica(database, Talk(database, world)) as here:
        caller = Caller(id=UUID(caller_id), kind="user", scopes=frozenset({"*"}))
        turn = (await here.accept(caller, effect, client_key=KEY)).turn
        await world.reach("accepted")
        here.runner.begin(turn)
        await here.runner.drain(600)
        await world.reach("finished")
    await database.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
