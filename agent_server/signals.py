"""The one direct connection of a process for what needs a session of its own.

It carries hints to and from the other replicas and the heartbeat, and it holds the lock that says that the process
lives. A hint says that there may be more to read or to do, never what: a lost one costs a poll interval. Hints are
gathered for `GATHER_SECONDS` and sent apart from the transactions they speak of.
"""

import asyncio
import contextlib
import re
import secrets
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any, assert_never
from uuid import UUID

import asyncpg
import structlog
from sqlalchemy import DateTime, text
from sqlmodel import Field, SQLModel

from agent_server.db import Database
from agent_server.errors import Unavailable

log = structlog.get_logger()

LOCK_SPACE = 730_042
"""The first of the two keys of the advisory locks that replicas hold; the second is `replica.lock_key`. The function
`sweep` (migrations/engine) has it too: a lock that is free says that its process is dead, at once, but not where the
server that held it has been restarted since."""
CHANNEL = "agent_server"
# A NOTIFY in each commit makes commits seven times slower, since Postgres serialises them.
GATHER_SECONDS = 0.01
CHECK_SECONDS = 5.0
"""How often a connection that is silent is asked whether it is still there."""
_PER_NOTIFY = 200
"""Hints in one notification, whose payload Postgres limits to 8,000 bytes."""

_FORGET = text("delete from replica where id = :me or beat < now() - interval '1 hour'")
_BEAT = """
    insert into replica (id, beat, lock_key, server_started) values ($1, now(), $2, $3)
    on conflict (id) do update set beat = now(), lock_key = $2, server_started = $3"""

_ID = re.compile("[0-9a-f]{32}")
_LOCK = "select pg_try_advisory_lock($1, $2)"


class ReplicaRow(SQLModel, table=True):
    """A process that runs turns. `beat` is when it last said so, by the database's clock.

    `lock_key` is the advisory lock that its direct connection holds, on the server that started at `server_started`:
    while that server runs, a lock that is free says that the process is dead. None: only `beat` says it.
    """

    __tablename__ = "replica"

    id: UUID = Field(primary_key=True)
    beat: datetime = Field(sa_type=DateTime(timezone=True))
    lock_key: int | None = None
    server_started: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))


@dataclass(frozen=True)
class TurnGrew:
    """There may be events of the turn to read."""

    turn_id: UUID


@dataclass(frozen=True)
class TurnStopped:
    """The turn's row says that it is to stop."""

    turn_id: UUID


@dataclass(frozen=True)
class WorkWaits:
    """There may be a turn that nobody runs."""


Hint = TurnGrew | TurnStopped | WorkWaits


