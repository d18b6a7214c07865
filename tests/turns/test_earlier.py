"""What an attempt takes over: all that earlier ones have stored, in one value."""

from agent_server.caller import Caller
from agent_server.db import Database
from agent_server.turns.attempt import Attempt, Outcome
from agent_server.turns.earlier import NOTHING, Earlier
from agent_server.turns.events import AgentChosen, Event, PassagesFound, Reset, Steered, TextDelta, TextDone
from tests.turns.ledger import kill, never, read_log, replica, until

PAGE: list[Event] = [
    AgentChosen("diving", "meaning", 1.0),
    PassagesFound([{"n": 1}]),
    TextDelta(0, "Call"),
    TextDone(0),
]


async def test_an_attempt_is_given_what_the_one_before_it_stored_and_the_first_is_given_nothing(
    database: Database, me: Caller
) -> None:
    given: list[Earlier] = []

    async def dies(attempt: Attempt) -> Outcome:
        given.append(attempt.earlier)
        writer = attempt.writer
        await writer.append(*PAGE)
        await here.send(me, "in blue", conversation_id=writer.conversation_id, on_busy="steer")
        await writer.append()  # sees that a message has been put into the turn
        assert await writer.take_steers(1) == [(1, "in blue")]
        await writer.record_model_call(
            1,
            agent="diving",
            request_sha=b"",
            response={"id": "r"},
            events=[TextDelta(1, "Yes"), TextDone(1)],
            items=(),
        )
        await writer.append(TextDelta(2, "No"))
        return await never(attempt)

    async def takes_over(attempt: Attempt) -> Outcome:
        given.append(attempt.earlier)
        return Outcome()

    async with replica(database, dies) as here, replica(database, takes_over) as there:
        turn = await here.send(me)

        async def died() -> bool:
            return len(await read_log(database, turn)) == 8

        await until(died)
        await kill(database, turn)
        events = [numbered.event for numbered in await there.read_to_the_end(turn)]
    first, second = given
    assert first == NOTHING
    assert {n: row.response for n, row in second.model_calls.items()} == {1: {"id": "r"}}
    assert second.steers == [(1, "in blue")]
    assert second.events == [*PAGE, Steered("in blue"), TextDelta(1, "Yes"), TextDone(1), TextDelta(2, "No")]
    assert (second.last_call, second.unfinished_calls) == (1, [2])
    assert events[8] == Reset(2)
