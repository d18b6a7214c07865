"""The one way to write what an attempt does.

Every write of an attempt goes through `TurnWriter.write`, which first raises the turn's counters under its row lock, but
only while the turn still runs under this attempt's epoch. That one statement is the fence (an attempt that was taken
over writes nothing more), the allotment of event numbers (dense, and visible in order), and where a stop is noticed.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, TextClause, text
from sqlalchemy.ext.asyncio import AsyncSession

from agent_server.calls.ledger import Interrupted
from agent_server.conversations.items import NewItem, insert_items, items_json, user_message
from agent_server.db import Database, after_commit, storable
from agent_server.turns.earlier import NOTHING, Earlier
from agent_server.turns.events import Event, Numbered, Steered, body_of, from_row
from agent_server.turns.hub import Hub
from agent_server.turns.models import Status
from agent_server.turns.steering import release_steers

# Where the turn is to stop nothing is written. A number that was used up by it would be a gap in the log.
_COUNTERS = """
    last_event = last_event + case when cancel and :heed_stop then 0 else :events end,
    last_item = last_item + case when cancel and :heed_stop then 0 else :items end"""

_MINE = "where owner_id = :owner_id and id = :id and epoch = :epoch and status = 'running'"

# The fence and all that is written under it are one statement: a write is one round trip beside begin and
# commit.
# Events come as json: jsonb would put their keys in another order (`TurnEvent.body`).
_WRITE = """
    with fence as (
        update turn set {set} {mine}
        returning owner_id, conversation_id, id, turn_no, last_event, last_item, cancel and :heed_stop as stop, steers),
    new_event as (
        insert into event (owner_id, turn_id, seq, kind, body, at)
        select :owner_id, :id, f.last_event - :events + e.n, e.row ->> 'kind', e.row -> 'body', now()
        from fence f cross join json_array_elements(cast(:new_events as json)) with ordinality e(row, n)
        where not f.stop),
    new_item as ({items}),
    also as ({also})
    select last_event, stop, steers, (select count(*) from also) as also from fence"""


def fence_statement(also: str = "select where false", *, set: str = "") -> TextClause:
    """A statement for `TurnWriter.write`. `also` writes something of its own where `fence` has a row that is not `stop`, and
    returns a row for each; `set` is what else changes of the turn."""
    items = insert_items("(select * from fence where not stop)")
    return text(_WRITE.format(set=f"{set} {_COUNTERS}", mine=_MINE, items=items, also=also))


_APPEND: Final = fence_statement()
_RESPONSE: Final = fence_statement("""
    insert into model_call (owner_id, turn_id, n, agent, request_sha, response)
    select :owner_id, :id, :n, :agent, :request_sha, cast(:response as json) from fence where not stop returning 1""")
_FINISH: Final = fence_statement(
    """
    update conversation c set agent = coalesce(:agent, c.agent), updated_at = now() from fence
    where c.owner_id = :owner_id and c.id = fence.conversation_id returning 1""",
    set="""status = :status, finished_at = now(), agent = :agent, usage = cast(:usage as jsonb),
        error = cast(:error as jsonb),""",
)

_WAITING_STEERS = text("""
    select i, text from steer where owner_id = :owner_id and turn_id = :id and consumed_n is null order by i""")
_TAKE_STEERS = text("""
    update steer set consumed_n = :n where owner_id = :owner_id and turn_id = :id and i = any(cast(:taken as int[]))""")


class Fenced(Interrupted):
    """The turn is no longer this attempt's. Stop and write nothing."""


class StopRequested(Interrupted):
    """The turn was cancelled while this attempt ran."""


