"""The one way to write what an attempt does.

Every write of an attempt goes through `TurnWriter.write`, which first raises the turn's counters under its row lock, but
only while the turn still runs under this attempt's epoch. That one statement is the fence (an attempt that was taken
over writes nothing more), the allotment of event numbers (dense, and visible in order), and where a stop is noticed.
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal
from uuid import UUID

import structlog
from sqlalchemy import TextClause, text

from agent_server.audit import insert_acts
from agent_server.calls.ledger import Interrupted
from agent_server.conversations.items import NewItem, insert_items, items_json, user_message
from agent_server.db import Database, Executor, after_commit, storable
from agent_server.errors import Unavailable
from agent_server.turns.earlier import NOTHING, Earlier
from agent_server.turns.events import Event, Steered, fold_json, unfold_json
from agent_server.turns.held import Held
from agent_server.turns.hub import Hub
from agent_server.turns.models import Status
from agent_server.turns.references import texts_of
from agent_server.turns.replica import BATCHES, ONCE
from agent_server.turns.requests import KnownTexts, Recipe, SentRequests
from agent_server.turns.steering import release_steers

log = structlog.get_logger()

HOLD_SECONDS = 0.1
"""How long what is held waits for a write that it goes with."""

Then = Literal["act", "read", "end"]
"""What follows a response: calls of which some may have an effect, calls that have none, or nothing."""

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
        select :owner_id, :id, f.last_event - :events + cast(e.row ->> 'last' as int), e.row ->> 'kind',
               case when e.row ->> 'kind' = 'told' then json_build_object('after', f.last_item - cast(:items as int),
                   'items', cast(:items as int), 'events', e.row -> 'body' -> 'events') else e.row -> 'body' end, now()
        from fence f cross join json_array_elements(cast(:new_events as json)) e(row)
        where not f.stop),
    new_item as ({items}){more}
    select last_event, stop, steers, {count} as also from fence"""


def fence_statement(also: str = "", *, set: str = "", more: str = "") -> TextClause:
    """A statement for `TurnWriter.write`. `also` writes something of its own where `fence` has a row that is not `stop`, and
    returns a row for each; `more` is further `with` queries, and `set` is what else changes of the turn."""
    items = insert_items("(select * from fence where not stop)")
    named = f",\n also as ({also}){more}" if also else more
    count = "(select count(*) from also)" if also else "0"
    return text(_WRITE.format(set=f"{set} {_COUNTERS}", mine=_MINE, items=items, more=named, count=count))


_ALSO_HELD = f""",
    held_act as ({insert_acts("(select * from fence where not stop)")})"""  # noqa: S608  # SQL of our own
_SET_REQUESTS = "requests = nullif(concat_ws(';', requests, nullif(cast(:requests as text), '')), ''),"
_SET_END = f"""{_SET_REQUESTS} status = :status, finished_at = now(), agent = :agent, usage = cast(:usage as jsonb),
        error = cast(:error as jsonb),"""
_ADD_RESPONSE = """
    insert into model_call (owner_id, turn_id, n, agent, request_sha, response)
    select :owner_id, :id, :n, :by, :request_sha, cast(:response as json)
    from fence where not stop returning 1"""
_NAME_AGENT = """
    update conversation c set agent = coalesce(:agent, c.agent), updated_at = now() from fence
    where c.owner_id = :owner_id and c.id = fence.conversation_id and c.agent is distinct from coalesce(:agent, c.agent)
    returning 1"""
