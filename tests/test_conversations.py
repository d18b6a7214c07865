"""What a model is given of earlier turns: never half of a call, whatever the cut."""

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from agent_server.caller import Caller
from agent_server.conversations.history import history
from agent_server.conversations.items import NewItem
from agent_server.conversations.models import Item
from agent_server.conversations.repository import ConversationRepository, ItemRepository
from agent_server.db import SYSTEM, Database
from agent_server.turns.attempt import Attempt, Outcome
from tests.conftest import everything
from tests.turns.ledger import answer, ended, replica, until


def _item(body: dict[str, Any]) -> Item:
    return Item(owner_id=SYSTEM, conversation_id=SYSTEM, turn_no=1, k=1, turn_id=SYSTEM, body=body)


def _said(role: str) -> Item:
    return _item({"role": role, "content": "words"})


def _call(id: str) -> Item:
    return _item({"type": "function_call", "call_id": id, "name": "t", "arguments": "{}"})


def _output(id: str) -> Item:
    return _item({"type": "function_call_output", "call_id": id, "output": "x"})


def _turn(ids: list[str], stopped: int, spoke: bool) -> list[Item]:
    """A turn that makes these calls at once; the last `stopped` of them did not return."""
    returned = [_output(id) for id in ids[: max(0, len(ids) - stopped)]]
    return [_said("user"), *map(_call, ids), *returned, *([_said("assistant")] if spoke else [])]


_turns = st.lists(
    st.builds(_turn, st.lists(st.sampled_from("abc"), unique=True), st.integers(0, 3), st.booleans()), max_size=5
)


@given(turns=_turns, data=st.data())
def test_every_call_has_its_output_and_every_output_its_call_whatever_the_cut(
    turns: list[list[Item]], data: st.DataObject
) -> None:
    items = [item for turn in turns for item in turn]
    cut = items[data.draw(st.integers(0, len(items))) :]
    given = history(cut)
    open: list[str] = []
    for body in given:
        if body.get("type") == "function_call":
            assert body["call_id"] not in open
            open.append(body["call_id"])
        elif body.get("type") == "function_call_output":
            open.remove(body["call_id"])
    assert open == []
    assert not given or given[0].get("role") == "user"
    # Nothing that may be given is left out: what is said from the first message of the user's on.
    bodies = [item.body for item in cut]
    users = [n for n, body in enumerate(bodies) if body.get("role") == "user"]
    said = [body for body in bodies[users[0] :] if "role" in body] if users else []
    assert [body for body in given if "role" in body] == said
    calls = [body for body in given if "call_id" in body]
    whole = [turn for turn in turns if turn[0] in cut]
    assert len(calls) == sum(
        2 * sum(item.body.get("type") == "function_call_output" for item in turn) for turn in whole
    )


def test_an_output_belongs_to_the_call_before_it_where_a_model_uses_an_id_again() -> None:
    stopped, call = _call("a"), _call("a")
    call.body["name"] = "the_one_that_returned"
    items = [_said("user"), stopped, _said("user"), call, _output("a")]
    assert history(items) == [item.body for item in items if item is not stopped]


@given(st.lists(st.sampled_from(["call", "output", "user", "assistant"]), max_size=20))
def test_nothing_stands_between_calls_and_their_outputs(kinds: list[str]) -> None:
    items, open, made = [_said("user")], list[str](), 0
    for kind in kinds:
        if kind == "call":
            made += 1
            open.append(str(made))
            items.append(_call(open[-1]))
        elif kind != "output":
            items.append(_said(kind))
        elif open:
            items.append(_output(open.pop(0)))
    items += [_output(id) for id in open]
    waiting: set[str] = set()
    given = history(items)
    for before, body in itertools.pairwise(given):
        if body.get("type") == "function_call":
            assert not waiting or before.get("type") == "function_call"
            waiting.add(body["call_id"])
        elif body.get("type") == "function_call_output":
            waiting.remove(body["call_id"])
        else:
            assert not waiting
    assert not waiting
    assert len(given) == len(items)


def test_a_history_cut_in_the_middle_of_a_call_begins_with_the_next_message() -> None:
    items = [_output("a"), _said("assistant"), _said("user"), _call("a"), _output("a"), _said("assistant")]
    assert history(items) == [item.body for item in items[2:]]


async def test_the_latest_items_are_the_last_turns_of_the_conversation_in_order(database: Database, me: Caller) -> None:
    async def run(attempt: Attempt) -> Outcome:
        items = [NewItem(body={"n": attempt.message, "k": k}) for k in range(3)]
        await attempt.writer.append(items=items)
        return Outcome()

    async with replica(database, run) as here:
        turns = [await here.send(me, "0")]
        for n in range(1, 4):
            turns.append(await here.send(me, str(n), conversation_id=turns[0].conversation_id))
        await until(lambda: ended(database, *turns))
    async with everything(database) as session:
        conversations = ConversationRepository(session, me)
        row = await conversations.get(turns[0].conversation_id)
        items = ItemRepository(conversations, row)
        fourth = [(4, k) for k in range(1, 5)]
        # Turns are whole: a second one is there only where all of it is.
        for limit, last in ((1, fourth), (7, fourth), (8, [*((3, k) for k in range(1, 5)), *fourth])):
            assert [(i.turn_no, i.k) for i in await items.list_latest(limit, before=5)] == last
        assert len(await items.list_latest(100, before=5)) == 16


async def test_a_repository_sees_its_callers_rows_alone(database: Database, me: Caller, other: Caller) -> None:
    async with replica(database, answer) as here:
        mine = (await here.accept(me, "same words")).turn.conversation_id
        await here.accept(other, "same words")
    async with everything(database) as session:
        # a search finds nothing of owners that the transaction is not for
        await session.execute(
            text("select set_config('agent_server.owners', :both, true)"), {"both": f"{{{me.id},{other.id}}}"}
        )
        repository = ConversationRepository(session, me)
        assert await repository.count() == 1
        assert [row.id for row in (await repository.page_recent(10, words="same")).items] == [mine]
        assert await ConversationRepository(session, other).find(mine) is None
        row = await repository.get(mine)
        assert await ItemRepository(ConversationRepository(session, other), row).list_latest(10, before=5) == []
        assert (await ItemRepository(ConversationRepository(session, other), row).page(10)).items == []
