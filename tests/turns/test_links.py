"""A link to Postgres that is slow, cut, or half-open: every turn ends, and nothing happens twice."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from sqlalchemy import text
from sqlmodel import col, select

from agent_server.caller import Caller
from agent_server.conversations.items import assistant_message
from agent_server.conversations.models import Conversation, Item
from agent_server.conversations.repository import ConversationRepository
from agent_server.db import Database, new_id
from agent_server.errors import Unavailable
from agent_server.heartbeat import LOCK_SPACE
from agent_server.signals import Signals, TurnGrew
from agent_server.tool import ToolContext, tool
from agent_server.turns.attempt import Attempt, Outcome
from agent_server.turns.events import Numbered, TextDelta, TextDone
from agent_server.turns.models import Turn
from tests.conftest import everything
from tests.proxy import Proxy, end_connections, proxied
from tests.turns.ledger import Replica, call, count, ended, read_log, read_turn, replica, until

_LOCKED = f"""
    select r.id from replica r join pg_locks l on l.objid = r.lock_key::oid
    where l.locktype = 'advisory' and l.classid = {LOCK_SPACE} and l.granted"""


@tool(scope="conversations:write", effect="stored")
async def note_down(context: ToolContext) -> str:
    """Leave a row in this database."""
    await context.repository(ConversationRepository).add(Conversation(title="noted"))
    return "noted"


NOTES = "conversation where title = 'noted'"


@dataclass
class Talk:
    """One replica's run: half an answer, whatever `meanwhile` does, the rest of it, and a tool."""

    database: Database
    meanwhile: Callable[[Attempt], Awaitable[None]] | None = None
    cancelled: int = 0
    ran: list[int] = field(default_factory=list)
    """The epochs of the attempts."""

    async def __call__(self, attempt: Attempt) -> Outcome:
        writer = attempt.writer
        self.ran.append(writer.epoch)
        answered = attempt.earlier.model_calls
        if not answered:
            await writer.append(TextDelta(1, "Fins "))
            try:
                if self.meanwhile is not None:
                    await self.meanwhile(attempt)
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            await writer.record_model_call(
                1,
                agent="assistant",
                request_sha=b"",
                response={},
                events=[TextDelta(1, "float."), TextDone(1)],
                items=[assistant_message("Fins float.")],
            )
        await call(self.database, attempt, note_down)
        return Outcome("assistant")


@dataclass
class Pair:
    """Two replicas on one database: one behind `proxy`, one that reaches it directly."""

    proxy: Proxy
    behind: Replica
    behind_talk: Talk
    direct: Replica
    direct_talk: Talk

    async def is_answered_once(self, *turns: Turn) -> None:
        """Wait until the turns have ended, and look at what is left of them."""
        database = self.direct.database
        await until(lambda: ended(database, *turns))
        for turn in turns:
            assert (await read_turn(database, turn)).status == "done"
            assert await _said(database, turn) == [turn.input["message"], "Fins float."]
            events = await self.events(turn)
            assert [event.seq for event in events] == list(range(1, len(events) + 1))
            assert Counter(event.event.kind for event in events)["done"] == 1
        assert await count(database, NOTES) == len(turns)

    async def events(self, turn: Turn) -> list[Numbered]:
        return await read_log(self.direct.database, turn)

    async def serves_again(self, me: Caller) -> list[Turn]:
        """Wait until the replica behind the proxy is known to live, takes a message and claims the one that waits behind
        it, with the other one on its way out; returns their turns."""
        await until(self._alive)
        await self.direct.runner.drain(0)
        gate = asyncio.Event()
        sent: list[Turn] = []

        async def hold(_: Attempt) -> None:
            await gate.wait()

        async def taken() -> bool:
            with suppress(Unavailable):
                sent.append(await self.behind.send(me, "again", client_key="again"))  # pragma: allowlist secret
            return bool(sent)

        self.behind_talk.meanwhile = hold
        await until(taken)
        sent.append(await self.behind.send(me, "and again", conversation_id=sent[0].conversation_id))
        assert sent[1].status == "queued"
        gate.set()
        await until(lambda: ended(self.direct.database, *sent))
        return sent

    async def _alive(self) -> bool:
        async with everything(self.direct.database) as session:
            locks = await session.execute(text(_LOCKED))
            return self.behind.runner.replica.id in set(locks.scalars())


async def _said(database: Database, turn: Turn) -> list[str]:
    async with everything(database) as session:
        said = select(Item.text).where(col(Item.turn_id) == turn.id, col(Item.role).is_not(None))
        return [str(text) for text in (await session.execute(said.order_by(col(Item.k)))).scalars()]


@pytest.fixture
async def pair(url: str, database: Database) -> AsyncIterator[Pair]:
    async with proxied(url) as proxy:
        far = Database(proxy.url, pool_timeout=2, answer_timeout=3)
        behind, direct = Talk(far), Talk(database)
        async with replica(far, behind) as one, replica(database, direct) as two:
            await asyncio.gather(*(count(far, "turn") for _ in range(8)))  # the pool is full of connections
            yield Pair(proxy, one, behind, two, direct)
            proxy.heal()
        await far.close()


