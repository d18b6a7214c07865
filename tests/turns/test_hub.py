"""Following a turn: no event is passed over, in whichever order a process hears of them, and none is made up."""

from dataclasses import replace

import asyncpg
import pytest
from sqlalchemy import text

from agent_server.caller import Caller
from agent_server.db import Database
from agent_server.turns.events import Done, TextDelta
from agent_server.turns.hub import Hub
from tests.conftest import everything
from tests.turns.ledger import never, replica


async def test_what_this_process_writes_does_not_overtake_what_another_wrote_before(
    database: Database, me: Caller
) -> None:
    """The hub hears of its own events as they are committed, and here has no connection that hints at the others."""
    async with replica(database, never) as elsewhere:
        turn = (await elsewhere.accept(me)).turn
        theirs, hub = await elsewhere.writer(turn), Hub(database, idle_seconds=0.2)
        ours = replace(theirs, hub=hub)
        events = hub.follow(me.id, turn.id)
        assert await anext(events) is None
        await theirs.append(TextDelta(1, "theirs"), TextDelta(1, "too"))
        await ours.append(TextDelta(1, "ours"))
        await ours.finish("done", Done())
        followed = [numbered async for numbered in events if numbered is not None]
    assert [numbered.seq for numbered in followed] == [1, 2, 3, 4]
    assert [n.event.text for n in followed if isinstance(n.event, TextDelta)] == ["theirs", "too", "ours"]


async def test_what_was_not_committed_is_not_followed(database: Database, me: Caller) -> None:
    async with replica(database, never) as here:
        turn = (await here.accept(me)).turn
        hub = Hub(database, idle_seconds=0.2)
        writer = replace(await here.writer(turn), hub=hub)
        events = hub.follow(me.id, turn.id)
        assert await anext(events) is None
        async with everything(database) as session:
            await session.execute(
                text("""
                create function refuse() returns trigger language plpgsql as $$ begin
                  if new.body ->> 'text' = 'refused' then raise exception 'refused'; end if; return new; end $$""")
            )
            await session.execute(
                text("""
                create constraint trigger refuse after insert on event deferrable initially deferred
                for each row execute function refuse()""")
            )
        with pytest.raises(asyncpg.RaiseError, match="refused"):
            await writer.append(TextDelta(1, "refused"))
        await writer.append(TextDelta(1, "kept"))
        await writer.finish("done", Done())
        followed = [numbered async for numbered in events if numbered is not None]
    assert [(numbered.seq, numbered.event) for numbered in followed] == [(1, TextDelta(1, "kept")), (2, Done())]
