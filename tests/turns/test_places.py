"""A process takes on so many turns: they run in the order in which they came, and one more is refused before any work."""

import asyncio
from collections import Counter
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_server.caller import Caller
from agent_server.db import Database, new_id
from agent_server.errors import TooMany, Unavailable
from agent_server.testing import Say, scripted_openai
from agent_server.turns.attempt import Attempt, Outcome, Run
from agent_server.turns.places import LONGEST_WAIT, Place, Places
from tests.conftest import fetch
from tests.server import Client, Start
from tests.turns.ledger import count, ended, replica, until

OWNERS = [new_id() for _ in range(4)]
STEPS = st.lists(
    st.tuples(st.sampled_from(["arrive", "stay", "give up", "claim", "end", "elsewhere", "look"]), st.integers(0, 9)),
    max_size=60,
)


@given(
    slots=st.integers(0, 4), waiting=st.integers(0, 4), most=st.integers(1, 6), at_once=st.integers(1, 4), steps=STEPS
)
def test_whatever_comes_and_goes_no_more_run_and_wait_than_may_and_nobody_overtakes(
    slots: int, waiting: int, most: int, at_once: int, steps: list[tuple[str, int]]
) -> None:
    places = Places(slots=slots, waiting=waiting)
    arriving: list[Place] = []
    running: dict[UUID, UUID] = {}
    line: list[Place] = []
    behind: set[UUID] = set()
    for step, n in steps:
        owner = OWNERS[n % len(OWNERS)]
        of_owner = [place.owner_id for place in (*arriving, *line)].count(owner) + list(running.values()).count(owner)
        taken = len(arriving) + len(running) + len(line)
        match step:
            case "arrive" if of_owner >= most:
                with pytest.raises(TooMany, match="busy") as refused:
                    places.arrive(owner, most=most, may_run=True)
                assert 1 <= (refused.value.retry_after or 0) <= LONGEST_WAIT
            case "arrive" if taken >= slots + waiting:
                with pytest.raises(Unavailable, match="busy") as full:
                    places.arrive(owner, most=most, may_run=True)
                assert 1 <= (full.value.retry_after or 0) <= LONGEST_WAIT
            case "arrive":
                own = list(running.values()).count(owner) + sum(p.has_slot and p.owner_id == owner for p in arriving)
                others = [p for p in (*arriving, *line) if not p.has_slot]
                waits = own >= at_once or any(p.turn_id in behind and p.owner_id == owner for p in others)
                place = places.arrive(owner, most=most, may_run=True, at_once=at_once)
                stands = [p for p in others if p.turn_id not in behind]
                assert not (place.has_slot and (stands or waits)), "those that wait come first"
                assert place.has_slot or stands or waits or len(running) + len(arriving) >= slots
                arriving.append(place)
                if waits:
                    behind.add(place.turn_id)
            case "stay" if arriving:
                place = arriving.pop(0)
                if place.has_slot:
                    places.run(place.turn_id, place.owner_id)
                    running[place.turn_id] = place.owner_id
                else:
                    places.wait(place)
                    line.append(place)
            case "give up" if arriving:
                places.leave(arriving.pop().turn_id)
            case "claim" if line and places.free_slots:
                place = line.pop(0)
                places.run(place.turn_id, place.owner_id)
                running[place.turn_id] = place.owner_id
            case "end" if running:
                places.end(ended := next(iter(running)))
                del running[ended]
            case "elsewhere" if line:
                places.stop_waiting({line.pop(0).turn_id, *running})
            case _:
                pass
        with_slot = running.keys() | {place.turn_id for place in arriving if place.has_slot}
        assert places.with_slot == with_slot
        assert len(with_slot) <= slots and places.free_slots == slots - len(with_slot)
        assert dict(places.waiting) == {place.turn_id: place.owner_id for place in line}
        assert places.in_line == {place.turn_id for place in line} - behind


def _caller() -> Caller:
    return Caller(id=new_id(), kind="user", scopes=frozenset({"*"}))


async def test_messages_that_come_at_the_same_time_are_never_begun_in_more_slots_than_there_are(
    database: Database,
) -> None:
    running: Counter[str] = Counter()
    go_on = asyncio.Event()

    async def run(_: Attempt) -> Outcome:
        running["now"] += 1
        running["most"] = max(running["most"], running["now"])
        await go_on.wait()
        running["now"] -= 1
        return Outcome()

    async with replica(database, run, slots=3) as here:
        turns = await asyncio.gather(*(here.send(_caller()) for _ in range(40)))
        assert Counter(turn.status for turn in turns) == {"running": 3, "queued": 37}
        go_on.set()
        await until(lambda: ended(database, *turns))
    assert running["most"] <= 3


def _hold_turns() -> tuple[list[str], asyncio.Semaphore, Run]:
    """The messages of turns in the order in which they begin, what lets one of them end, and what runs them."""
    begun: list[str] = []
    go_on = asyncio.Semaphore(0)

    async def run(attempt: Attempt) -> Outcome:
        begun.append(attempt.message)
        await go_on.acquire()
        return Outcome()

    return begun, go_on, run