async def test_over_a_slow_link_turns_are_answered_by_the_replica_that_took_them(pair: Pair, me: Caller) -> None:
    pair.proxy.latency = 0.05
    turns = await asyncio.gather(*(pair.behind.send(me, f"Fins {n}") for n in range(4)))
    await pair.is_answered_once(*turns)
    assert [(await read_turn(pair.direct.database, turn)).epoch for turn in turns] == [1, 1, 1, 1]
    assert pair.direct_talk.ran == []


async def _held_behind(pair: Pair, me: Caller, gate: asyncio.Event) -> Turn:
    """A turn that the replica behind the proxy has half answered, and goes on with when `gate` is open."""
    reached = asyncio.Event()

    async def hold(_: Attempt) -> None:
        reached.set()
        await gate.wait()

    pair.behind_talk.meanwhile = hold
    turn = await pair.behind.send(me, "fins")
    async with asyncio.timeout(30):
        await reached.wait()
    pair.behind_talk.meanwhile = None
    return turn


async def test_a_replica_that_is_cut_off_stops_its_turns_another_ends_them_and_later_it_serves_again(
    pair: Pair, me: Caller
) -> None:
    turn = await _held_behind(pair, me, asyncio.Event())
    pair.proxy.cut()
    with pytest.raises(Unavailable):
        await pair.behind.send(me)
    await pair.is_answered_once(turn)
    assert pair.direct_talk.ran == [2]

    async def stopped() -> bool:
        return pair.behind_talk.cancelled == 1

    await until(stopped)
    pair.proxy.heal()
    await pair.is_answered_once(turn, *await pair.serves_again(me))


async def test_a_replica_that_comes_back_to_a_turn_that_another_has_ended_writes_nothing(
    pair: Pair, me: Caller
) -> None:
    gate = asyncio.Event()
    turn = await _held_behind(pair, me, gate)
    pair.proxy.cut()
    await pair.is_answered_once(turn)
    before = await pair.events(turn)
    pair.proxy.heal()
    gate.set()
    await pair.is_answered_once(turn, *await pair.serves_again(me))
    assert await pair.events(turn) == before


@pytest.mark.parametrize("lost", [False, True], ids=["held up", "lost"])
async def test_a_replica_on_a_half_open_link_stops_its_turns_another_ends_them_and_later_it_serves_again(
    lost: bool, pair: Pair, me: Caller
) -> None:
    turn = await _held_behind(pair, me, asyncio.Event())
    pair.proxy.hang()
    await pair.is_answered_once(turn)
    assert pair.direct_talk.ran == [2]

    async def stopped() -> bool:
        return pair.behind_talk.cancelled == 1

    await until(stopped)
    if lost:
        pair.proxy.lose()
    pair.proxy.heal()
    await pair.is_answered_once(turn, *await pair.serves_again(me))


async def test_a_write_that_a_half_open_link_holds_back_neither_keeps_the_turn_nor_comes_later(
    pair: Pair, me: Caller
) -> None:
    hung = asyncio.Event()

    async def write(attempt: Attempt) -> None:
        async with attempt.writer.transaction() as session:
            await attempt.writer.write(session, [TextDelta(1, "or ")])
            pair.proxy.hang()  # the row is locked, and the commit stays on its way
            hung.set()

    pair.behind_talk.meanwhile = write
    turn = await pair.behind.send(me, "fins")
    async with asyncio.timeout(30):
        await hung.wait()
    pair.behind_talk.meanwhile = None
    await pair.is_answered_once(turn)
    before = await pair.events(turn)
    pair.proxy.heal()
    await pair.is_answered_once(turn, *await pair.serves_again(me))
    assert await pair.events(turn) == before


async def test_on_a_half_open_link_a_request_is_told_that_the_database_is_away(pair: Pair, me: Caller) -> None:
    pair.proxy.hang()
    async with asyncio.timeout(60):
        answers = await asyncio.gather(*(pair.behind.send(me) for _ in range(10)), return_exceptions=True)
    assert all(isinstance(answer, Unavailable) for answer in answers)


async def test_hints_come_again_after_the_server_ended_a_connection_and_did_not_close_it(
    url: str, database: Database
) -> None:
    async with proxied(url) as proxy:
        far = Database(proxy.url)
        behind, direct = Signals(far, new_id()), Signals(database, new_id())
        await behind.start()
        await direct.start()
        proxy.hide_ends()
        await end_connections(proxy, database)
        sent, answer = TurnGrew(new_id()), TurnGrew(new_id())
        behind.send(sent)
        async with asyncio.timeout(30):
            assert await direct.received.get() == sent
            direct.send(answer)
            assert await behind.received.get() == answer
        proxy.heal()
        await asyncio.gather(behind.close(), direct.close(), far.close())


async def test_a_replica_whose_connections_were_all_ended_and_not_closed_lives_on(pair: Pair, me: Caller) -> None:
    pair.proxy.hide_ends()
    await end_connections(pair.proxy, pair.direct.database)

    sent: list[Turn] = []

    async def taken() -> bool:
        with suppress(Unavailable):
            sent.append(await pair.behind.send(me))
        return bool(sent)

    await until(taken)
    pair.proxy.heal()
    await pair.is_answered_once(*sent, *await pair.serves_again(me))