_ALONE: Final = fence_statement()
_APPEND: Final = fence_statement(more=_ALSO_HELD)
_RESPONSE: Final = fence_statement(_ADD_RESPONSE, more=_ALSO_HELD, set=_SET_REQUESTS)
_FINISH: Final = fence_statement(_NAME_AGENT, more=_ALSO_HELD, set=_SET_END)

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
    last write saw it; `earlier` is what earlier attempts have stored. `format` is the newest form of rows that all
    replicas read (`heartbeat.FORMAT`). `is_alone` says whether no other turn runs in this process, and
    `known` which texts of requests are stored.

    What nothing else depends on may be held (`hold`): it goes with the next write, or after `HOLD_SECONDS`.
    """

    database: Database
    hub: Hub
    owner_id: UUID
    conversation_id: UUID
    turn_id: UUID
    turn_no: int
    epoch: int
    steers: int = 0
    earlier: Earlier = NOTHING
    format: int = 1
    is_alone: Callable[[], bool] = lambda: True
    known: KnownTexts = field(default_factory=KnownTexts)

    def __post_init__(self) -> None:
        self._taken = list(self.earlier.steers)
        self._held, self._answer = Held(), Held()
        self._requests = SentRequests(self.database, self.owner_id, self.conversation_id, self.known)
        self._timer: asyncio.TimerHandle | None = None
        self._flushing: asyncio.Task[None] | None = None
        self._failure: Exception | None = None
        self._closed = False

    @property
    def _key(self) -> dict[str, Any]:
        return {"owner_id": self.owner_id, "id": self.turn_id}

    def transaction(self) -> AbstractAsyncContextManager[Executor]:
        """A transaction for the turn's owner."""
        return self.database.quick(self.owner_id)

    async def append(self, *events: Event, items: Sequence[NewItem] = ()) -> None:
        """Write in a transaction of its own. Raises Fenced or StopRequested."""
        await self._write_held(Held(list(events), list(items)))

    def hold(self, events: Sequence[Event], items: Sequence[NewItem], act: dict[str, Any]) -> None:
        """Have the outcome of a call that had no effect written with what comes next."""
        self._hold(Held(list(events), list(items), [act]))

    def note_request(self, recipe: Recipe) -> None:
        """Have what a model is sent written with its response, or with the end of the turn."""
        self._requests.note(recipe)

    def show(self, *events: Event) -> None:
        """Have more of an answer written as soon as this process waits for what comes after it: of an answer that has come
        whole nothing is written before its end. Raises what the last such write came to."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        self._hold(Held(list(events)), seconds=0)

    def tell(self, *events: Event) -> None:
        """Write as `show` does what nothing hangs on. It raises nothing: what the write came to is for the next one to raise."""
        if not self._closed:
            self._hold(Held(list(events)), seconds=0)

    def _hold(self, more: Held, *, seconds: float = HOLD_SECONDS) -> None:
        self._held = self._held.before(more)
        # A model may think for long, and whoever follows is to see what has happened.
        if self._timer is None or seconds < HOLD_SECONDS:
            self._flush_within(seconds)

    def _flush_within(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._flush_soon)

    async def flush(self) -> None:
        """Write what is held. Raises Fenced or StopRequested."""
        if self._flushing is not None:
            await asyncio.wait({self._flushing})
        if not self._held.before(self._answer).is_empty:
            await self._write_held(Held())

    async def keep_answer(self) -> None:
        """Write what is held before a turn ends early. Of one that is to stop, the last answer is forgotten: what was shown
        of it is in the log."""
        try:
            await self.flush()
        except StopRequested:
            self._answer = Held()
            if not self._held.is_empty:
                await self._write_held(Held(), heed_stop=False)

    def close(self) -> None:
        """Write nothing more."""
        self._closed = True
        self._held = self._answer = Held()
        for begun in (self._timer, self._flushing):
            if begun is not None:
                begun.cancel()

    def _flush_soon(self) -> None:
        self._timer = None
        # What is being written comes first, and it sees to the rest.
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush_late())

    async def _flush_late(self) -> None:
        try:
            # Also what came during the write, unless it may wait for longer.
            while self._timer is None and not self._held.is_empty:
                await self._write_held(Held(), waits=False)
        except (Interrupted, Unavailable) as error:
            self._failure = error  # it is held still, and the write that it goes with raises the same
        except Exception:  # a bug, which the next write raises as well
            log.exception("turn.flush_failed")
        finally:
            self._flushing = None

    async def _write_held(
        self,
        more: Held,
        *,
        end: Mapping[str, Any] | None = None,
        heed_stop: bool = True,
        waits: bool = True,
    ) -> bool:
        """Write what is held and `more` in a transaction of its own. With `end` the turn ends with it; returns whether that
        leaves a turn to run."""
        # What is being written comes before this in the log.
        if waits and self._flushing is not None:
            await asyncio.wait({self._flushing})
        if end is None and self._held.response is not None and self._answer.response is not None:
            # a write has one row for the journal
            answer, self._answer = self._answer, Held()
            try:
                await self._write_held(Held(), heed_stop=heed_stop, waits=waits)
            finally:
                self._answer = answer
        held, answer = self._held, self._answer
        self._held, self._answer = Held(), Held()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        whole = held.before(answer).before(more)
        self._failure = None
        # A response that is written with the end of its turn needs no journal: nobody goes on with the turn.
        statement = _FINISH if end is not None else _RESPONSE if whole.response else _APPEND
        values = {"new_acts": _json(whole.acts), **(whole.response or {}), **(end or {})}
        try:
            sent = await self._requests.begin(None if end is not None else (whole.response or {"n": 0})["n"])
            async with self.transaction() as session:
                if statement is not _APPEND:
                    values["requests"] = sent.spell()
                    await sent.store(session)
                    after_commit(session, sent.forget)
                # A turn that is to stop must be able to end.
                heed_stop = heed_stop and end is None
                await self.write(
                    session, whole.events, whole.items, heed_stop=heed_stop, statement=statement, values=values
                )
                # `steers` was read under the lock of this transaction: no message can come in between.
                if end is None or self.steers == len(self._taken):
                    return False
                answer = end["status"] != "cancelled"
                return await release_steers(session, self.owner_id, self.turn_id, answer=answer)
        except BaseException:
            self._held, self._answer = held.before(self._held), answer
            raise

    async def write(
        self,
        session: Executor,
        events: Sequence[Event] = (),
        items: Sequence[NewItem] = (),
        *,
        heed_stop: bool = True,
        statement: TextClause = _ALONE,
        values: Mapping[str, Any] = MappingProxyType({}),
    ) -> int:
        """Write in `session`'s transaction. Followers have it when it commits. Raises Fenced, and StopRequested unless
        `heed_stop` is False: for what has happened and must be on record, also of a turn that is being stopped.

        Returns how many rows the `statement` (see `fence_statement`) has written with its own `values`.
        """
        new_items = items_json(items, once=self.format >= ONCE)
        texts = texts_of(new_items, values.get("usage")) if self.format >= ONCE else ()
        new_events = fold_json(events, batch=self.format >= BATCHES, texts=texts)
        written: Any = (
            await session.execute(
                statement,
                {
                    **self._key,
                    "epoch": self.epoch,
                    "heed_stop": heed_stop,
                    "events": len(events),
                    "items": len(items),
                    "new_events": new_events,
                    "new_items": new_items,
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
            numbered = unfold_json(new_events, written.last_event - len(events), texts)
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
        then: Then = "act",
    ) -> None:
        """Commit a model's response with its items and events before the run loop sees it. It is held where nothing comes
        of it that could happen twice: the next calls only `read`, or the turn is at its `end`."""
        row = {"n": n, "by": agent, "request_sha": request_sha, "response": json.dumps(response)}
        whole = Held(list(events), list(items), response=row)
        if then != "end" and self._held.response is not None:
            await self.flush()
        match then:
            case "act":
                await self._write_held(whole)
            case "read":
                self._hold(whole)
            case "end":
                self._answer = whole
                # What was shown just now need not be written by itself: its turn ends at once.
                if not self._held.is_empty:
                    self._flush_within(HOLD_SECONDS)

    async def take_steers(self, n: int) -> list[tuple[int, str]]:
        """Take the messages put into the turn that model call `n` is given. Those are what earlier calls were the first
        to be given and what has come since, each with the number of that call. Raises Fenced or StopRequested."""
        # A call from the journal was answered without them. `steers` comes with each write and a hint with each message,
        # so that a call that has nothing to take costs no statement.
        touched = self.hub.was_touched(self.turn_id)
        if n > self.earlier.last_call and (touched or len(self._taken) < self.steers):
            await self.flush()
            async with self.transaction() as session:
                waiting = (await session.execute(_WAITING_STEERS, self._key)).all()
                if waiting:
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
        end = {"status": status, "agent": agent, "usage": _jsonb(usage), "error": _jsonb(error)}
        return await self._write_held(Held([event], list(items)), end=end)


def _json(value: Any) -> str:
    return json.dumps(storable(value))


def _jsonb(value: Mapping[str, Any] | None) -> str | None:
    return None if value is None else _json(value)
