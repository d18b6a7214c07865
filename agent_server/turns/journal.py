"""Writing a turn's log, fenced, and following it.

Every write of an attempt goes through `Journal.write`, which first raises the turn's counters under its row lock, but
only while the turn still runs under this attempt's epoch. That one statement is the fence (an attempt that was taken
over writes nothing more), the allotment of event numbers (dense, and visible in order), and where a stop is noticed.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import event as sqlalchemy_event
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from agent_server.call import Interrupted
from agent_server.conversations.models import Item
from agent_server.db import Database, now, storable
from agent_server.errors import Unavailable
from agent_server.turns.events import LAST, Event, Numbered, Reset, TextDelta, TextDone, from_row
from agent_server.turns.hub import Hub
from agent_server.turns.models import FINISHED, ModelCall, Status, Turn, TurnEvent

POLL_SECONDS = 1.0
OUTAGE_POLLS = 60

_FENCE = text("""
    update turn set last_event = last_event + :events, last_item = last_item + :items
    where owner_id = :owner_id and id = :id and epoch = :epoch and status = 'running'
    returning last_event, last_item, cancel""")

_FINISH = text("""
    update turn set status = :status, finished_at = now(), agent = :agent, usage = cast(:usage as jsonb),
                    error = cast(:error as jsonb), last_event = last_event + :events, last_item = last_item + :items
    where owner_id = :owner_id and id = :id and epoch = :epoch and status = 'running'
    returning last_event, last_item, false""")


class Fenced(Interrupted):
    """The turn is no longer this attempt's: stop, and write nothing."""


class StopRequested(Interrupted):
    """The turn was cancelled while this attempt ran."""


@dataclass(frozen=True)
class NewItem:
    """An item to append to the conversation (see `conversations.models.Item`)."""

    body: dict[str, Any]
    role: str | None = None
    text: str | None = None
    agent: str | None = None
    model: str | None = None
    prompt_sha: str | None = None
    sources: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Journal:
    """The log of one attempt of one turn."""

    database: Database
    hub: Hub
    owner_id: UUID
    conversation_id: UUID
    turn_id: UUID
    turn_no: int
    epoch: int

    async def append(self, *events: Event, items: Sequence[NewItem] = ()) -> None:
        """Write in a transaction of its own. Raises Fenced or StopRequested."""
        async with self.database.transaction() as session:
            await self.write(session, events, items)

    async def write(self, session: AsyncSession, events: Sequence[Event] = (), items: Sequence[NewItem] = ()) -> None:
        """Write in `session`'s transaction; followers are woken when it commits. Raises Fenced or StopRequested."""
        await self._write(session, _FENCE, {}, events, items)

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
        """Commit a model's response with its items and events, before the run loop sees it."""
        async with self.database.transaction() as session:
            await self.write(session, events, items)
            session.add(
                ModelCall(
                    owner_id=self.owner_id,
                    turn_id=self.turn_id,
                    n=n,
                    agent=agent,
                    request_sha=request_sha,
                    response=response,
                )
            )

    async def model_calls(self) -> dict[int, ModelCall]:
        """What earlier attempts of this turn were answered, by number."""
        async with self.database.transaction() as session:
            rows = await session.execute(
                select(ModelCall).where(
                    col(ModelCall.owner_id) == self.owner_id, col(ModelCall.turn_id) == self.turn_id
                )
            )
            return {row.n: row for row in rows.scalars()}

    async def events(self) -> list[Numbered]:
        """The log so far."""
        return await _read(self.database, self.owner_id, self.turn_id, 0)

    async def finish(
        self,
        status: Status,
        event: Event,
        *,
        agent: str | None = None,
        usage: Mapping[str, Any] | None = None,
        error: Mapping[str, Any] | None = None,
        items: Sequence[NewItem] = (),
    ) -> None:
        """End the turn: status, last event and last items in one transaction. Raises Fenced."""
        values = {"status": status, "agent": agent, "usage": _jsonb(usage), "error": _jsonb(error)}
        async with self.database.transaction() as session:
            await self._write(session, _FINISH, values, (event,), items)
            await session.execute(
                text(
                    "update conversation set agent = coalesce(:agent, agent), updated_at = now() "
                    "where owner_id = :owner_id and id = :id"
                ),
                {"agent": agent, "owner_id": self.owner_id, "id": self.conversation_id},
            )

    async def interrupted_text(self) -> str:
        """What was shown of an answer that did not come to its end."""
        return "".join((await self._unfinished()).values())

    async def reset_unfinished(self) -> None:
        """Take back what an earlier attempt showed of a model call that it did not finish: it is made again."""
        await self.append(*(Reset(call) for call in await self._unfinished()))

    async def _unfinished(self) -> dict[int, str]:
        shown: dict[int, str] = {}
        for numbered in await self.events():
            match numbered.event:
                case TextDelta(call=call, text=text):
                    shown[call] = shown.get(call, "") + text
                case TextDone(call=call) | Reset(call=call):
                    shown.pop(call, None)
        return shown

    async def _write(
        self,
        session: AsyncSession,
        fence: Any,
        values: dict[str, Any],
        events: Sequence[Event],
        items: Sequence[NewItem],
    ) -> None:
        counters = {"events": len(events), "items": len(items)}
        key = {"owner_id": self.owner_id, "id": self.turn_id, "epoch": self.epoch}
        row = (await session.execute(fence, {**counters, **key, **values})).one_or_none()
        if row is None:
            raise Fenced
        last_event, last_item, cancel = row
        if cancel:
            raise StopRequested
        if events:
            first = last_event - len(events) + 1
            await session.execute(
                insert(TurnEvent),
                [
                    {
                        "owner_id": self.owner_id,
                        "turn_id": self.turn_id,
                        "seq": seq,
                        "kind": event.kind,
                        "body": storable(asdict(event)),
                        "at": now(),
                    }
                    for seq, event in enumerate(events, first)
                ],
            )
        if items:
            first = last_item - len(items) + 1
            await session.execute(
                insert(Item),
                [
                    {
                        "owner_id": self.owner_id,
                        "conversation_id": self.conversation_id,
                        "turn_id": self.turn_id,
                        "turn_no": self.turn_no,
                        "k": k,
                        "created_at": now(),
                        **storable(asdict(item)),
                    }
                    for k, item in enumerate(items, first)
                ],
            )
        sqlalchemy_event.listen(session.sync_session, "after_commit", lambda _: self.hub.wake(self.turn_id), once=True)


