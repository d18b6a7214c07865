"""Following turns. A process has one reader however many clients follow.

What this process writes reaches its followers from memory, once it is committed; what others write is read when they
hint at it (`Signals`), and looked for every `POLL_SECONDS` in any case. The rows are the truth: a hint that is lost, or
an event that arrives out of turn, costs one more read.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlmodel import col, select

from agent_server.conversations.models import Item
from agent_server.conversations.notes import Finish, finish_of
from agent_server.db import Database, Executor, keep_promise
from agent_server.errors import Unavailable
from agent_server.signals import Hint, TurnGrew
from agent_server.turns.events import LAST, Cancelled, Done, Failed, Numbered, Snapshot, unfold
from agent_server.turns.models import FINISHED, Turn
from agent_server.turns.references import SAID

log = structlog.get_logger()

# The longest that a hint which was lost holds a stream up.
POLL_SECONDS = 1.0
# Proxies close a connection on which nothing comes, nginx after 60 seconds.
IDLE_SECONDS = 15.0
OUTAGE_SECONDS = 60.0
"""How long the database may be away before those who follow are told so."""

_READ = text(f"""
    select e.turn_id, e.seq, e.kind, e.body, {SAID}
    from unnest(cast(:ids as uuid[]), cast(:after as int[])) w(id, after)
    join event e on e.owner_id = :owner_id and e.turn_id = w.id and e.seq > w.after
    order by e.turn_id, e.seq""")  # noqa: S608  # SQL of our own

_STATES = text("""
    select t.id, t.last_event, t.status, t.events_kept, t.leave_after is not null
    from unnest(cast(:owners as uuid[]), cast(:ids as uuid[])) w(owner_id, id)
    join turn t on t.owner_id = w.owner_id and t.id = w.id""")

# Written once in a quarter of the time that nobody may follow, and not with each poll.
_FOLLOWED = text("""
    update turn t set followed_at = now()
    from unnest(cast(:owners as uuid[]), cast(:ids as uuid[])) w(owner_id, id)
    where t.owner_id = w.owner_id and t.id = w.id and t.status in ('queued', 'running')
      and t.leave_after is not null and t.followed_at < now() - t.leave_after * interval '0.25 seconds'""")


class Moved(Exception):
    """This process is ending and the turn goes on elsewhere. Resume there."""


@dataclass(eq=False)
class _Feed:
    """The events of one turn as far as this process knows them. It has all with a number above `start` up to `last`.

    While it is `held` this process writes the turn, and nobody else: there is nothing to read, and a hint says that
    something was done to it from outside (`touched`). `watched` says that the
    turn ends when nobody follows it."""

    owner_id: UUID
    turn_id: UUID
    start: int
    events: list[Numbered] = field(default_factory=list)
    waiting: set[asyncio.Event] = field(default_factory=set)
    over: bool = False
    held: bool = False
    touched: bool = False
    watched: bool = False
    failure: Exception | None = None

    @property
    def last(self) -> int:
        return self.start + len(self.events)

    def extend(self, events: Sequence[Numbered]) -> bool:
        """Take up events in their order. Returns False where some before them are missing."""
        new = [numbered for numbered in events if numbered.seq > self.last]
        # What another replica wrote before is not here yet. The reader gets both from the rows, in order.
        if new and new[0].seq != self.last + 1:
            return False
        if new:
            self.events += new
            self.over = isinstance(new[-1].event, LAST)
            self.wake()
        return True

    def end(self, failure: Exception | None = None) -> None:
        self.over, self.failure = True, failure
        self.wake()

    def wake(self) -> None:
        for event in self.waiting:
            event.set()


class Hub:
    """Who follows what in this process. By `send` the other replicas are told of each turn that this one has written
    to; a process that only reads has nothing to send."""

    def __init__(
        self, database: Database, *, send: Callable[[Hint], None] | None = None, idle_seconds: float = IDLE_SECONDS
    ) -> None:
        self._database, self._send, self._idle_seconds = database, send, idle_seconds
        self._feeds: dict[UUID, _Feed] = {}
        self._dirty: set[UUID] = set()
        self._unread: set[UUID] = set()
        self._woken = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._closed = False

    def begin(self, owner_id: UUID, turn_id: UUID, *, watched: bool) -> None:
        """Keep the events of a turn that this process writes from its first one on, until `end`."""
        feed = self._feeds.setdefault(turn_id, _Feed(owner_id, turn_id, 0))
        feed.held, feed.watched = feed.last == 0, watched

    def end(self, turn_id: UUID) -> None:
        """Read the events of a turn again that this process writes no more, where somebody follows it and it goes on."""
        if (feed := self._feeds.get(turn_id)) is not None and feed.held:
            feed.held = False
            if not feed.waiting:
                del self._feeds[turn_id]
            elif not feed.over:
                self._unread.add(turn_id)
                self._woken.set()

    def mark_grown(self, turn_id: UUID) -> None:
        """Have the turn's events looked for if anybody follows it."""
        if (feed := self._feeds.get(turn_id)) is None:
            return
        if feed.held:
            feed.touched = True
        else:
            self._dirty.add(turn_id)
            self._woken.set()

    def was_touched(self, turn_id: UUID) -> bool:
        """Whether something was done from outside to a turn that this process writes, since this was last asked."""
        feed = self._feeds.get(turn_id)
        touched = feed is not None and feed.touched
        if feed is not None:
            feed.touched = False
        return touched

    def publish(self, turn_id: UUID, events: Sequence[Numbered]) -> None:
        """Give followers the events that this process has just committed."""
        if self._send is not None:
            self._send(TurnGrew(turn_id))
        feed = self._feeds.get(turn_id)
        if feed is not None and not feed.extend(events):
            feed.held = False  # somebody else has written it
            self.mark_grown(turn_id)

    def close(self) -> None:
        """End every stream where it is. Its reader resumes on another replica."""
        self._closed = True
        for feed in self._feeds.values():
            feed.wake()

    async def follow(self, owner_id: UUID, turn_id: UUID, after: int = 0) -> AsyncIterator[Numbered | None]:
        """Yield the turn's events with a number above `after`. They come in order as they are written, on whichever
        replica.

        Yields None when nothing came for `idle_seconds`: a moment to send a keep-alive. Ends after the last event, at
        once when the turn has ended with nothing left to send. Of a turn whose events are past retention it yields one
        `Snapshot` and the last event. A database that is away is waited for; raises Unavailable when it stays away for
        `OUTAGE_SECONDS`, and Moved when this process ends before the turn does.
        """
        with self._join(owner_id, turn_id, after) as (feed, woken):
            for numbered in await self._read_missed(feed, after):
                yield numbered
                after = numbered.seq
            while True:
                # Before the look at the feed, so that what comes during the look wakes the wait below.
                woken.clear()
                while after < feed.last:
                    # `_summarise` may have moved `start` beyond what this follower has.
                    numbered = feed.events[max(after, feed.start) - feed.start]
                    after = numbered.seq
                    yield numbered
                if feed.failure is not None:
                    raise feed.failure
                if feed.over:
                    return
                if self._closed:
                    raise Moved
                try:
                    async with asyncio.timeout(self._idle_seconds):
                        await woken.wait()
                except TimeoutError:
                    yield None

    @contextmanager
    def _join(self, owner_id: UUID, turn_id: UUID, after: int) -> Iterator[tuple[_Feed, asyncio.Event]]:
        feed = self._feeds.get(turn_id)
        if feed is None:
            feed = self._feeds[turn_id] = _Feed(owner_id, turn_id, after)
            self._unread.add(turn_id)
            self._woken.set()
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read_on())
        woken = asyncio.Event()
        feed.waiting.add(woken)
        try:
            yield feed, woken
        finally:
            feed.waiting.discard(woken)
            # The reader ends with the last feed; it is woken to see that.
            if not feed.waiting and not feed.held and self._feeds.get(turn_id) is feed:
                del self._feeds[turn_id]
                self._woken.set()

    async def _read_missed(self, feed: _Feed, after: int) -> Sequence[Numbered]:
        """What a follower lacks that came before the feed was begun."""
        if after >= feed.start:
            return ()
        async with self._database.quick(feed.owner_id) as session:
            found = await _read_events(session, feed.owner_id, {feed.turn_id: after})
        return [numbered for numbered in found.get(feed.turn_id, ()) if numbered.seq <= feed.start]

    async def _read_on(self) -> None:
        """Read for every feed that is followed until none is. The states of their turns come first, and then every
        `POLL_SECONDS`."""
        keep_promise()
        loop = asyncio.get_running_loop()
        polled = answered = loop.time()
        while any(feed.waiting for feed in self._feeds.values()):
            try:
                async with asyncio.timeout(max(0.0, polled + POLL_SECONDS - loop.time())):
                    await self._woken.wait()
            except TimeoutError:
                polled = loop.time()
                # No hint is needed for this: it is what makes up for those that were lost.
                self._unread |= {
                    id for id, feed in self._feeds.items() if feed.waiting and (feed.watched or not feed.held)
                }
            self._woken.clear()
            try:
                await self._read()
                answered = loop.time()
            except Unavailable as error:
                if loop.time() - answered > OUTAGE_SECONDS:
                    for feed in list(self._feeds.values()):
                        feed.end(error)
                # Each new follower wakes the reader, and a database that is away is not asked without a pause.
                await asyncio.sleep(min(POLL_SECONDS, 0.1))
            except Exception as error:  # a bug: whoever waits for what cannot be read is told so
                log.exception("hub.failed")
                for feed in list(self._feeds.values()):
                    feed.end(error)

    async def _read(self) -> None:
        # Taken before the first `await`: what is marked from here on is for the next round.
        asked, self._unread = self._unread & self._feeds.keys(), set()
        dirty, self._dirty = (self._dirty | asked) & self._feeds.keys(), set()
        try:
            if asked:
                dirty -= asked - await self._find_grown(asked)
            by_owner: defaultdict[UUID, dict[UUID, int]] = defaultdict(dict)
            for id in dirty & self._feeds.keys():
                by_owner[self._feeds[id].owner_id][id] = self._feeds[id].last
            for owner_id, after in by_owner.items():
                async with self._database.quick(owner_id) as session:
                    found = await _read_events(session, owner_id, after)
                for id, events in found.items():
                    # Its followers may have left while the database answered.
                    if (feed := self._feeds.get(id)) is not None:
                        feed.extend(events)
        # What was not read is asked for again, also where the reader is cancelled.
        except BaseException:
            self._unread |= asked
            self._dirty |= dirty
            raise

    async def _find_grown(self, asked: set[UUID]) -> set[UUID]:
        """Those of the turns that have more events than are known here. Feeds that nothing more can come of are ended."""
        feeds = [self._feeds[id] for id in asked]
        owners = [feed.owner_id for feed in feeds]
        keys = {"owners": owners, "ids": [feed.turn_id for feed in feeds]}
        async with self._database.quick(*set(owners)) as session:
            states = (await session.execute(_STATES, keys)).all()
            if any(watched for *_, watched in states):
                await session.execute(_FOLLOWED, keys)
        grown: set[UUID] = set()
        # Those that have no row were deleted with their conversations.
        for id in asked - {id for id, *_ in states}:
            if (feed := self._feeds.get(id)) is not None:
                feed.end()
        for id, last_event, status, kept, _ in states:
            feed = self._feeds.get(id)
            if feed is None:
                continue
            if status in FINISHED and last_event <= feed.last:
                feed.end()
            elif not kept:
                await self._summarise(feed)
            elif last_event > feed.last:
                grown.add(id)
        return grown

    async def _summarise(self, feed: _Feed) -> None:
        """Put what is left of a turn past retention into its feed. That is its messages in one event and how it ended."""
        async with self._database.transaction(feed.owner_id) as session:
            turn = await session.get_one(Turn, (feed.owner_id, feed.turn_id))
            items = await session.execute(
                select(Item)
                .where(
                    col(Item.owner_id) == turn.owner_id,
                    col(Item.conversation_id) == turn.conversation_id,
                    col(Item.turn_no) == turn.turn_no,
                )
                .order_by(col(Item.k))
            )
            said = [item for item in items.scalars() if item.role is not None]
        shown = ("role", "text", "agent", "prompt_version", "sources")
        views = [{name: getattr(item, name) for name in shown} for item in said]
        finish = finish_of(said[-1].notes if said else ())
        # With the last two numbers of the log, so that a client which resumes from them gets nothing twice.
        feed.start, feed.events = turn.last_event - 2, []
        feed.extend(
            [Numbered(turn.last_event - 1, Snapshot(views)), Numbered(turn.last_event, _last_event(turn, finish))]
        )


def _last_event(turn: Turn, finish: Finish) -> Done | Failed | Cancelled:
    match turn.status:
        case "done":
            return Done(turn.agent, turn.usage or {}, finish)
        case "failed":
            return Failed(**(turn.error or {"code": "internal", "message": "The answer failed"}))
        case _:
            return Cancelled()


async def _read_events(session: Executor, owner_id: UUID, after: dict[UUID, int]) -> dict[UUID, list[Numbered]]:
    """The events of one owner's turns with numbers above those given."""
    found: dict[UUID, list[Numbered]] = {}
    keys = {"owner_id": owner_id, "ids": list(after), "after": list(after.values())}
    for turn_id, seq, kind, body, said in await session.execute(_READ, keys):
        # Of a row with several events the first may be known.
        new = [numbered for numbered in unfold(seq, kind, body, said) if numbered.seq > after[turn_id]]
        found.setdefault(turn_id, []).extend(new)
    return found