class Signals:
    """Hints to and from other replicas. It connects, and connects again, until it is closed.

    `received` has the hints of other replicas. `lock_changed` is set when the lock was lost or taken.
    """

    def __init__(self, database: Database, replica: UUID) -> None:
        self._database, self._replica = database, replica
        self.received: asyncio.Queue[Hint] = asyncio.Queue()
        self.lock_changed = asyncio.Event()
        self._connection: asyncpg.Connection | None = None
        self._lock: tuple[int, datetime] | None = None
        self._hints: set[str] = set()
        self._hinted, self._dropped = asyncio.Event(), asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        await self._connect()
        self._tasks = [asyncio.create_task(self._send_hints()), asyncio.create_task(self._stay_connected())]

    async def close(self) -> None:
        """Send what is left, take leave and let go of the lock."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(Exception):
            await self._flush()
        with contextlib.suppress(Unavailable):
            async with self._database.transaction() as session:
                await session.execute(_FORGET, {"me": self._replica})
        if self._connection is not None:
            self._connection.remove_termination_listener(self._notice_end)
            with contextlib.suppress(Exception):
                await self._connection.close(timeout=2)
            self._connection = None

    def send(self, hint: Hint) -> None:
        """Send a hint to the other replicas soon. It never waits."""
        self._hints.add(_encode(hint))
        self._hinted.set()

    async def beat(self) -> None:
        """Say that this replica lives. Raises Unavailable."""
        # Over the direct connection, so that a pool that is all in use does not look like death.
        key, server_started = self._lock or (None, None)
        if self._connection is not None:
            with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
                await self._connection.execute(_BEAT, self._replica, key, server_started, timeout=2)
                return
        async with self._database.transaction() as session:
            connection = await session.connection()
            await connection.exec_driver_sql(_BEAT, (self._replica, key, server_started))

    async def _send_hints(self) -> None:
        sent = 0.0
        while True:
            await self._hinted.wait()
            # A hint after a pause goes at once. Only those that follow it closely are gathered.
            await asyncio.sleep(max(0.0, sent + GATHER_SECONDS - time.monotonic()))
            self._hinted.clear()
            sent = time.monotonic()
            try:
                await self._flush()
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
                await asyncio.sleep(GATHER_SECONDS)  # `_stay_connected` sees to it; the hints are still there
                self._hinted.set()

    async def _flush(self) -> None:
        if self._connection is None:
            self._hints.clear()  # whoever listens polls
            return
        while hints := [self._hints.pop() for _ in range(min(len(self._hints), _PER_NOTIFY))]:
            try:
                payload = ",".join((self._replica.hex, *hints))
                await self._connection.execute("select pg_notify($1, $2)", CHANNEL, payload, timeout=2)
            # Also when this is cancelled: `close` sends what is left.
            except BaseException:
                self._hints.update(hints)
                raise

    def _receive(self, _: Any, __: int, ___: str, payload: str) -> None:
        sender, *hints = payload.split(",")
        # Followers in this process have it from memory.
        if sender == self._replica.hex:
            return
        for hint in map(_decode, hints):
            if hint is not None:
                self.received.put_nowait(hint)

    async def _stay_connected(self) -> None:
        wait = 0.05
        while True:
            self._dropped.clear()
            try:
                if self._connection is None:
                    await self._connect()
                    # The next beat must name the new lock: the old one is free, which others take for death.
                    self.lock_changed.set()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(CHECK_SECONDS):
                        await self._dropped.wait()
                if self._connection is not None:
                    # A connection that leads nowhere is as silent as one on which nothing happens.
                    await self._connection.execute("select 1", timeout=2)
                    wait = 0.05
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError, Unavailable):
                self._drop()
                await asyncio.sleep(wait)
                wait = min(wait * 2, 1.0)

    async def _connect(self) -> None:
        connection = await self._database.direct()
        # Another replica may hold a lock with the same random key.
        while not await connection.fetchval(_LOCK, LOCK_SPACE, key := secrets.randbelow(2**31)):
            pass
        started = await connection.fetchval("select pg_postmaster_start_time()")
        await connection.add_listener(CHANNEL, self._receive)
        connection.add_termination_listener(self._notice_end)
        self._connection, self._lock = connection, (key, started)

    def _notice_end(self, connection: Any) -> None:
        if connection is self._connection:
            self._drop()

    def _drop(self) -> None:
        """Give up the connection and the lock that went with it. From here on the heartbeat alone speaks, and says so
        at once."""
        if (connection := self._connection) is not None:
            log.warning("database.direct_lost")
            self._connection = self._lock = None
            connection.remove_termination_listener(self._notice_end)
            # `close` would wait for a server that may not be there.
            connection.terminate()
            self._dropped.set()
            self.lock_changed.set()


def _encode(hint: Hint) -> str:
    match hint:
        case TurnGrew(turn_id):
            return f"e{turn_id.hex}"
        case TurnStopped(turn_id):
            return f"s{turn_id.hex}"
        case WorkWaits():
            return "w"
        case _:
            assert_never(hint)


def _decode(text: str) -> Hint | None:
    """The hint of a text. None for one of a kind that only another version of the server knows."""
    kind, id = text[:1], text[1:]
    if kind == "w":
        return WorkWaits()
    if kind not in ("e", "s") or not _ID.fullmatch(id):
        return None
    return TurnGrew(UUID(id)) if kind == "e" else TurnStopped(UUID(id))
