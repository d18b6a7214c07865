"""The log of a turn: dense, in order, fenced, and the same however it is read."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlmodel import select

from agent_server.audit import act_json
from agent_server.caller import Caller
from agent_server.calls.ledger import CallOutcome, outcome_text
from agent_server.conversations.items import assistant_message, tool_call_item, tool_output_item
from agent_server.conversations.models import Conversation
from agent_server.conversations.repository import ConversationRepository
from agent_server.db import Database, new_id
from agent_server.tool import ToolContext, tool
from agent_server.turns.attempt import Attempt, Outcome
from agent_server.turns.earlier import read_earlier
from agent_server.turns.events import Cancelled, Done, Failed, Numbered, TextDelta, TextDone, ToolCalled, ToolReturned
from agent_server.turns.hub import Hub
from agent_server.turns.models import Turn
from agent_server.turns.writer import Fenced, StopRequested, Then, TurnWriter
from tests.conftest import everything
from tests.turns.ledger import Replica, answer, bodies, call, count, never, read_log, read_turn, replica, until


async def _open(here: Replica, caller: Caller) -> tuple[Turn, TurnWriter]:
    """A turn that this replica holds, with nobody at work on it."""
    turn = (await here.accept(caller)).turn
    return turn, await here.writer(turn)


async def _log(database: Database, turn: Turn) -> list[tuple[int, str]]:
    return [(numbered.seq, numbered.event.kind) for numbered in await read_log(database, turn)]


async def test_numbers_are_dense_and_in_order_however_many_write_at_once(database: Database, me: Caller) -> None:
    async with replica(database, never) as here:
        turn, writer = await _open(here, me)
        reading = asyncio.create_task(here.read_to_the_end(turn))

        async def write(n: int) -> None:
            for i in range(4):
                events = [TextDelta(n, f"{i}.{j}") for j in range(n % 3 + 1)]
                await writer.append(*events, items=[assistant_message(f"{n} {i}")])

        await asyncio.gather(*(write(n) for n in range(12)))
        await writer.finish("done", Done())
        seen = await reading
        assert [numbered.seq for numbered in seen] == list(range(1, 12 * 4 * 2 + 2))
        for n in range(12):
            said = [e.event.text for e in seen if isinstance(e.event, TextDelta) and e.event.call == n]
            assert said == [f"{i}.{j}" for i in range(4) for j in range(n % 3 + 1)]
        async with everything(database) as session:
            ks = (
                await session.execute(text("select k from item where turn_id = :id order by k"), {"id": turn.id})
            ).all()
        assert [k for (k,) in ks] == list(range(1, 12 * 4 + 2))


@tool(scope="conversations:write", effect="stored")
async def make_conversation(context: ToolContext, title: str) -> str:
    """Store something, so that a test can see whether it happened."""
    await context.repository(ConversationRepository).add(Conversation(title=title))
    return title


def _attempt(writer: TurnWriter, caller: Caller) -> Attempt:
    return Attempt(writer=writer, caller=caller, message="", agent=None, number=1)


async def test_an_attempt_that_was_taken_over_writes_nothing(database: Database, me: Caller) -> None:
    async with replica(database, never) as here:
        turn, stale = await _open(here, me)
        async with everything(database) as session:
            await session.execute(text("update turn set epoch = epoch + 1 where id = :id"), {"id": turn.id})
        with pytest.raises(Fenced):
            await stale.append(TextDelta(1, "late"), items=[assistant_message("late")])
        with pytest.raises(Fenced):
            await stale.record_model_call(1, agent="a", request_sha=b"", response={}, events=(), items=())
        with pytest.raises(Fenced):
            await call(database, _attempt(stale, me), make_conversation, title="late")
        with pytest.raises(Fenced):
            await stale.finish("done", Done())
        assert await _log(database, turn) == []
        assert len(await bodies(database, turn.conversation_id)) == 1
        assert [await count(database, table) for table in ("conversation", "tool_call", "model_call", "audit")] == [
            1,
            0,
            0,
            0,
        ]
        assert (await read_turn(database, turn)).status == "running"


async def test_a_tools_effect_its_record_its_event_and_its_item_are_one(database: Database, me: Caller) -> None:
    async with replica(database, never) as here:
        turn, writer = await _open(here, me)
        attempt = _attempt(writer, me)
        assert await call(database, attempt, make_conversation, title="first") == "first"
        with pytest.raises(Fenced):  # it has its outcome; an attempt that does not know that writes no other
            await call(database, attempt, make_conversation, title="first")
        attempt = _attempt(await here.writer(turn), me)
        assert await call(database, attempt, make_conversation, title="first") == "first"  # replayed
        assert await count(database, "conversation") == 2
        assert await _log(database, turn) == [(1, "tool_done")]
        assert (await bodies(database, turn.conversation_id))[1:] == [
            {"type": "function_call_output", "call_id": "call_1", "output": "first"}
        ]


async def test_a_turn_ends_once(database: Database, me: Caller) -> None:
    async with replica(database, never) as here:
        turn, writer = await _open(here, me)
        ends = await asyncio.gather(
            *(writer.finish("done", Done("a"), agent="a", usage={"requests": 1}) for _ in range(4)),
            writer.finish("failed", Failed("internal", "no"), error={"code": "internal", "message": "no"}),
            return_exceptions=True,
        )
        assert sorted(type(end).__name__ for end in ends) == ["Fenced"] * 4 + ["bool"]
        assert len(await _log(database, turn)) == 1
        with pytest.raises(Fenced):
            await writer.append(TextDelta(1, "after the end"))


async def test_a_stop_is_noticed_at_the_next_write_of_which_nothing_is_kept(database: Database, me: Caller) -> None:
    async with replica(database, never) as here:
        turn, writer = await _open(here, me)
        await writer.append(TextDelta(1, "before"))
        async with everything(database) as session:
            await session.execute(text("update turn set cancel = true where id = :id"), {"id": turn.id})
        with pytest.raises(StopRequested):
            await writer.append(TextDelta(1, "after"))
        with pytest.raises(StopRequested):
            await call(database, _attempt(writer, me), make_conversation, title="after")
        await writer.finish("cancelled", Cancelled())
        assert await _log(database, turn) == [(1, "text"), (2, "cancelled")]
        assert await count(database, "conversation") == 1


async def test_what_a_model_writes_is_stored_also_where_postgres_cannot_hold_it(database: Database, me: Caller) -> None:
    async with replica(database, never) as here:
        turn, writer = await _open(here, me)
        await writer.append(TextDelta(1, "a\x00b\ud800"), items=[assistant_message("\x00")])
        await writer.finish("done", Done())
        assert (await here.read_to_the_end(turn))[0] == Numbered(1, TextDelta(1, "a�b�"))


async def test_follow_pings_while_nothing_comes_and_ends_with_the_turn(database: Database, me: Caller) -> None:
    async with replica(database, never) as here:
        turn, writer = await _open(here, me)
        events = Hub(database, idle_seconds=0.2).follow(me.id, turn.id)
        assert await anext(events) is None
        await writer.append(TextDelta(1, "x"))
        assert await anext(numbered async for numbered in events if numbered) == Numbered(1, TextDelta(1, "x"))
        await writer.finish("done", Done())
        assert [numbered.seq async for numbered in events if numbered] == [2]


async def test_follow_sees_what_another_replica_writes(database: Database, me: Caller) -> None:
    async with replica(database, never) as here:
        turn, writer = await _open(here, me)
        elsewhere = Hub(database, idle_seconds=0.2).follow(me.id, turn.id)
        assert await anext(elsewhere) is None
        await writer.append(TextDelta(1, "x"))
        await writer.finish("done", Done())
        assert [numbered.seq async for numbered in elsewhere if numbered] == [1, 2]


async def test_follow_ends_when_the_conversation_is_deleted(database: Database, me: Caller) -> None:
    async with replica(database, never) as here:
        turn, _ = await _open(here, me)
        events = Hub(database, idle_seconds=0.2).follow(me.id, turn.id)
        assert await anext(events) is None
        async with everything(database) as session:
            await session.execute(text("delete from conversation"))
        assert [numbered async for numbered in events if numbered] == []


@given(cuts=st.lists(st.integers(0, 30), max_size=4).map(sorted))
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
async def test_the_log_read_in_any_parts_is_the_whole_log(database: Database, me: Caller, cuts: Sequence[int]) -> None:
    async with replica(database, answer) as here:
        turn, writer = await _open(here, me)
        await writer.append(*(TextDelta(1, str(n)) for n in range(19)), TextDone(1))
        await writer.finish("done", Done())
        whole = await here.read_to_the_end(turn)
        assert [numbered.seq for numbered in whole] == list(range(1, 22))
        parts, at = [], 0
        for cut in [*cuts, 100]:
            for numbered in await here.read_to_the_end(turn, after=at):
                if numbered.seq > cut:
                    break
                parts.append(numbered)
                at = numbered.seq
        assert parts == whole


async def test_the_shown_part_of_an_answer_without_its_end_is_known(database: Database, me: Caller) -> None:
    async with replica(database, never) as here:
        turn, writer = await _open(here, me)
        await writer.append(TextDelta(1, "first"), TextDone(1), TextDelta(2, "a "), TextDelta(2, "half"))
        assert (await here.writer(turn)).earlier.unfinished_calls == [2]


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        (CallOutcome({"title": "Grün"}), '{"title": "Grün"}'),
        (CallOutcome("plain"), "plain"),
        (CallOutcome(None), "null"),
        (CallOutcome(None, "not_found: no task"), "not_found: no task"),
    ],
)
def test_a_model_reads_a_result_as_json_and_an_error_as_its_code_and_message(outcome: CallOutcome, told: str) -> None:
    assert outcome_text(outcome) == told


async def test_followers_leave_nothing_behind(database: Database, me: Caller) -> None:
    async with replica(database, answer) as here:
        turn, writer = await _open(here, me)
        await writer.finish("done", Done())
        for _ in range(3):
            await here.read_to_the_end(turn)
        waiting: Any = vars(here.hub)["_feeds"]
        assert not waiting


async def test_the_index_allows_one_running_turn_in_a_conversation(database: Database, me: Caller) -> None:
    async with replica(database, never) as here:
        first = (await here.accept(me)).turn
        await here.accept(me, conversation_id=first.conversation_id)
        with pytest.raises(IntegrityError, match="uq_turn_one_running"):
            await _run_all(database)
        async with everything(database) as session:
            assert len((await session.execute(select(Turn).where(Turn.status == "running"))).all()) == 1


async def _run_all(database: Database) -> None:
    async with everything(database) as session:
        await session.execute(text("update turn set status = 'running'"))


async def test_a_deletion_waits_for_a_write_and_never_the_other_way_round(database: Database, me: Caller) -> None:
    """An attempt locks its turn and then the conversation; a deletion in the other order would be a deadlock."""

    async def delete(conversation_id: UUID) -> None:
        async with everything(database) as session:
            conversations = ConversationRepository(session, me)
            await conversations.remove(await conversations.get(conversation_id))

    async def somebody_waits() -> bool:
        async with everything(database) as session:
            waiting = text("select count(*) from pg_locks where not granted")
            return bool((await session.execute(waiting)).scalar_one())

    async with replica(database, never) as here:
        turn, writer = await _open(here, me)
        async with everything(database) as session:
            await writer.write(session, [TextDelta(1, "x")])
            deleting = asyncio.create_task(delete(turn.conversation_id))
            await until(somebody_waits)
            await writer.write(session, items=[assistant_message("x")])
        await deleting
        assert await count(database, "turn") == 0


async def test_what_is_held_goes_with_the_next_write_and_before_it(database: Database, me: Caller) -> None:
    async with replica(database, never) as here:
        turn, writer = await _open(here, me)
        await _look_up(writer, me)
        assert await _log(database, turn) == []
        await writer.append(TextDelta(2, "found"))
        assert [kind for _, kind in await _log(database, turn)] == ["tool", "tool_done", "text"]
        assert [item["type"] for item in (await bodies(database, turn.conversation_id))[1:]] == [
            "function_call",
            "function_call_output",
        ]
        assert [await count(database, table) for table in ("model_call", "audit", "tool_call")] == [1, 1, 0]


async def test_what_is_held_is_written_soon_where_nothing_comes(database: Database, me: Caller) -> None:
    async with replica(database, never) as here:
        turn, writer = await _open(here, me)
        events = here.hub.follow(me.id, turn.id)
        await _look_up(writer, me)
        assert [(await anext(e async for e in events if e)).event.kind for _ in range(2)] == ["tool", "tool_done"]
        await writer.flush()
        assert len(await _log(database, turn)) == 2


async def test_what_is_held_is_kept_where_a_write_fails(database: Database, me: Caller) -> None:
    async with replica(database, never) as here:
        turn, writer = await _open(here, me)
        await _look_up(writer, me)
        async with everything(database) as session:
            await session.execute(text("update turn set cancel = true"))
        with pytest.raises(StopRequested):
            await writer.append(TextDelta(2, "more"))
        await writer.keep_answer()
        await writer.finish("cancelled", Cancelled())
        assert [kind for _, kind in await _log(database, turn)] == ["tool", "tool_done", "cancelled"]


async def test_the_last_answer_is_one_transaction_with_the_end_of_its_turn(database: Database, me: Caller) -> None:
    async with replica(database, never) as here:
        turn, writer = await _open(here, me)
        await writer.record_model_call(
            1,
            agent="a",
            request_sha=b"",
            response={},
            events=[TextDone(1)],
            items=[assistant_message("hi")],
            then="end",
        )
        assert await _log(database, turn) == []
        await writer.finish("done", Done("a"), agent="a")
        assert await _log(database, turn) == [(1, "text_done"), (2, "done")]
        assert len(await bodies(database, turn.conversation_id)) == 2
        assert await count(database, "model_call") == 0


@pytest.mark.parametrize("stops", [True, False])
async def test_the_last_answer_of_a_turn_that_is_to_stop_is_not_beside_what_was_shown_of_it(
    database: Database, me: Caller, stops: bool
) -> None:
    async with replica(database, never) as here:
        turn, writer = await _open(here, me)
        await writer.append(TextDelta(1, "half"))
        await writer.record_model_call(
            1,
            agent="a",
            request_sha=b"",
            response={},
            events=[TextDone(1)],
            items=[assistant_message("whole")],
            then="end",
        )
        if stops:
            async with everything(database) as session:
                await session.execute(text("update turn set cancel = true"))
        await writer.keep_answer()
        await writer.finish("cancelled", Cancelled())
        answers = [] if stops else ["whole"]
        assert [item["content"] for item in (await bodies(database, turn.conversation_id))[1:]] == answers


async def test_events_are_one_row_only_where_every_replica_reads_that(database: Database, me: Caller) -> None:
    async with replica(database, _tell) as here:
        turn = await here.send(me)
        assert [e.seq for e in await here.read_to_the_end(turn)] == [1, 2, 3]
        assert await count(database, "event") == 2
        async with everything(database) as session:  # a version of before, which says nothing of forms
            await session.execute(
                text("insert into replica (id, beat) values (:id, now() + interval '1 hour')"), {"id": new_id()}
            )
        await until(lambda: _is(lambda: here.runner.replica.format == 1))
        turn = await here.send(me)
        assert [e.seq for e in await here.read_to_the_end(turn)] == [1, 2, 3]
        assert await count(database, "event") == 5


async def _is(what: Callable[[], bool]) -> bool:
    return what()


@given(calls=st.lists(st.tuples(st.sampled_from(["act", "read"]), st.booleans()), max_size=4), ended=st.booleans())
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
async def test_the_journal_has_every_response_but_one_that_is_written_with_the_end(
    database: Database, me: Caller, calls: list[tuple[Then, bool]], ended: bool
) -> None:
    async with replica(database, never) as here:
        turn, writer = await _open(here, me)
        for n, (then, shows) in enumerate(calls, 1):
            if shows:
                writer.show(TextDelta(n, f"{n}"))
                await asyncio.sleep(0)
            await _respond(writer, n, then)
            # whatever it asks for may take place now
            assert then != "act" or (await read_earlier(database, owner_id=me.id, turn_id=turn.id)).last_call == n
        last = len(calls) + 1
        writer.show(TextDelta(last, "the answer"))
        await _respond(writer, last, "end")
        await (writer.finish("done", Done()) if ended else writer.flush())
        stored = await read_earlier(database, owner_id=me.id, turn_id=turn.id)
        whole = list(range(1, last + (not ended)))
        held = [n for n in whole if n > max((n for n, (then, _) in enumerate(calls, 1) if then == "act"), default=0)]
        assert set(whole) - (set(held) if ended else set()) <= set(stored.model_calls) <= set(whole)
        said = [event.text for event in stored.events if isinstance(event, TextDelta)]
        assert said == [f"{n}" for n, (_, shows) in enumerate(calls, 1) if shows] + ["the answer"]
        if not ended:
            await writer.finish("done", Done())


async def _respond(writer: TurnWriter, n: int, then: Then) -> None:
    await writer.record_model_call(
        n,
        agent="a",
        request_sha=b"",
        response={"n": n},
        events=[TextDone(n)],
        items=[assistant_message(f"{n}")],
        then=then,
    )


async def test_what_is_shown_of_an_answer_is_written_while_the_model_thinks_and_its_failure_raised(
    database: Database, me: Caller
) -> None:
    async with replica(database, never) as here:
        turn, writer = await _open(here, me)
        writer.show(TextDelta(1, "first words"))

        async def shown() -> bool:
            return await _log(database, turn) == [(1, "text")]

        await until(shown)
        writer.show(TextDelta(1, "as soon "))
        writer.show(TextDelta(1, "as may be"))
        await here.runner.stop_turn(turn.owner_id, turn.id)

        async def raises() -> bool:
            try:
                writer.show(TextDelta(1, "more"))
            except StopRequested:
                return True
            return False

        await until(raises)


async def _tell(attempt: Attempt) -> Outcome:
    await attempt.writer.append(TextDelta(1, "a"), TextDone(1))
    return Outcome("assistant")


async def _look_up(writer: TurnWriter, caller: Caller) -> None:
    """A response that asks for a call without an effect, and what came of the call; both are held."""
    await writer.record_model_call(
        1,
        agent="a",
        request_sha=b"",
        response={},
        events=[ToolCalled("c", "look_up", {})],
        items=[tool_call_item("c", "look_up", "{}")],
        then="read",
    )
    act = act_json(caller, surface="agent", action="look_up", outcome="ok", latency_ms=1.0)
    writer.hold([ToolReturned("c", "look_up", "found")], [tool_output_item("c", "found")], act)
