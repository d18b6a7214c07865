"""What changes while somebody watches it: what is read at an address, and lists of what there is.

Beside it: what the sessions of MCP clients watch, which is kept because their requests may reach different replicas.

A subject is an address or the name of a list. Other replicas are told of it by a hint (`signals.Changed`), which has an id
in its place: a lost hint is a change that a watcher does not hear of, and reads with its next look.
"""

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import DateTime, UniqueConstraint, delete
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import Field, col, func, select

from agent_server.caller import Caller
from agent_server.db import Owned, new_id, now
from agent_server.errors import TooMany

if TYPE_CHECKING:
    from agent_server.db import Database

TOOLS, PROMPTS, RESOURCES = LISTS = ("tools", "prompts", "resources")
"""The lists. No address is called so: each has a colon."""

MOST_OF_OWNER = 1_000
"""Addresses that all sessions of a caller's clients watch together."""
KEPT = timedelta(days=1)
"""How long is kept what a session watches."""


def name_subject(subject: str) -> UUID:
    """The id of a subject, the same in every replica."""
    return UUID(bytes=hashlib.blake2b(subject.encode(errors="surrogatepass"), digest_size=16).digest())


class Watch:
    """The subjects of one watcher, and which of them have changed since it asked. Each is kept once, however often it has."""

    def __init__(self, changes: "Changes") -> None:
        self._changes = changes
        self._subjects: dict[UUID, str] = {}
        self._changed: set[str] = set()
        self._woken = asyncio.Event()

    def follow(self, subjects: Collection[str]) -> None:
        """Watch these subjects and no others."""
        self._changes.leave(self, self._subjects)
        self._subjects = {name_subject(subject): subject for subject in subjects}
        self._changes.join(self, self._subjects)
        self._changed &= set(subjects)

    def follows(self, subject: str) -> bool:
        return name_subject(subject) in self._subjects

    def hear(self, id: UUID | None) -> None:
        if id is not None:
            self._changed.add(self._subjects[id])
        self._woken.set()

    async def wait(self, seconds: float) -> Collection[str]:
        """The subjects that have changed since the last time, as soon as there is one; none after so many seconds, and
        when this process ends."""
        if not self._changed and not self._changes.is_closed:
            try:
                async with asyncio.timeout(seconds):
                    await self._woken.wait()
            except TimeoutError:
                return ()
        self._woken.clear()
        changed, self._changed = self._changed, set()
        return sorted(changed)


class Changes:
    """Who watches what in this process. By `send` the other replicas are told of what changes."""

    def __init__(self, send: Callable[[UUID], object] = lambda _: None) -> None:
        self._send = send
        self._watches: defaultdict[UUID, set[Watch]] = defaultdict(set)
        self._all: set[Watch] = set()
        self.is_closed = False

    def announce(self, subject: str) -> None:
        """Tell all who watch a subject that it has changed, here and in other replicas."""
        id = name_subject(subject)
        self.hear(id)
        self._send(id)

    def hear(self, id: UUID) -> None:
        """Tell those who watch the subject of this id in this process."""
        for watch in self._watches.get(id, ()):
            watch.hear(id)

    @contextmanager
    def watch(self) -> Iterator[Watch]:
        """A watch that begins without subjects and ends with the block."""
        watch = Watch(self)
        self._all.add(watch)
        try:
            yield watch
        finally:
            watch.follow(())
            self._all.discard(watch)

    def close(self) -> None:
        """End what waits: this process ends."""
        self.is_closed = True
        for watch in self._all:
            watch.hear(None)

    def join(self, watch: Watch, ids: Collection[UUID]) -> None:
        for id in ids:
            self._watches[id].add(watch)

    def leave(self, watch: Watch, ids: Collection[UUID]) -> None:
        for id in ids:
            self._watches[id].discard(watch)
            if not self._watches[id]:
                del self._watches[id]


class McpSubscription(Owned, table=True):
    """An address that a session of its owner's client watches. `session` is made of the id that the client was given."""

    __tablename__ = "mcp_subscription"
    __table_args__ = (UniqueConstraint("owner_id", "session", "uri"),)

    session: UUID
    uri: str
    created_at: datetime = Field(default_factory=now, sa_type=DateTime(timezone=True))


async def keep_watched(database: "Database", caller: Caller, session: UUID, uri: str) -> None:
    """Keep that a session watches an address. Raises TooMany."""
    own = col(McpSubscription.owner_id) == caller.id
    row = {"owner_id": caller.id, "id": new_id(), "session": session, "uri": uri, "created_at": now()}
    async with database.transaction(caller.id, scopes=caller.scopes) as transaction:
        await transaction.execute(delete(McpSubscription).where(own, col(McpSubscription.created_at) < now() - KEPT))
        count = select(func.count()).select_from(McpSubscription).where(own)
        if (await transaction.execute(count)).scalar_one() >= MOST_OF_OWNER:
            raise TooMany(f"Clients of a caller watch {MOST_OF_OWNER} addresses at most; unsubscribe from one")
        await transaction.execute(insert(McpSubscription).values(row).on_conflict_do_nothing())


async def forget_watched(database: "Database", caller: Caller, session: UUID, uri: str) -> None:
    """Keep no longer that a session watches an address."""
    async with database.transaction(caller.id, scopes=caller.scopes) as transaction:
        await transaction.execute(
            delete(McpSubscription).where(
                col(McpSubscription.owner_id) == caller.id,
                col(McpSubscription.session) == session,
                col(McpSubscription.uri) == uri,
            )
        )


async def list_watched(database: "Database", caller: Caller, session: UUID) -> Sequence[str]:
    """The addresses that a session watches."""
    async with database.transaction(caller.id, scopes=caller.scopes) as transaction:
        found = await transaction.execute(
            select(McpSubscription.uri).where(
                col(McpSubscription.owner_id) == caller.id, col(McpSubscription.session) == session
            )
        )
        return list(found.scalars())
