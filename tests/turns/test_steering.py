"""Messages to a conversation that is still answering: put into the running turn, or in place of it; none is lost."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import text

from agent_server.caller import Caller, beyond
from agent_server.conversations.items import NewItem, assistant_message
from agent_server.db import Database, new_id
from agent_server.errors import InvalidInput, TooMany
from agent_server.identity.credentials import issue_guest
from agent_server.turns.attempt import Attempt, Outcome
from agent_server.turns.events import Cancelled, Done, Event, Steered, TextDelta, TextDone
from agent_server.turns.models import Turn
from agent_server.turns.steering import MOST_WAITING
from tests.conftest import everything
from tests.turns.ledger import Replica, bodies, count, ended, kill, never, replica, until


class Talk:
    """A run loop of model calls: each is given the messages so far, and says how many it was given."""

    def __init__(self, calls: int = 2) -> None:
        self.calls = calls
        self.go_on = [asyncio.Event() for _ in range(calls)]
        self.given: list[list[tuple[int, str]]] = []

    async def __call__(self, attempt: Attempt) -> Outcome:
        writer = attempt.writer
        for n in range(1, self.calls + 1):
            given = await writer.take_steers(n)
            self.given.append(given)
            if n in attempt.earlier.model_calls:
                continue
            said = f"call {n} of {attempt.message}"
            item = assistant_message(said)
            events: list[Event] = [TextDelta(n, said), TextDone(n)]
            await writer.record_model_call(
                n, agent="a", request_sha=b"", response={"n": n}, events=events, items=[item]
            )
            await self.go_on[n - 1].wait()
            await writer.append()  # as a tool's record between two calls
        return Outcome("a")


async def _steer(here: Replica, me: Caller, turn: Turn, message: str, **more: Any) -> Turn:
    return await here.send(me, message, conversation_id=turn.conversation_id, on_busy="steer", **more)


async def _waits(here: Replica, turn: Turn, events: int) -> None:
    async def grown() -> bool:
        return await count(here.database, f"turn where id = '{turn.id}' and last_event >= {events}") == 1

    await until(grown)


async def test_a_message_put_into_a_turn_is_given_to_its_next_model_call(database: Database, me: Caller) -> None:
    talk = Talk()
    async with replica(database, talk) as here:
        turn = await here.send(me, "paint it")
        await _waits(here, turn, 2)
        assert (await _steer(here, me, turn, "in blue")).id == turn.id
        for event in talk.go_on:
            event.set()
        events = [n.event for n in await here.read_to_the_end(turn)]
    assert talk.given == [[], [(2, "in blue")]]
    assert [type(event) for event in events] == [TextDelta, TextDone, Steered, TextDelta, TextDone, Done]
    said = [body["content"] for body in await bodies(database, turn.conversation_id)]
    assert said == ["paint it", "call 1 of paint it", "in blue", "call 2 of paint it"]
    assert await count(database, "turn") == 1


async def test_whoever_takes_the_turn_over_gives_each_call_the_same_messages(database: Database, me: Caller) -> None:
    first, second = Talk(3), Talk(3)
    async with replica(database, first) as dead, replica(database, second) as alive:
        turn = await dead.send(me, "paint it")
        await _waits(dead, turn, 2)
        await _steer(alive, me, turn, "in blue")
        first.go_on[0].set()
        await _waits(dead, turn, 5)
        await _steer(alive, me, turn, "and red")
        await kill(database, turn)
        for event in second.go_on:
            event.set()
        await alive.read_to_the_end(turn)
    assert second.given == [[], [(2, "in blue")], [(2, "in blue"), (3, "and red")]]
    said = [body["content"] for body in await bodies(database, turn.conversation_id)]
    assert said[2:] == ["in blue", "call 2 of paint it", "and red", "call 3 of paint it"]


async def test_a_message_that_no_model_call_was_given_is_a_turn_of_its_own(database: Database, me: Caller) -> None:
    talk = Talk(1)
    async with replica(database, talk) as here:
        turn = await here.send(me, "paint it")
        await _waits(here, turn, 2)
        await _steer(here, me, turn, "in blue", client_key="k")
        talk.go_on[0].set()
        await here.read_to_the_end(turn)
        again = await _steer(here, me, turn, "in blue", client_key="k")
        assert again.id != turn.id
        await here.read_to_the_end(again)
    said = [body["content"] for body in await bodies(database, turn.conversation_id)]
    assert said == ["paint it", "call 1 of paint it", "in blue", "call 1 of in blue"]


LESSER = frozenset({"conversations:*", "tasks:read"})


@pytest.mark.parametrize(
    ("of_turn", "of_sender", "into"),
    [
        ({"*"}, LESSER, False),
        ({"*"}, {"*"}, True),
        ({"tasks:*"}, LESSER, False),
        ({"tasks:read"}, LESSER, True),
        ({"tasks:read", "leads:read"}, LESSER, False),
        (LESSER, {"*"}, True),
        ((), LESSER, True),
        ((), (), True),
    ],
)
@pytest.mark.parametrize("late", [False, True])
async def test_a_message_is_put_into_a_turn_only_where_its_sender_holds_all_that_the_turn_does(
    database: Database, of_turn: Any, of_sender: Any, into: bool, late: bool
) -> None:
    first = Caller(id=new_id(), kind="user", scopes=frozenset(of_turn))
    second = Caller(id=first.id, kind="user", scopes=frozenset(of_sender))
    talk, answered = Talk(1 if late else 2), list[tuple[str, frozenset[str]]]()

    async def run(attempt: Attempt) -> Outcome:
        answered.append((attempt.message, attempt.caller.scopes))
        return await talk(attempt)

    async with replica(database, run) as here:
        turn = await here.send(first, "paint it")
        await _waits(here, turn, 2)
        sent = await _steer(here, second, turn, "in blue")
        assert (sent.id == turn.id) is into
        for event in talk.go_on:
            event.set()
        await here.read_to_the_end(turn)
        await until(lambda: _all_ended(database))
    # of its own, or of the turn that it came too late for: never with more than its sender holds
    for message, scopes in answered:
        assert not beyond(scopes, (first if message == "paint it" else second).scopes)
    assert [message for message, _ in answered] == (["paint it"] if into and not late else ["paint it", "in blue"])


async def _all_ended(database: Database) -> bool:
    return await count(database, "turn where finished_at is null") == 0


async def test_a_guests_turn_is_steered_by_the_guest_alone(database: Database) -> None:
    guest = Caller(id=new_id(), kind="guest", scopes=frozenset({"conversations:write"}))
    user = Caller(id=guest.id, kind="user", scopes=frozenset({"*"}))
    async with replica(database, never) as here:
        async with database.transaction(guest.id) as session:
            await issue_guest(session, guest.id, hours=1)
        turn = await here.send(guest, "paint it")
        assert (await _steer(here, guest, turn, "in blue")).id == turn.id
        assert (await _steer(here, user, turn, "in red")).id != turn.id


async def test_the_same_message_is_put_into_a_turn_once(database: Database, me: Caller) -> None:
    talk = Talk()
    async with replica(database, talk) as here:
        turn = await here.send(me, "paint it")
        await _waits(here, turn, 2)
        copies = [_steer(here, me, turn, "in blue", client_key="k") for _ in range(5)]
        assert {copy.id for copy in await asyncio.gather(*copies)} == {turn.id}
        with pytest.raises(InvalidInput, match="another message"):
            await _steer(here, me, turn, "in red", client_key="k")
        for event in talk.go_on:
            event.set()
        await here.read_to_the_end(turn)
        assert (await _steer(here, me, turn, "in blue", client_key="k")).id == turn.id
    assert talk.given[-1] == [(2, "in blue")]
    assert await count(database, "turn") == 1


async def test_a_message_put_into_a_turn_that_is_stopped_stays_in_the_conversation(
    database: Database, me: Caller
) -> None:
    talk = Talk()
    async with replica(database, talk) as here:
        turn = await here.send(me, "paint it")
        await _waits(here, turn, 2)
        await _steer(here, me, turn, "in blue", client_key="k")
        await here.runner.stop_turn(me.id, turn.id)
        assert [n.event for n in await here.read_to_the_end(turn)][-1] == Cancelled()
        assert (await _steer(here, me, turn, "in blue", client_key="k")).id == turn.id
    said = [body["content"] for body in await bodies(database, turn.conversation_id)]
    assert said == ["paint it", "call 1 of paint it", "in blue"]
    assert await count(database, "turn") == 1


async def test_where_nothing_runs_a_message_for_the_running_turn_is_a_turn(database: Database, me: Caller) -> None:
    talk = Talk(1)
    talk.go_on[0].set()
    async with replica(database, talk) as here:
        first = await here.send(me, "paint it")
        await here.read_to_the_end(first)
        for on_busy in ("steer", "interrupt"):
            turn = await here.send(me, on_busy, conversation_id=first.conversation_id, on_busy=on_busy)
            assert turn.id != first.id
            assert isinstance((await here.read_to_the_end(turn))[-1].event, Done)


async def test_an_interruption_stops_what_runs_on_another_replica_and_waits_for_its_place(
    database: Database, me: Caller
) -> None:
    """The run never writes: nothing but the hint of the other replica tells it to stop."""
    order: list[str] = []

    async def run(attempt: Attempt) -> Outcome:
        order.append(attempt.message)
        return await never(attempt) if attempt.message == "first" else Outcome()

    async with replica(database, run) as here, replica(database, run) as there:
        first = await here.send(me, "first")

        async def begun() -> bool:
            return order == ["first"]

        await until(begun)
        more = {"conversation_id": first.conversation_id}
        waiting = await there.send(me, "second", **more)
        last = await there.send(me, "third", on_busy="interrupt", **more)
        await there.read_to_the_end(last)
        assert [n.event for n in await there.read_to_the_end(first)] == [Cancelled()]
        assert await ended(database, waiting, last)
    assert order == ["first", "second", "third"]


async def test_however_they_meet_each_message_is_answered_once(database: Database, me: Caller) -> None:
    """Messages are put into turns while these end."""

    async def run(attempt: Attempt) -> Outcome:
        for n in (1, 2):
            given = await attempt.writer.take_steers(n)
            texts = [attempt.message, *(said for _, said in given)] if n == 2 else []
            items = [NewItem(body={"answered": said}) for said in texts]
            await attempt.writer.append(items=items)
        return Outcome()

    async with replica(database, run) as here, replica(database, run) as there:
        first = await here.send(me, "0")
        for n in range(1, 60):
            await _steer(here if n % 2 else there, me, first, str(n), client_key=str(n), queue_limit=60)
            await asyncio.sleep(0.002 * (n % 4))

        async def idle() -> bool:
            return await count(database, "turn where finished_at is null") == 0

        await until(idle)
    async with everything(database) as session:
        rows = await session.execute(text("select body ->> 'answered' from item where body ? 'answered'"))
        assert sorted(rows.scalars(), key=int) == [str(n) for n in range(60)]
    assert await count(database, "steer where consumed_n is null") == 0


async def test_so_many_messages_wait_to_be_put_into_a_turn(database: Database, me: Caller) -> None:
    talk = Talk()
    async with replica(database, talk) as here:
        turn = await here.send(me, "paint it")
        await _waits(here, turn, 2)
        for n in range(MOST_WAITING):
            await _steer(here, me, turn, str(n))
        with pytest.raises(TooMany, match="20 messages"):
            await _steer(here, me, turn, "one more")
        talk.go_on[0].set()
        await until(lambda: _given(talk, MOST_WAITING))
        assert (await _steer(here, me, turn, "now again")).id == turn.id
        talk.go_on[1].set()
        await here.read_to_the_end(turn)


async def _given(talk: Talk, messages: int) -> bool:
    return sum(map(len, talk.given)) == messages
