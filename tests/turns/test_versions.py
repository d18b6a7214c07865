"""Two versions of the server on one database: what one writes, the other reads, runs and hands on."""

import asyncio

from sqlalchemy import text

from agent_server.caller import Caller
from agent_server.db import Database, new_id
from agent_server.protocols.ai_sdk.stream import UIMessageEncoder, ui_message_stream
from agent_server.protocols.base import event_stream
from agent_server.signals import CHANNEL
from agent_server.turns.attempt import Attempt, Outcome
from agent_server.turns.events import Cancelled, Done, Note, Other, TextDelta
from tests.conftest import everything
from tests.turns.ledger import answer, count, never, read_turn, replica, until


async def test_an_event_of_a_newer_version_is_handed_on_and_breaks_no_stream(database: Database, me: Caller) -> None:
    go_on = asyncio.Event()

    async def run(attempt: Attempt) -> Outcome:
        await go_on.wait()
        await attempt.writer.append(TextDelta(1, "x"))
        return Outcome()

    async with replica(database, run) as here:
        turn = await here.send(me)
        async with everything(database) as session:
            await session.execute(text("update turn set last_event = 2"))
            await session.execute(
                text("insert into event (owner_id, turn_id, seq, kind, body, at) values (:o, :t, :seq, :k, :b, now())"),
                [
                    {"o": me.id, "t": turn.id, "seq": 1, "k": "hologram", "b": '{"depth": 3}'},
                    {
                        "o": me.id,
                        "t": turn.id,
                        "seq": 2,
                        "k": "note",
                        "b": '{"code": "a", "text": "b", "colour": "red"}',
                    },
                ],
            )
        go_on.set()
        events = [n.event for n in await here.read_to_the_end(turn)]
        assert events == [Other("hologram", {"depth": 3}), Note("a", "b"), TextDelta(1, "x"), Done()]
        own = [frame async for frame in event_stream(turn.id, here.hub.follow(me.id, turn.id))]
        assert own[0] == f'id: {turn.id}:1\nevent: hologram\ndata: {{"depth":3}}\n\n'.encode()
        encoder = UIMessageEncoder(turn.id, turn.conversation_id)
        ui = [frame async for frame in ui_message_stream(here.hub.follow(me.id, turn.id), encoder, None)]
        assert ui[-1] == b"data: [DONE]\n\n"


async def test_a_turn_that_an_older_version_accepted_is_run(database: Database, me: Caller) -> None:
    """Its rows lack the columns that came later."""
    conversation, turn = new_id(), new_id()
    async with everything(database) as session:
        await session.execute(
            text("""
                insert into conversation (owner_id, id, title, next_turn, created_at, updated_at)
                values (:owner, :conversation, 'old', 2, now(), now())"""),
            {"owner": me.id, "conversation": conversation},
        )
        await session.execute(
            text("""
                insert into turn (owner_id, id, conversation_id, turn_no, body_sha, status, epoch, attempts, last_event,
                                  last_item, cancel, input, created_at)
                values (:owner, :turn, :conversation, 1, '', 'queued', 1, 0, 0, 0, false,
                        '{"message": "hello", "caller": {"kind": "user", "scopes": []}}', now())"""),
            {"owner": me.id, "conversation": conversation, "turn": turn},
        )
        await session.execute(text("insert into replica (id, beat) values (:id, now())"), {"id": new_id()})
    async with replica(database, answer):

        async def done() -> bool:
            return await count(database, "turn where status = 'done'") == 1

        await until(done)


async def test_a_hint_that_this_version_does_not_know_is_ignored(database: Database, me: Caller) -> None:
    async with replica(database, never) as here, replica(database, never) as there:
        turn = await here.send(me)
        async with everything(database) as session:
            for payload in ("", "newer", "newer,q1,e,ezz,s-,w0", f"{'é' * 100}"):
                await session.execute(text("select pg_notify(:c, :p)"), {"c": CHANNEL, "p": payload})
        await there.runner.stop_turn(me.id, turn.id)
        assert [n.event for n in await there.read_to_the_end(turn)] == [Cancelled()]
        assert (await read_turn(database, turn)).attempts == 1
