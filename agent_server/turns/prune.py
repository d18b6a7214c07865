"""What a turn needed while it ran is kept for a while after its end.

Its events are for clients that read its stream again. Its model and tool calls say what was asked and which effects took
place, to whoever looks into what went wrong; nobody takes over a turn that has ended. What was said and done is in the
items, and the turn itself stays with the key that its client sent it under. Texts that models were told go with the last
turn that they are kept for.
"""

from collections.abc import Sequence

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncSession

from agent_server.db import Database
from agent_server.db.sweep import BATCH, Ended, Over, remove_over
from agent_server.turns.requests import REMEMBER_SECONDS

# `skip locked`: two replicas at once, or a deletion, do not wait for each other. What is skipped is found again.
_OLD = """
    with old as materialized (
        select t.owner_id, t.id from turn t
        join unnest(cast(:owners as uuid[]), cast(:ids as uuid[])) w(owner_id, id)
            on t.owner_id = w.owner_id and t.id = w.id
        where t.{kept} for update of t skip locked)"""
_EVENTS = text(f"""{_OLD.format(kept="events_kept")},
    events as (delete from event e using old where e.owner_id = old.owner_id and e.turn_id = old.id)
    update turn t set events_kept = false from old where t.owner_id = old.owner_id and t.id = old.id""")  # noqa: S608  # SQL of our own
_CALLS = text(f"""{_OLD.format(kept="calls_kept")},
    journal as (delete from model_call m using old where m.owner_id = old.owner_id and m.turn_id = old.id),
    ledger as (delete from tool_call c using old where c.owner_id = old.owner_id and c.turn_id = old.id),
    told as (delete from conversation_text x using turn t join old on t.owner_id = old.owner_id and t.id = old.id
        where x.owner_id = t.owner_id and x.conversation_id = t.conversation_id and not exists (
            select from turn o where o.owner_id = t.owner_id and o.conversation_id = t.conversation_id and o.calls_kept
              and not o.id = any(cast(:ids as uuid[]))))
    update turn t set calls_kept = false, requests = null from old where t.owner_id = old.owner_id and t.id = old.id""")  # noqa: S608  # SQL of our own


# What is in use is stored again once a day.
_SHARED = text("""
    delete from shared_text where key in (
        select key from shared_text where used_at < now() - make_interval(hours => :hours)
        order by used_at limit :batch for update skip locked)
    returning true""")


async def prune_turns(database: Database, *, event_hours: int, call_hours: int) -> int:
    """Remove the events and the calls of turns that ended so many hours ago. Returns from how many turns it removed
    either."""
    events = await _prune(database, "prunable", event_hours, _EVENTS, "events.pruned")
    calls = await _prune(database, "prunable_calls", call_hours, _CALLS, "calls.pruned")
    hours = call_hours + 2 * round(REMEMBER_SECONDS / 3600)
    removed = BATCH
    while removed == BATCH:
        async with database.transaction() as session:
            removed = len((await session.execute(_SHARED, {"hours": hours, "batch": BATCH})).all())
    return events + calls


async def _prune(database: Database, what: Over, hours: int, statement: TextClause, event: str) -> int:
    async def prune(session: AsyncSession, rows: Sequence[Ended]) -> None:
        await session.execute(statement, {"owners": [row.owner_id for row in rows], "ids": [row.id for row in rows]})

    return await remove_over(database, what, hours, prune, event)