async def test_who_comes_when_a_slot_is_freed_is_begun_after_those_that_wait(database: Database) -> None:
    begun, go_on, run = _hold_turns()
    async with replica(database, run, slots=2) as here:
        turns = [await here.send(_caller(), str(n)) for n in range(6)]
        for n in range(6, 16):
            go_on.release()
            turns.append(await here.send(_caller(), str(n)))  # in the instant that one of two slots is free
        for _ in turns:
            go_on.release()
        await until(lambda: ended(database, *turns))
    # the two slots are filled side by side
    assert all(abs(int(message) - place) <= 1 for place, message in enumerate(begun)), begun


async def test_who_comes_when_a_turn_of_the_same_caller_ends_is_begun_after_those_of_the_caller_that_wait(
    database: Database,
) -> None:
    begun, go_on, run = _hold_turns()
    caller = _caller()
    async with replica(database, run, slots=8) as here:
        turns = [await here.send(caller, str(n), at_once=2) for n in range(6)]
        for n in range(6, 16):
            go_on.release()
            turns.append(await here.send(caller, str(n), at_once=2))
            # others are not held up by what this caller has waiting
            assert (await here.send(_caller(), "other")).status == "running"
            go_on.release()
        for _ in turns:
            go_on.release()
        await until(lambda: ended(database, *turns))
    own = [int(message) for message in begun if message != "other"]
    assert all(abs(message - place) <= 1 for place, message in enumerate(own)), begun


async def _rows(url: str) -> list[tuple[int, ...]]:
    return await fetch(
        url,
        """select (select count(*) from turn), (select count(*) from conversation), (select count(*) from item),
                  (select count(*) from guest)""",
    )


async def test_a_server_that_is_full_refuses_before_any_work_and_knows_what_it_has_accepted(
    start: Start, stocked_url: str
) -> None:
    go_on = asyncio.Event()
    bounds = {"turns_per_process": 2, "waiting_per_process": 3, "turns_per_user": 2, "waiting_per_user": 2}
    async with (
        scripted_openai(lambda _: Say("Fins float.", hold=(1, go_on))) as model,
        start(openai_base_url=model.url, model="m", **bounds) as client,
    ):
        mine = [await _send(client, client.key, f"k{n}") for n in range(4)]
        assert [status for status, *_ in mine] == [200] * 4
        # four is the most of one caller
        before = await _rows(stocked_url)
        status, words, wait, _ = await _send(client, client.key, "k4")
        assert (status, "busy" in words, int(wait) >= 1) == (429, True, True)
        others = [await client.new_key() for _ in range(3)]
        assert (await _send(client, others[0], "k"))[0] == 200
        before = await _rows(stocked_url)
        for key in (*others[1:], None):  # without a credential it would be a new guest
            status, words, wait, guest = await _send(client, key, "k")
            assert (status, "busy" in words, int(wait) >= 1, guest) == (503, True, True, None)
        assert await _rows(stocked_url) == before
        assert len(model.requests) <= bounds["turns_per_process"]
        # Sent again, by callers who could send nothing else.
        again = [await _send(client, client.key, f"k{n}") for n in range(4)]
        assert [turn for *_, turn in again] == [turn for *_, turn in mine]
        go_on.set()

        async def room() -> bool:
            return (await _send(client, others[1], "k"))[0] == 200

        await until(room)
        async with client.http.stream("GET", f"/api/turns/{mine[3][3]}/events", headers=client.auth) as response:
            assert "event: done" in (await response.aread()).decode()


async def _send(client: Client, key: str | None, client_key: str) -> tuple[int, str, str, str | None]:
    """Send a message, and leave; the status, the words of a refusal, when to come again, and the turn."""
    headers = {"Idempotency-Key": client_key} | ({"Authorization": f"Bearer {key}"} if key else {})
    async with client.http.stream("POST", "/api/chat", json={"message": "fins"}, headers=headers) as response:
        words = "" if response.status_code == 200 else (await response.aread()).decode()
        found = response.headers.get("X-Turn-Id") or response.headers.get("X-Guest-Token")
        return response.status_code, words, response.headers.get("Retry-After", "0"), found


async def test_a_place_is_free_again_when_another_process_begins_the_turn_or_it_is_stopped(database: Database) -> None:
    async def run(_: Attempt) -> Outcome:
        return Outcome()

    async with replica(database, run, slots=0, waiting=3) as full:
        me = _caller()
        turns = [await full.send(me, str(n)) for n in range(3)]
        with pytest.raises(Unavailable, match="busy"):
            await full.send(_caller())
        await full.runner.stop_turn(me.id, turns[0].id)
        async with replica(database, run):
            await until(lambda: ended(database, *turns))

        async def all_free() -> bool:
            try:
                with full.runner.arriving(new_id()), full.runner.arriving(new_id()), full.runner.arriving(new_id()):
                    return True
            except Unavailable:
                return False

        await until(all_free)


async def test_a_message_that_is_refused_or_sent_again_leaves_its_place_to_others(database: Database) -> None:
    async def run(_: Attempt) -> Outcome:
        await asyncio.Event().wait()
        return Outcome()

    async with replica(database, run, slots=2, waiting=0) as here:
        me = _caller()
        first = await here.send(me, client_key="k")
        for _ in range(5):
            assert (await here.send(me, client_key="k")).id == first.id
            with pytest.raises(Exception, match="still being answered"):
                await here.send(me, conversation_id=first.conversation_id, on_busy="reject")
        assert (await here.send(me)).status == "running"
        with pytest.raises(Unavailable):
            await here.send(me)
        assert await count(database, "turn") == 2
