"""`prompt blame` prints to the byte what the provider was sent, of turns that did not run straight from message to answer:
steered ones, a guest's, those around a confirmation, and those that another replica took over."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal

import pytest
from sqlalchemy import text

from agent_server.testing import AgentServer, Call, Say, ScriptedOpenAI, Step
from agent_server.testing.server import AgentCaller, run_agent_server
from agent_server.testing.wire import Reply
from agent_server.turns.accept import Message
from agent_server.turns.models import Turn
from agent_server.workspace import Workspace
from tests.conftest import everything
from tests.test_cli import Run, run, stocked
from tests.turns.ledger import kill

__all__ = ["run", "stocked"]  # fixtures

Start = Callable[[ScriptedOpenAI], AbstractAsyncContextManager[AgentServer]]
Blame = Callable[[Turn, int], Awaitable[list[bytes]]]
# Each call of a tool that changes something is written, and with that the turn knows what was put into it.
ADDS: Sequence[Step] = (
    Call("create_task", {"title": "Buy fins"}),
    Call("create_task", {"title": "Buy a mask"}),
    Say("Both are on your list."),
    Say("As I said."),
)


class Held(ScriptedOpenAI):
    """A model that answers as many requests as it is let answer."""

    def __init__(self, script: Sequence[Step]) -> None:
        super().__init__(script)
        self._asked, self._let = asyncio.Semaphore(0), asyncio.Semaphore(0)

    async def wait(self) -> None:
        """Wait for its next request."""
        async with asyncio.timeout(30):
            await self._asked.acquire()

    def let(self, answers: int = 1) -> None:
        for _ in range(answers):
            self._let.release()

    async def reply(self, request: dict[str, Any]) -> Reply:
        self._asked.release()
        await self._let.acquire()
        return await super().reply(request)


@pytest.fixture
def start(agent_workspace: Workspace, stocked_url: str) -> Start:
    """Starts a replica with a model of its own."""
    return lambda model: run_agent_server(agent_workspace, stocked_url, model=model)


@pytest.fixture
def blame(stocked: Run) -> Blame:
    """The requests of so many model calls of a turn, as the command prints them."""

    def print_one(turn: Turn, call: int) -> bytes:
        words = ("--owner", str(turn.owner_id), "--call", str(call), "--json")
        done = stocked("prompt", "blame", str(turn.id), *words)
        # Where the bytes have another hash than what was sent, this says so.
        assert (done.exit_code, done.stderr) == (0, ""), done.stderr
        return done.stdout.removesuffix("\n").encode()

    async def blame(turn: Turn, calls: int) -> list[bytes]:
        # Beside the event loop: commands have loops of their own.
        return [await asyncio.to_thread(print_one, turn, call) for call in range(1, calls + 1)]

    return blame


async def send(server: AgentServer, caller: AgentCaller, message: str, **more: Any) -> Turn:
    return (await server.server.accept(caller.caller, Message(text=message, **more))).turn


async def end(server: AgentServer, turn: Turn) -> None:
    async with asyncio.timeout(30):
        async for _ in server.server.hub.follow(turn.owner_id, turn.id):
            pass


async def arrive(server: AgentServer, kind: Literal["user", "guest"]) -> AgentCaller:
    """A caller with a profile."""
    caller = server.as_caller(*(["*"] if kind == "user" else []), kind=kind)
    await caller.call("update_profile", dives=12)
    return caller


@pytest.mark.parametrize("kind", ["user", "guest"])
async def test_of_a_steered_turn_each_request_has_the_messages_that_it_was_given(
    start: Start, blame: Blame, bodies: list[bytes], kind: Literal["user", "guest"]
) -> None:
    model = Held(ADDS)
    async with start(model) as server:
        caller = await arrive(server, kind)
        turn = await send(server, caller, "Add fins", agent="tasks")
        steer = {"conversation_id": turn.conversation_id, "on_busy": "steer"}
        for message in ("Red ones.", "And a mask."):
            await model.wait()
            assert (await send(server, caller, message, **steer)).id == turn.id
            model.let()
        model.let(2)
        await end(server, turn)
        later = await send(server, caller, "Why?", agent="tasks", conversation_id=turn.conversation_id)
        await end(server, later)
    assert [body.count(b"Red ones.") for body in bodies] == [0, 1, 1, 1]
    assert [body.count(b"And a mask.") for body in bodies] == [0, 0, 1, 1]
    assert all(b'\\"dives\\": 12' in body for body in bodies)
    assert [*await blame(turn, 3), *await blame(later, 1)] == bodies


async def test_a_turn_that_is_taken_over_after_it_was_steered_is_told_and_kept_the_same(
    start: Start, blame: Blame, bodies: list[bytes]
) -> None:
    first, second = Held(ADDS), Held(ADDS[1:])
    async with start(first) as here, start(second) as there:
        caller = await arrive(here, "user")
        turn = await send(here, caller, "Add fins", agent="tasks")
        steer = {"conversation_id": turn.conversation_id, "on_busy": "steer"}
        await first.wait()
        await send(here, caller, "Red ones.", **steer)
        first.let()
        await first.wait()
        await kill(here.database, turn)
        await second.wait()
        await send(there, caller, "And a mask.", **steer)
        second.let(3)
        await end(there, turn)
        later = await send(there, caller, "Why?", agent="tasks", conversation_id=turn.conversation_id)
        await end(there, later)
    opened, before, again, *rest = bodies
    assert b"Red ones." in before and before == again
    assert b"And a mask." in rest[0]
    assert [*await blame(turn, 3), *await blame(later, 1)] == [opened, again, *rest]


@pytest.mark.parametrize("word", [True, False])
@pytest.mark.parametrize("taken_over", [True, False])
async def test_around_a_confirmation_it_is_what_was_sent_before_and_after_the_users_word(
    start: Start, blame: Blame, bodies: list[bytes], word: bool, taken_over: bool
) -> None:
    confirm = Say("Please confirm.")
    goes_on: list[Step] = [Call("list_tasks", {}), Say("It is as you said.")]
    first = Held([Call("delete_task", {"task": "Buy fins"}), confirm])
    second = Held([confirm, *goes_on] if taken_over else goes_on)
    async with start(first) as here, start(second) as there:
        caller = await arrive(here, "user")
        await caller.call("create_task", title="Buy fins")
        turn = await send(here, caller, "Delete the fins", agent="tasks")
        first.let()
        for _ in range(2):
            await first.wait()
        if taken_over:
            await kill(here.database, turn)
            await second.wait()
        else:
            first.let()
        second.let(3)
        await end(there, turn)
        async with everything(here.database) as session:
            (question,) = (await session.execute(text("select id from confirmation"))).scalars()
        async with caller.http() as http:
            answered = await http.post(f"/api/confirmations/{question}", json={"confirm": word})
        assert answered.status_code == 200, answered.text
        later = await send(there, caller, "And?", agent="tasks", conversation_id=turn.conversation_id)
        await end(there, later)
    assert b"Not done" in bodies[1]
    if taken_over:
        assert bodies[1] == bodies.pop(2)
    assert [*await blame(turn, 2), *await blame(later, 2)] == bodies