@dataclass(kw_only=True)
class TurnWriter:
    """Writes what one attempt of a turn does. `steers` is how many messages have been put into the turn so far, as the
    last write saw it; `earlier` is what earlier attempts have stored."""

    database: Database
    hub: Hub
    owner_id: UUID
    conversation_id: UUID
    turn_id: UUID
    turn_no: int
    epoch: int
    steers: int = 0
    earlier: Earlier = NOTHING

    def __post_init__(self) -> None:
        self._taken = list(self.earlier.steers)

    @property
    def _key(self) -> dict[str, Any]:
        return {"owner_id": self.owner_id, "id": self.turn_id}

    def transaction(self) -> AbstractAsyncContextManager[AsyncSession]:
        """A transaction for the turn's owner."""
        return self.database.transaction(self.owner_id)

    async def append(self, *events: Event, items: Sequence[NewItem] = ()) -> None:
        """Write in a transaction of its own. Raises Fenced or StopRequested."""
        async with self.transaction() as session:
            await self.write(session, events, items)

    async def write(
        self,
        session: AsyncSession,
        events: Sequence[Event] = (),
        items: Sequence[NewItem] = (),
        *,
        heed_stop: bool = True,
        statement: TextClause = _APPEND,
        values: Mapping[str, Any] = MappingProxyType({}),
    ) -> int:
        """Write in `session`'s transaction. Followers have it when it commits. Raises Fenced, and StopRequested unless
        `heed_stop` is False: for what has happened and must be on record, also of a turn that is being stopped.

        Returns how many rows the `statement` (see `fence_statement`) has written with its own `values`.
        """
        new_events = _json([{"kind": event.kind, "body": body_of(event)} for event in events])
        written: Row[Any] | None = (
            await session.execute(
                statement,
                {
                    **self._key,
                    "epoch": self.epoch,
                    "heed_stop": heed_stop,
                    "events": len(events),
                    "items": len(items),
                    "new_events": new_events,
                    "new_items": items_json(items),
                    **values,
                },
            )
        ).one_or_none()
        if written is None:
            raise Fenced
        self.steers = written.steers
        if written.stop:
            raise StopRequested
        if events:
            # From the stored JSON: followers here must get exactly what those who read the rows get.
            stored = [from_row(row["kind"], row["body"]) for row in json.loads(new_events)]
            numbered = [Numbered(seq, event) for seq, event in enumerate(stored, written.last_event - len(events) + 1)]
            # Followers must never have an event that is then rolled back.
            after_commit(session, lambda: self.hub.publish(self.turn_id, numbered))
        return int(written.also)

    async def record_model_call(
        self,
        n: int,
        *,
        agent: str,
        request_sha: bytes,
        response: dict[str, Any],
        events: Sequence[Event],
        items: Sequence[NewItem],
    ) -> None:
        """Commit a model's response with its items and events before the run loop sees it."""
        values = {"n": n, "agent": agent, "request_sha": request_sha, "response": json.dumps(response)}
        async with self.transaction() as session:
            await self.write(session, events, items, statement=_RESPONSE, values=values)

    async def take_steers(self, n: int) -> list[tuple[int, str]]:
        """Take the messages put into the turn that model call `n` is given. Those are what earlier calls were the first
        to be given and what has come since, each with the number of that call. Raises Fenced or StopRequested."""
        # A call from the journal was answered without them. `steers` comes with each write, so that a call that has
        # nothing to take costs no statement.
        if n > self.earlier.last_call and len(self._taken) < self.steers:
            async with self.transaction() as session:
                waiting = (await session.execute(_WAITING_STEERS, self._key)).all()
                await self.write(
                    session, [Steered(said) for _, said in waiting], [user_message(said) for _, said in waiting]
                )
                await session.execute(_TAKE_STEERS, {**self._key, "n": n, "taken": [i for i, _ in waiting]})
            # After the commit: one that fails leaves them for the next attempt.
            self._taken += [(n, said) for _, said in waiting]
        return [(call, said) for call, said in self._taken if call <= n]

    async def finish(
        self,
        status: Status,
        event: Event,
        *,
        agent: str | None = None,
        usage: Mapping[str, Any] | None = None,
        error: Mapping[str, Any] | None = None,
        items: Sequence[NewItem] = (),
    ) -> bool:
        """End the turn. Status, last event and last items are one transaction. Raises Fenced.

        Messages put into the turn that no model call was given are turns of their own from here on, and True is
        returned; in a turn that was stopped they only stay in the conversation.
        """
        values = {"status": status, "agent": agent, "usage": _jsonb(usage), "error": _jsonb(error)}
        async with self.transaction() as session:
            # A turn that is to stop must be able to end.
            await self.write(session, (event,), items, heed_stop=False, statement=_FINISH, values=values)
            # `steers` was read under the lock of this transaction: no message can come in between.
            if self.steers == len(self._taken):
                return False
            return await release_steers(session, self.owner_id, self.turn_id, answer=status != "cancelled")


def _json(value: Any) -> str:
    return json.dumps(storable(value))


def _jsonb(value: Mapping[str, Any] | None) -> str | None:
    return None if value is None else _json(value)
