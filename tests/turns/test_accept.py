"""Accepting a turn: what is promised is stored, once, in its place in the conversation."""

import asyncio
from uuid import uuid4

import pytest
from sqlalchemy import TextClause, text
from sqlalchemy.exc import IntegrityError

from agent_server.caller import Caller
from agent_server.conversations.models import Conversation
from agent_server.db import Database, new_id
from agent_server.errors import Conflict, Forbidden, InvalidInput, NotFound, TooMany
from agent_server.turns.accept import TITLE_LENGTH
from agent_server.turns.sender import read_sender
from tests.conftest import everything
from tests.turns.ledger import answer, bodies, count, never, read_turn, replica


async def test_a_turn_is_stored_with_its_message_before_it_is_promised(database: Database, me: Caller) -> None:
    async with replica(database, never) as here:
        accepted = await here.accept(me, "How deep?", agent="diving")
        stored = await read_turn(database, accepted.turn)
        assert (stored.status, stored.owner, stored.epoch, stored.attempts) == ("running", here.runner.replica.id, 1, 1)
        assert (stored.input["message"], stored.input["agent"]) == ("How deep?", "diving")
        assert read_sender(me.id, stored.input["caller"]) == me
        assert await bodies(database, stored.conversation_id) == [{"role": "user", "content": "How deep?"}]


async def test_without_a_slot_a_turn_is_queued(database: Database, me: Caller) -> None:
    async with replica(database, never, slots=1) as here:
        await here.send(me)
        assert (await here.accept(me, "another conversation")).turn.status == "queued"


async def test_a_title_is_the_message_cut_at_a_word(database: Database, me: Caller) -> None:
    async with replica(database, answer) as here:
        long = await here.accept(me, "  word\n" * 40)
        short = await here.accept(me, "  How\n deep? ")
    async with everything(database) as session:
        title = (await session.get_one(Conversation, (me.id, long.turn.conversation_id))).title
        assert len(title) <= TITLE_LENGTH
        assert title.endswith("word…")
        assert (await session.get_one(Conversation, (me.id, short.turn.conversation_id))).title == "How deep?"


async def test_copies_of_one_request_are_one_turn(database: Database, me: Caller) -> None:
    async with replica(database, never) as here:
        # The first time each of them waits for its connection, one after the other.
        for times in (1, 2, 3):
            copies = await asyncio.gather(*(here.accept(me, client_key=f"{times}") for _ in range(12)))
            assert len({accepted.turn.id for accepted in copies}) == 1
            assert [accepted.fresh for accepted in copies].count(True) == 1
            assert await count(database, "conversation") == times
            assert await count(database, "item") == times


@pytest.mark.parametrize(("message", "agent"), [("another", None), ("hello", "tasks")])
async def test_a_key_that_was_used_for_another_message_is_refused(
    database: Database, me: Caller, message: str, agent: str | None
) -> None:
    async with replica(database, answer) as here:
        await here.accept(me, "hello", client_key="k")
        with pytest.raises(InvalidInput, match="Idempotency-Key"):
            await here.accept(me, message, client_key="k", agent=agent)


async def test_a_key_belongs_to_its_caller(database: Database, me: Caller, other: Caller) -> None:
    async with replica(database, answer) as here:
        mine = await here.accept(me, client_key="k")
        theirs = await here.accept(other, "another", client_key="k")
        assert theirs.fresh
        assert theirs.turn.id != mine.turn.id


@pytest.mark.parametrize(
    ("scopes", "given"),
    [
        ({"conversations:write"}, False),
        ({"conversations:write", "tasks:read"}, True),
        ({"conversations:*"}, True),
        ({"*"}, True),
    ],
)
async def test_the_answer_to_anothers_message_is_given_by_its_key_to_whoever_may_read_it(
    database: Database, scopes: set[str], given: bool
) -> None:
    first = Caller(id=new_id(), kind="user", scopes=frozenset({"conversations:write", "tasks:read"}))
    second = Caller(id=first.id, kind="user", scopes=frozenset(scopes))
    async with replica(database, never) as here:
        sent = await here.accept(first, client_key="k")
        if given:
            assert (await here.accept(second, client_key="k")).turn.id == sent.turn.id
        else:
            with pytest.raises(Forbidden, match="conversations:read"):
                await here.accept(second, client_key="k")


async def test_a_key_is_unique_in_the_database_also_without_the_lock(database: Database, me: Caller) -> None:
    async with replica(database, never) as here:
        await here.accept(me, client_key="k")
        changed = f'{{"id": "{new_id()}", "turn_no": 2, "status": "queued"}}'
        copy = text("insert into turn select (jsonb_populate_record(t, cast(:changed as jsonb))).* from turn t")
        with pytest.raises(IntegrityError, match="client_key"):
            await _execute(database, copy, changed=changed)
        assert await count(database, "turn") == 1


async def _execute(database: Database, statement: TextClause, **values: object) -> None:
    async with everything(database) as session:
        await session.execute(statement, values)


async def test_messages_that_arrive_together_get_dense_numbers_and_one_of_them_runs(
    database: Database, me: Caller
) -> None:
    async with replica(database, never) as here:
        first = await here.accept(me, "first")
        id = first.turn.conversation_id
        many = await asyncio.gather(
            *(here.accept(me, f"message {n}", conversation_id=id, queue_limit=50) for n in range(12))
        )
        assert sorted(accepted.turn.turn_no for accepted in many) == list(range(2, 14))
        assert {accepted.turn.status for accepted in many} == {"queued"}


async def test_messages_that_begin_one_conversation_together_are_all_accepted(database: Database, me: Caller) -> None:
    """A client that makes up its conversations' ids may send two messages before the first has made the row."""
    id = new_id()
    async with replica(database, never) as here:
        both = await asyncio.gather(*(here.accept(me, f"{n}", conversation_id=id, create=True) for n in range(6)))
        assert sorted(accepted.turn.turn_no for accepted in both) == list(range(1, 7))
        assert [accepted.turn.status for accepted in both].count("running") == 1
        assert await count(database, "conversation") == 1


async def test_at_most_so_many_wait_and_a_caller_may_ask_not_to(database: Database, me: Caller) -> None:
    async with replica(database, never) as here:
        id = (await here.accept(me)).turn.conversation_id
        for _ in range(2):
            await here.accept(me, conversation_id=id, queue_limit=2)
        with pytest.raises(TooMany):
            await here.accept(me, conversation_id=id, queue_limit=2)
        with pytest.raises(Conflict):
            await here.accept(me, conversation_id=id, on_busy="reject")
        assert await count(database, "turn") == 3
        assert await count(database, "item") == 3


async def test_a_conversation_of_another_caller_is_not_there(database: Database, me: Caller, other: Caller) -> None:
    async with replica(database, answer) as here:
        theirs = (await here.accept(other)).turn.conversation_id
        for id in (theirs, uuid4()):
            with pytest.raises(NotFound):
                await here.accept(me, conversation_id=id)
        mine = await here.accept(me, conversation_id=theirs, create=True)
        assert mine.turn.turn_no == 1  # a conversation of one's own that happens to have the same id
        assert len(await bodies(database, theirs)) == 2