def _jsonb(value: Mapping[str, Any] | None) -> str | None:
    return None if value is None else json.dumps(value)


async def _read(database: Database, owner_id: UUID, turn_id: UUID, after: int) -> list[Numbered]:
    async with database.transaction() as session:
        rows = await session.execute(
            select(TurnEvent.seq, TurnEvent.kind, TurnEvent.body)
            .where(col(TurnEvent.owner_id) == owner_id, col(TurnEvent.turn_id) == turn_id, col(TurnEvent.seq) > after)
            .order_by(col(TurnEvent.seq))
        )
        return [Numbered(seq, from_row(kind, body)) for seq, kind, body in rows]


async def follow(
    database: Database, hub: Hub, owner_id: UUID, turn_id: UUID, after: int = 0
) -> AsyncIterator[Numbered | None]:
    """The turn's events with a number above `after`, in order, as they are written, on whichever replica, to the last.

    Yields None when nothing came for `POLL_SECONDS`: a moment to send a keep-alive. Ends after the last event, and at
    once when the turn has ended with nothing left to send. A database that is away for a while is waited for; raises
    Unavailable when it has not come back after `OUTAGE_POLLS`.
    """
    outage, idle = 0, True
    async with hub.listening(turn_id) as more:
        while True:
            more.clear()
            found: list[Numbered] = []
            try:
                found = await _read(database, owner_id, turn_id, after)
                if idle and not found and await _is_over(database, owner_id, turn_id, after):
                    return
                outage = 0
            except Unavailable:
                outage += 1
                if outage > OUTAGE_POLLS:
                    raise
            for numbered in found:
                yield numbered
                after = numbered.seq
                if isinstance(numbered.event, LAST):
                    return
            try:
                async with asyncio.timeout(POLL_SECONDS):
                    await more.wait()
                idle = False
            except TimeoutError:
                idle = True
                yield None


async def _is_over(database: Database, owner_id: UUID, turn_id: UUID, after: int) -> bool:
    async with database.transaction() as session:
        turn = await session.get(Turn, (owner_id, turn_id))
        return turn is None or (turn.status in FINISHED and turn.last_event <= after)
