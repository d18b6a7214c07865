"""What an item says is stored once: whoever reads the log gets the very events that were written."""

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from agent_server.caller import Caller
from agent_server.calls.ledger import CallOutcome, outcome_text
from agent_server.conversations.items import NewItem, assistant_message, thought_item, tool_output_item
from agent_server.db import Database, storable
from agent_server.turns.events import Done, Event, Note, TextDelta, TextDone, ThoughtDelta, ToolReturned, body_of
from tests.conftest import everything
from tests.turns.ledger import never, read_log, replica

words = st.text(st.sampled_from('ab\u00e9\u20ac\U0001f600\n"\\\x00'), min_size=0, max_size=12).map(
    lambda word: word * 12
)
outputs = st.recursive(
    words | st.integers() | st.booleans() | st.none(),
    lambda each: (
        st.lists(each, max_size=3) | st.dictionaries(st.sampled_from(["z", "a", "text", "\u00e9"]), each, max_size=3)
    ),
    max_leaves=5,
)


@st.composite
def writes(draw: st.DrawFn) -> tuple[list[Event], list[NewItem]]:
    """The events and items of one write, whose texts are those of the items, parts of them, or others."""
    events: list[Event] = []
    items: list[NewItem] = []
    for n in range(draw(st.integers(0, 3))):
        said, output, kept = draw(words), draw(outputs), draw(st.booleans())
        if draw(st.booleans()):
            cut = draw(st.integers(0, len(said)))
            events += [TextDelta(n, said[:cut]), TextDelta(n, said[cut:]), TextDone(n), ThoughtDelta(n, said)]
            items += [assistant_message(said), thought_item(said)] if kept else []
        else:
            outcome = CallOutcome(output, draw(st.none() | words.map("failed: {}".format)))
            events.append(ToolReturned(f"call_{n}", "look_up", outcome.output, outcome.error))
            items += [tool_output_item(f"call_{n}", outcome_text(outcome))] if kept else []
    return draw(st.permutations([*events, Note("a", draw(words))])), draw(st.permutations(items))


@given(
    written=st.lists(st.tuples(writes(), st.integers(1, 3)), max_size=4),
    used=st.integers(1, 90),
    after=st.integers(0, 6),
)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
async def test_a_log_reads_the_same_in_every_form_and_from_every_place(
    database: Database, me: Caller, written: list[tuple[tuple[list[Event], list[NewItem]], int]], used: int, after: int
) -> None:
    async with replica(database, never) as here, replica(database, never) as elsewhere:
        turn = (await here.accept(me)).turn
        here.hub.begin(turn.owner_id, turn.id, watched=False)
        writer = await here.writer(turn)
        for (events, items), form in written:
            writer.format = form
            await writer.append(*events, items=items)
        done = Done("a", {"model": "m" * used, "requests": 2, "input_tokens": 7, "total_tokens": 9, "output_tokens": 2})
        await writer.finish("done", done, usage=done.usage)
        expected = [_plain(event) for (events, _), _ in written for event in events] + [_plain(done)]
        for read in (
            await here.read_to_the_end(turn),
            await elsewhere.read_to_the_end(turn),
            await read_log(database, turn),
        ):
            assert [numbered.seq for numbered in read] == list(range(1, len(expected) + 1))
            assert [_plain(numbered.event) for numbered in read] == expected
        rest = await elsewhere.read_to_the_end(turn, after=min(after, len(expected)))
        assert [_plain(numbered.event) for numbered in rest] == expected[after:]


async def test_what_an_item_says_is_in_no_other_row(database: Database, me: Caller) -> None:
    question, answer, found = "the question " * 20, "the answer " * 20, {"found": "the passage " * 20}
    async with replica(database, never) as here:
        turn = (await here.accept(me, question)).turn
        writer = await here.writer(turn)
        output = outcome_text(CallOutcome(found))
        await writer.append(
            ToolReturned("c", "look_up", found),
            TextDelta(1, answer),
            TextDone(1),
            items=[tool_output_item("c", output), assistant_message(answer)],
        )
        async with everything(database) as session:
            rows = [
                *(
                    await session.execute(text("select body::text from event where turn_id = :id"), {"id": turn.id})
                ).scalars(),
                *(
                    await session.execute(
                        text("select to_jsonb(i)::text from item i where turn_id = :id"), {"id": turn.id}
                    )
                ).scalars(),
            ]
        for said in (question, answer, "the passage " * 20):
            assert sum(row.count(said) for row in rows) == 1, said


def _plain(event: Event) -> tuple[str, str]:
    """As it is sent, with its keys in their order."""
    body: Any = storable(body_of(event))
    return event.kind, json.dumps(body)
