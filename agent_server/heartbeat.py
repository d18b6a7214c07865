"""How a process says that it lives: by a heartbeat, and by a lock that falls with its connection.

Both are on a connection of their own. Whatever else the process does, and however full its pool is, no beat waits for it.
"""

import asyncio
import contextlib
import secrets
import time
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import structlog
from sqlalchemy import DateTime, text
from sqlmodel import Field, SQLModel

from agent_server.db import BROKEN, Database, keep_promise
from agent_server.errors import Unavailable

log = structlog.get_logger()

# Of the replica and not of each turn, which would be a write per turn and second.
BEAT_SECONDS = 1.0
ALONE_SECONDS = 2.0
"""The same while there is no other replica that could take this one for dead."""
DEAD_AFTER = 5.0
"""Seconds without a heartbeat, on the database's clock, after which a replica is taken for dead."""
STOP_AFTER = DEAD_AFTER - 1.0
"""Seconds without a heartbeat after which a replica stops its own runs: before the others take it for dead."""
FORMAT = 3
"""Which forms of rows this version reads. With 2, several events may be in one row (`turns.events.BATCH`). With 3, they
may refer to items (`turns.references`), and the body of a message leaves its text out (`conversations.items.BODY`)."""
LOCK_SPACE = 730_042
"""The first of the two keys of the advisory locks that replicas hold; the second is `replica.lock_key`. The function
`sweep` (migrations/engine) has it too: a lock that is free says that its process is dead, at once, but not where the
server that held it has been restarted since."""

_FORGET = text("delete from replica where id = :me or beat < now() - interval '1 hour'")
_BEAT = f"""
    insert into replica (id, beat, lock_key, server_started, format) values ($1, now(), $2, $3, {FORMAT})
    on conflict (id) do update
        set beat = excluded.beat, lock_key = excluded.lock_key, server_started = excluded.server_started
    returning (select min(coalesce(o.format, 1)) from replica o
               where o.id <> $1 and o.beat > now() - interval '{DEAD_AFTER} seconds')"""  # noqa: S608  # constants
_LOCK = "select pg_try_advisory_lock($1, $2)"


class ReplicaRow(SQLModel, table=True):
    """A process that runs turns. `beat` is when it last said so, by the database's clock.

    `lock_key` is the advisory lock that its connection holds, on the server that started at `server_started`: while that
    server runs, a lock that is free says that the process is dead. None: only `beat` says it. `format` is the newest form
    of rows that it reads (None: 1).
    """

    __tablename__ = "replica"

    id: UUID = Field(primary_key=True)
    beat: datetime = Field(sa_type=DateTime(timezone=True))
    lock_key: int | None = None
    server_started: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))
    format: int | None = None


class Heartbeat:
    """Beats every `BEAT_SECONDS` from `start` to `close`. It holds a lock, and takes it anew where it was lost."""

    def __init__(self, database: Database, replica: UUID) -> None:
        self._database, self._replica = database, replica
        # Used by whoever beats and by nobody else: asyncpg refuses a second user, which looks like a lost connection.
        self._connection: asyncpg.Connection | None = None
        self._lock: tuple[int, datetime] | None = None
        self._changed, self._lost = asyncio.Event(), asyncio.Event()
        self._beaten = time.monotonic()
        self.is_alone = False
        """Whether no other replica lived when this one last beat."""
        self.format = 1
        """The newest form of rows that all replicas read which lived then."""
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def is_silent(self) -> bool:
        """Whether it is so long since this replica could say that it lives that others may take it for dead."""
        return time.monotonic() - self._beaten > STOP_AFTER

    async def start(self) -> None:
        """Take the lock and beat. Raises Unavailable."""
        await self._connect()
        # An owner without a row is dead to the others, so the row is there before the first turn is accepted.
        await self._beat()
        self._tasks = [asyncio.create_task(self._beat_on()), asyncio.create_task(self._stay_connected())]

    async def close(self) -> None:
        """Take leave of the other replicas, and let go of the lock."""
        # First: a beat after the row is gone would put it back.
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(Unavailable):
            async with self._database.transaction() as session:
                await session.execute(_FORGET, {"me": self._replica})
        if self._connection is not None:
            self._connection.remove_termination_listener(self._notice_end)
            with contextlib.suppress(Exception):
                await self._connection.close(timeout=2)
            self._connection = None

    async def _beat_on(self) -> None:
        keep_promise()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ALONE_SECONDS if self.is_alone else BEAT_SECONDS):
                    await self._changed.wait()
            # Before the beat, so that a change which comes during it is not lost.
            self._changed.clear()
            try:
                await self._beat()
            except Unavailable:
                log.warning("database.unavailable")
            except Exception:  # a replica that has stopped beating loses its turns
                log.exception("heartbeat.failed")

    async def _beat(self) -> None:
        # The database stamps the beat later than this, so this replica falls silent before the others count it dead.
        began = time.monotonic()
        await self._write_beat()
        self._beaten = began

    async def _write_beat(self) -> None:
        if (connection := self._connection) is not None:
            try:
                self._note_others(
                    await connection.fetchval(_BEAT, self._replica, *(self._lock or (None, None)), timeout=2)
                )
                return
            except asyncpg.PostgresError:
                pass  # the server answers: to give up the lock would say that this process is dead
            except BROKEN:
                # A connection that leads nowhere does not say so itself.
                self._notice_end(connection)
        async with self._database.transaction() as session:
            pooled = await session.connection()
            others = await pooled.exec_driver_sql(_BEAT, (self._replica, *(self._lock or (None, None))))
            self._note_others(others.scalar_one())

    def _note_others(self, format: int | None) -> None:
        self.is_alone = format is None
        self.format = FORMAT if format is None else min(FORMAT, format)

    async def _stay_connected(self) -> None:
        wait = 0.05
        while True:
            await self._lost.wait()
            try:
                await self._connect()
            except (asyncpg.PostgresError, Unavailable, *BROKEN):
                await asyncio.sleep(wait)  # a server that starts again announces itself to nobody
                wait = min(wait * 2, 1.0)
            else:
                wait = 0.05
                # The next beat must name the new lock: the old one is free, which others take for death.
                self._changed.set()

    async def _connect(self) -> None:
        connection = await self._database.direct()
        try:
            # Another replica may hold a lock with the same random key.
            while not await connection.fetchval(_LOCK, LOCK_SPACE, key := secrets.randbelow(2**31), timeout=2):
                pass
            started = await connection.fetchval("select pg_postmaster_start_time()", timeout=2)
        except BaseException:
            connection.terminate()
            raise
        self._lost.clear()
        self._connection, self._lock = connection, (key, started)
        connection.add_termination_listener(self._notice_end)

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
            self._lost.set()
            self._changed.set()
