"""Running turns: one at a time in a conversation, by one replica, to an end that is stored, whoever dies meanwhile."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import structlog
from sqlalchemy import text
from structlog.testing import capture_logs

from agent_server.caller import Caller
from agent_server.conversations.items import assistant_message
from agent_server.conversations.models import Conversation
from agent_server.conversations.repository import ConversationRepository
from agent_server.db import Database, new_id
from agent_server.errors import AgentServerError, ModelFailed, Unavailable
from agent_server.tool import ToolContext, tool
from agent_server.turns.attempt import MAX_ATTEMPTS, Attempt, Outcome
from agent_server.turns.earlier import read_earlier
from agent_server.turns.events import Cancelled, Done, Failed, Reset, TextDelta, TextDone, ToolReturned
from agent_server.turns.models import Turn
from agent_server.turns.writer import Fenced
from tests.conftest import everything
from tests.turns.ledger import answer, bodies, call, count, ended, kill, never, read_turn, replica, until

STARTED: asyncio.Queue[tuple[str, str | None]]
"""What the tools below were called with, outside the database: the key they were to hand on."""


@pytest.fixture(autouse=True)
def started() -> None:
    global STARTED
    STARTED = asyncio.Queue()


async def _work(context: ToolContext, note: str) -> str:
    first = STARTED.empty() and context.turn_id is not None and note == "hang"
    STARTED.put_nowait((note, context.idempotency_key))
    if first:
        await asyncio.Event().wait()
    return f"did {note}"


@tool(scope="outside:write", effect="once")
async def send_letter(context: ToolContext, note: str) -> str:
    """Something that nobody can take back or ask about; it hangs when it is called first."""
    return await _work(context, note)


@tool(scope="outside:write", effect="keyed")
async def charge_card(context: ToolContext, note: str) -> str:
    """Something that knows an idempotency key; it hangs when it is called first."""
    return await _work(context, note)


@tool(scope="conversations:write", effect="stored")
async def note_down(context: ToolContext, note: str) -> str:
    """Store something in this database; it hangs when it is called first, with its row written."""
    await context.repository(ConversationRepository).add(Conversation(title=f"noted {note}"))
    return await _work(context, note)


async def test_an_answered_turn_is_done_with_its_agent_and_its_usage(database: Database, me: Caller) -> None:
    async def run(attempt: Attempt) -> Outcome:
        await attempt.writer.append(TextDelta(1, "hi"), TextDone(1), items=[assistant_message("hi")])
        return Outcome("diving", {"requests": 1})

    async with replica(database, run) as here:
        turn = await here.send(me)
        assert [n.event for n in await here.read_to_the_end(turn)] == [
            TextDelta(1, "hi"),
            TextDone(1),
            Done("diving", {"requests": 1}),
        ]
        row = await read_turn(database, turn)
        assert (row.status, row.agent, row.usage, row.error) == ("done", "diving", {"requests": 1}, None)
        assert row.finished_at is not None
        async with everything(database) as session:
            assert (await session.get_one(Conversation, (me.id, turn.conversation_id))).agent == "diving"


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (ModelFailed("The model refused"), "model_failed", "The model refused"),
        (ZeroDivisionError("secret detail"), "internal", "Reference"),
        (TimeoutError("of a socket somewhere"), "internal", "Reference"),
    ],
)
async def test_a_turn_that_fails_ends_with_a_typed_error(
    database: Database, me: Caller, error: Exception, code: str, says: str
) -> None:
    async def run(_: Attempt) -> Outcome:
        raise error

    async with replica(database, run) as here:
        turn = await here.send(me)
        (last,) = await here.read_to_the_end(turn)
        assert isinstance(last.event, Failed)
        assert last.event.code == code
        assert says in last.event.message
        assert "secret" not in last.event.message
        row = await read_turn(database, turn)
        assert (row.status, row.error) == ("failed", {"code": code, "message": last.event.message})


async def test_a_bug_is_in_the_log_under_the_reference_that_the_user_is_given(database: Database, me: Caller) -> None:
    async def run(_: Attempt) -> Outcome:
        raise ZeroDivisionError

    async with replica(database, run) as here:
        with capture_logs() as logs:
            (last,) = await here.read_to_the_end(await here.send(me))
        (line,) = [line for line in logs if line["event"] == "turn.failed"]
        assert isinstance(last.event, Failed)
        assert last.event.message.endswith(line["reference"])
        assert line["exc_info"]


async def test_a_turn_that_takes_too_long_is_ended(database: Database, me: Caller) -> None:
    async with replica(database, never, turn_timeout=0.05) as here:
        (last,) = await here.read_to_the_end(await here.send(me))
        assert isinstance(last.event, Failed)
        assert last.event.code == "timed_out"


async def test_the_turns_of_a_conversation_run_one_at_a_time_in_their_order(database: Database, me: Caller) -> None:
    order: list[str] = []
    running = 0

    async def run(attempt: Attempt) -> Outcome:
        nonlocal running
        running += 1
        assert running == 1
        await asyncio.sleep(0)
        order.append(attempt.message)
        running -= 1
        return Outcome()

    async with replica(database, run) as here, replica(database, run) as there:
        first = await here.send(me, "0")
        turns = [first]
        for n in range(1, 8):
            sender = here if n % 2 else there
            turns.append(await sender.send(me, str(n), conversation_id=first.conversation_id, queue_limit=10))
        await until(lambda: ended(database, *turns))
        assert order == [str(n) for n in range(8)]


async def test_two_replicas_that_sweep_the_same_turns_start_each_once(database: Database) -> None:
    starts: Counter[str] = Counter()

    async def run(attempt: Attempt) -> Outcome:
        starts[attempt.message] += 1
        await asyncio.sleep(0)
        return Outcome()

    async with replica(database, never, slots=0) as full:
        callers = [Caller(id=new_id(), kind="user") for _ in range(40)]
        turns = [await full.send(caller, str(n)) for n, caller in enumerate(callers)]
        assert {turn.status for turn in turns} == {"queued"}
        async with AsyncExitStack() as stack:
            for _ in range(3):
                await stack.enter_async_context(replica(database, run))
            await until(lambda: ended(database, *turns))
    assert starts == {str(n): 1 for n in range(40)}


async def test_a_full_replica_takes_the_next_turn_when_one_ends(database: Database) -> None:
    """Were it left to the sweep of every second, these turns through one slot would outlast `until`."""
    async with replica(database, answer, slots=1) as here:
        turns = [(await here.accept(Caller(id=new_id(), kind="user"))).turn for _ in range(60)]
        here.runner.begin(turns[0])
        async with everything(database) as session:
            await session.execute(text("update turn set status = 'queued' where id <> :id"), {"id": turns[0].id})
        await until(lambda: ended(database, *turns))


async def test_a_shutdown_lets_go_and_whoever_starts_next_finishes(database: Database, me: Caller) -> None:
    async def half(attempt: Attempt) -> Outcome:
        await attempt.writer.append(TextDelta(1, "half"))
        return await never(attempt)

    async with replica(database, half) as here:
        turn = await here.send(me)
        await until(lambda: _has_events(database, turn, 1))
    left = await read_turn(database, turn)
    assert (left.status, left.owner) == ("running", None)
    assert await count(database, "replica") == 0
    async with replica(database, answer) as there:
        events = [n.event for n in await there.read_to_the_end(turn)]
        assert events == [TextDelta(1, "half"), Reset(1), Done("assistant")]
        assert (await read_turn(database, turn)).attempts == 1  # what is let go in good order has not failed


async def _has_events(database: Database, turn: Turn, number: int) -> bool:
    return (await read_turn(database, turn)).last_event >= number


async def test_the_turn_of_a_dead_replica_is_taken_over_and_the_dead_one_writes_nothing_more(
    database: Database, me: Caller
) -> None:
    go_on = asyncio.Event()
    fenced: asyncio.Queue[bool] = asyncio.Queue()

    async def slow(attempt: Attempt) -> Outcome:
        await attempt.writer.append(TextDone(1), TextDelta(2, "of the first"))
        await go_on.wait()
        try:
            await attempt.writer.append(TextDelta(2, "too late"))
        except Fenced:
            fenced.put_nowait(True)
            raise
        return Outcome()

    async def quick(attempt: Attempt) -> Outcome:
        assert attempt.number == 2
        await attempt.writer.append(TextDelta(2, "of the second"), TextDone(2))
        return Outcome("b")

    async with replica(database, slow) as dead, replica(database, quick) as alive:
        turn = await dead.send(me)
        await until(lambda: _has_events(database, turn, 2))
        await kill(database, turn)
        expected = [TextDone(1), TextDelta(2, "of the first"), Reset(2), TextDelta(2, "of the second"), TextDone(2)]
        assert [n.event for n in await alive.read_to_the_end(turn)] == [*expected, Done("b")]
        go_on.set()
        assert await asyncio.wait_for(fenced.get(), 30)
        assert [n.event for n in await dead.read_to_the_end(turn)] == [*expected, Done("b")]


async def test_a_replica_that_has_not_beaten_for_long_is_dead_and_one_that_beats_is_not(
    database: Database, me: Caller, other: Caller
) -> None:
    async with replica(database, never) as here:
        old, fresh = await here.accept(me), await here.accept(other)
        async with everything(database) as session:
            for turn, seconds in ((old.turn, 6), (fresh.turn, -60)):
                owner = new_id()
                beat = text("insert into replica values (:id, now() - :seconds * interval '1 second')")
                await session.execute(beat, {"id": owner, "seconds": seconds})
                await session.execute(text("update turn set owner = :o where id = :id"), {"o": owner, "id": turn.id})
        async with replica(database, answer) as there:
            await there.read_to_the_end(old.turn)
            await there.read_to_the_end(await there.send(Caller(id=new_id(), kind="user")))
        assert (await read_turn(database, fresh.turn)).status == "running"


@pytest.mark.parametrize("tool", [send_letter, charge_card, note_down], ids=lambda tool: tool.effect)
async def test_a_finished_tool_call_is_not_run_again_after_a_takeover(
    database: Database, me: Caller, tool: Any
) -> None:
    async def dies(attempt: Attempt) -> Outcome:
        assert await call(database, attempt, tool, note="it") == "did it"
        return await never(attempt)

    async def again(attempt: Attempt) -> Outcome:
        assert await call(database, attempt, tool, note="it") == "did it"
        return Outcome()

    async with replica(database, dies) as dead, replica(database, again) as alive:
        turn = await dead.send(me)
        await until(lambda: _has_events(database, turn, 1))
        await kill(database, turn)
        events = [n.event for n in await alive.read_to_the_end(turn)]
    assert events == [ToolReturned("call_1", tool.name, "did it"), Done()]
    assert STARTED.qsize() == 1


def _cut_off_in(tool: Any, told: list[str]) -> tuple[Callable[[Attempt], Awaitable[Outcome]], ...]:
    """A run that hangs in the tool, and the run that takes over."""

    async def dies(attempt: Attempt) -> Outcome:
        await call(attempt.writer.database, attempt, tool, note="hang")
        return Outcome()

    async def takes_over(attempt: Attempt) -> Outcome:
        try:
            told.append(await call(attempt.writer.database, attempt, tool, note="hang"))
        except AgentServerError as error:
            told.append(error.message if error.code == "internal" else f"{error.code}: {error.message}")
        return Outcome()

    return dies, takes_over


async def test_a_tool_that_acts_once_and_was_cut_off_is_not_run_again_and_the_model_is_told(
    database: Database, me: Caller
) -> None:
    told: list[str] = []
    dies, takes_over = _cut_off_in(send_letter, told)
    async with replica(database, dies) as dead, replica(database, takes_over) as alive:
        turn = await dead.send(me)
        await until(lambda: _is_in_tool())
        await kill(database, turn)
        events = [n.event for n in await alive.read_to_the_end(turn)]
    assert STARTED.qsize() == 1
    assert told[0].startswith("outcome_unknown: ")
    # Whoever reads the log or the history later knows what the model was told.
    assert events == [ToolReturned("call_1", "send_letter", None, told[0]), Done()]
    assert (await bodies(database, turn.conversation_id))[1:] == [
        {"type": "function_call_output", "call_id": "call_1", "output": told[0], "status": "incomplete"}
    ]
    async with everything(database) as session:
        assert (await session.execute(text("select outcome from audit"))).all() == [("outcome_unknown",)]


async def test_a_tool_with_a_key_is_run_again_with_the_same_key(database: Database, me: Caller) -> None:
    told: list[str] = []
    dies, takes_over = _cut_off_in(charge_card, told)
    async with replica(database, dies) as dead, replica(database, takes_over) as alive:
        turn = await dead.send(me)
        await until(lambda: _is_in_tool())
        await kill(database, turn)
        await alive.read_to_the_end(turn)
    assert told == ["did hang"]
    assert [STARTED.get_nowait() for _ in range(STARTED.qsize())] == [("hang", f"{turn.id}:call_1")] * 2


async def test_a_stored_effect_that_was_cut_off_happens_exactly_once(database: Database, me: Caller) -> None:
    told: list[str] = []
    dies, takes_over = _cut_off_in(note_down, told)
    async with replica(database, dies) as dead, replica(database, takes_over) as alive:
        turn = await dead.send(me)
        await until(lambda: _is_in_tool())
        await kill(database, turn)
        await alive.read_to_the_end(turn)
    assert told == ["did hang"]
    async with everything(database) as session:
        noted = await session.execute(text("select count(*) from conversation where title = 'noted hang'"))
        assert noted.scalar_one() == 1


async def _is_in_tool() -> bool:
    return not STARTED.empty()


async def test_model_responses_are_there_for_whoever_takes_over(database: Database, me: Caller) -> None:
    asked: list[int] = []

    async def run(attempt: Attempt) -> Outcome:
        journaled = attempt.earlier.model_calls
        for n in (1, 2, 3):
            if n not in journaled:
                asked.append(n)
                response = {"said": n, "odd": "\u0000"}
                await attempt.writer.record_model_call(
                    n, agent="a", request_sha=b"r", response=response, events=[TextDelta(n, "x"), TextDone(n)], items=()
                )
                if n == 2 and attempt.number == 1:
                    await never(attempt)
        stored = await read_earlier(database, owner_id=me.id, turn_id=attempt.writer.turn_id)
        assert [row.response["said"] for _, row in sorted(stored.model_calls.items())] == [1, 2, 3]
        return Outcome()

    async with replica(database, run) as dead, replica(database, run) as alive:
        turn = await dead.send(me)
        await until(lambda: _has_events(database, turn, 4))
        await kill(database, turn)
        events = await alive.read_to_the_end(turn)
    assert asked == [1, 2, 3]
    assert [type(n.event) for n in events] == [TextDelta, TextDone] * 3 + [Done]


async def test_after_too_many_attempts_a_turn_fails_with_a_reason(database: Database, me: Caller) -> None:
    attempts: list[int] = []

    async def dies(attempt: Attempt) -> Outcome:
        attempts.append(attempt.number)
        raise Unavailable("The database cannot be reached; try again in a moment")

    async with replica(database, dies) as here:
        turn = await here.send(me)
        (last,) = await here.read_to_the_end(turn)
    assert attempts == list(range(1, MAX_ATTEMPTS + 1))
    assert isinstance(last.event, Failed)
    assert last.event.code == "internal"
    assert f"cut off {MAX_ATTEMPTS} times" in last.event.message


async def test_a_stop_keeps_the_partial_answer_as_a_message(database: Database, me: Caller) -> None:
    async def talks(attempt: Attempt) -> Outcome:
        await attempt.writer.append(TextDelta(1, "one "), TextDelta(1, "two"))
        return await never(attempt)

    async with replica(database, talks) as here:
        turn = await here.send(me)
        await until(lambda: _has_events(database, turn, 2))
        await here.runner.stop_turn(me.id, turn.id)
        assert (await here.read_to_the_end(turn))[-1].event == Cancelled()
        assert (await bodies(database, turn.conversation_id))[1:] == [{"role": "assistant", "content": "one two"}]
        assert (await read_turn(database, turn)).status == "cancelled"


async def test_stopping_again_and_again_stops_once(database: Database, me: Caller) -> None:
    async with replica(database, never) as here:
        turn = await here.send(me)
        for _ in range(10):
            await asyncio.gather(*(here.runner.stop_turn(me.id, turn.id) for _ in range(3)))
        await until(lambda: ended(database, turn))
        assert [n.event for n in await here.read_to_the_end(turn)] == [Cancelled()]


async def test_a_waiting_turn_is_stopped_at_once_and_never_runs(database: Database, me: Caller) -> None:
    ran: list[str] = []

    async def run(attempt: Attempt) -> Outcome:
        ran.append(attempt.message)
        return await never(attempt) if attempt.message == "first" else Outcome()

    async with replica(database, run) as here:
        first = await here.send(me, "first")
        waiting = await here.send(me, "waiting", conversation_id=first.conversation_id)
        last = await here.send(me, "last", conversation_id=first.conversation_id)
        await here.runner.stop_turn(me.id, waiting.id)
        assert [n.event for n in await here.read_to_the_end(waiting)] == [Cancelled()]
        await here.runner.stop_turn(me.id, first.id)
        await until(lambda: ended(database, first, last))
    assert ran == ["first", "last"]


async def test_a_stop_is_heeded_on_another_replica_at_its_next_write(database: Database, me: Caller) -> None:
    go_on = asyncio.Event()

    async def run(attempt: Attempt) -> Outcome:
        await go_on.wait()
        await attempt.writer.append(TextDelta(1, "x"))
        return Outcome()

    async with replica(database, run) as here, replica(database, never) as there:
        turn = await here.send(me)
        await there.runner.stop_turn(me.id, turn.id)
        go_on.set()
        assert [n.event for n in await there.read_to_the_end(turn)] == [Cancelled()]


async def test_a_stop_is_heeded_after_a_takeover(database: Database, me: Caller) -> None:
    ran: list[int] = []

    async def run(attempt: Attempt) -> Outcome:
        ran.append(attempt.number)
        return await never(attempt)

    async with replica(database, run) as dead:
        turn = await dead.send(me)
        async with everything(database) as session:
            await session.execute(text("update turn set cancel = true"))
        await kill(database, turn)
        async with replica(database, run) as alive:
            assert [n.event for n in await alive.read_to_the_end(turn)] == [Cancelled()]
    assert ran in ([], [1])


async def test_a_turn_that_was_accepted_and_not_begun_is_taken_up(database: Database, me: Caller) -> None:
    """The commit arrived and its confirmation did not: the row says that this replica runs it, and nobody does."""
    async with replica(database, answer) as here:
        turn = (await here.accept(me)).turn
        assert turn.status == "running"
        assert [n.event for n in await here.read_to_the_end(turn)] == [Done("assistant")]


async def test_the_sweep_goes_on_after_a_failure_of_its_own(database: Database, me: Caller) -> None:
    async def rename(old: str, new: str) -> None:
        async with everything(database) as session:
            await session.execute(text(f"alter table {old} rename to {new}"))

    async with replica(database, answer, slots=0) as full:
        turn = (await full.accept(me)).turn
        await rename("turn", "away")
        with capture_logs() as logs:
            async with replica(database, answer) as here:
                await until(lambda: _logged(logs, "runner.failed"))
                await rename("away", "turn")
                assert [n.event for n in await here.read_to_the_end(turn)] == [Done("assistant")]


async def _logged(logs: list[Any], event: str) -> bool:
    return any(line["event"] == event for line in logs)


async def test_a_turns_log_lines_name_its_conversation_and_caller(database: Database, me: Caller) -> None:
    seen: dict[str, Any] = {}

    async def run(_: Attempt) -> Outcome:
        seen.update(structlog.contextvars.get_contextvars())
        return Outcome()

    async with replica(database, run) as here:
        turn = await here.send(me)
        await here.read_to_the_end(turn)
    assert seen["turn_id"] == str(turn.id)
    assert seen["conversation_id"] == str(turn.conversation_id)
    assert seen["caller"] == str(me.id)
