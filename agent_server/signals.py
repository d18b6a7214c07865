"""Hints between the processes that run turns, on a connection of their own.

A hint says that there may be more to read or to do, never what: a lost one costs a poll interval. Hints are gathered for
`GATHER_SECONDS` and sent apart from the transactions they speak of.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, assert_never
from uuid import UUID

import asyncpg
import structlog

from agent_server.db import BROKEN, Database
from agent_server.errors import Unavailable

log = structlog.get_logger()

CHANNEL = "agent_server"
# A NOTIFY in each commit makes commits seven times slower, since Postgres serialises them.
GATHER_SECONDS = 0.01
CHECK_SECONDS = 15.0
"""How often a connection that is silent is asked whether it is still there."""
_PER_NOTIFY = 200
"""Hints in one notification, whose payload Postgres limits to 8,000 bytes."""

_LOST = (asyncpg.PostgresError, *BROKEN)
_ID = re.compile("[0-9a-f]{32}")


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


@dataclass(frozen=True)
class CallLeft:
    """The client of an MCP call no longer wants it. `id` is that of `mcp.open_calls`."""

    id: UUID


@dataclass(frozen=True)
class Changed:
    """Something that clients watch has changed. `id` is that of `changes.name_subject`."""

    id: UUID


@dataclass(frozen=True)
class QuestionAnswered:
    """There may be an answer to a question that the client of an MCP call was asked (`calls.inquiries`)."""

    id: UUID


Hint = TurnGrew | TurnStopped | WorkWaits | CallLeft | Changed | QuestionAnswered


_KINDS: Mapping[str, Callable[[UUID], Hint]] = {
    "e": TurnGrew,
    "s": TurnStopped,
    "c": CallLeft,
    "n": Changed,
    "a": QuestionAnswered,
}


class Signals:
    """Hints to and from other replicas. It connects, and connects again, until it is closed.

    `received` has the hints of other replicas that are about turns. `call_left` is called with the id of each call that
    was left, `changed` with that of each subject that has changed, `question_answered` with that of each question that may
    have an answer.
    """

    def __init__(self, database: Database, replica: UUID) -> None:
        self._database, self._replica = database, replica
        self.received: asyncio.Queue[TurnGrew | TurnStopped | WorkWaits] = asyncio.Queue()
        self.call_left: Callable[[UUID], object] = lambda _: None
        self.changed: Callable[[UUID], object] = lambda _: None
        self.question_answered: Callable[[UUID], object] = lambda _: None
        # Used by the one task: asyncpg refuses a second user, which looks like a lost connection.
        self._connection: asyncpg.Connection | None = None
        self._hints: set[str] = set()
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen. Raises Unavailable."""
        await self._connect()
        self._task = asyncio.create_task(self._stay_connected())

    async def close(self) -> None:
        """Send what is left."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        with contextlib.suppress(Exception):
            await self._flush()
        if self._connection is not None:
            self._connection.remove_termination_listener(self._notice_end)
            with contextlib.suppress(Exception):
                await self._connection.close(timeout=2)
            self._connection = None

    def send(self, hint: Hint) -> None:
        """Send a hint to the other replicas soon. It never waits."""
        self._hints.add(_encode(hint))
        self._woken.set()

    async def _stay_connected(self) -> None:
        wait = 0.05
        while True:
            try:
                if self._connection is None:
                    await self._connect()
                wait = 0.05
                await self._send_on()
            except _LOST:
                self._drop()
            except Unavailable:
                self._hints.clear()  # whoever listens polls
                await asyncio.sleep(wait)
                wait = min(wait * 2, 1.0)

    async def _send_on(self) -> None:
        """Send hints for as long as there is a connection."""
        sent = 0.0
        while self._connection is not None:
            try:
                async with asyncio.timeout(CHECK_SECONDS):
                    await self._woken.wait()
            except TimeoutError:
                # A connection that leads nowhere is as silent as one on which nothing happens.
                await self._connection.execute("select 1", timeout=2)
                continue
            # A hint after a pause goes at once. Only those that follow it closely are gathered.
            await asyncio.sleep(max(0.0, sent + GATHER_SECONDS - time.monotonic()))
            self._woken.clear()
            sent = time.monotonic()
            await self._flush()

    async def _flush(self) -> None:
        while (connection := self._connection) and (
            hints := [self._hints.pop() for _ in range(min(len(self._hints), _PER_NOTIFY))]
        ):
            try:
                payload = ",".join((self._replica.hex, *hints))
                await connection.execute("select pg_notify($1, $2)", CHANNEL, payload, timeout=2)
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
            match hint:
                case CallLeft(id):
                    self.call_left(id)
                case Changed(id):
                    self.changed(id)
                case QuestionAnswered(id):
                    self.question_answered(id)
                case TurnGrew() | TurnStopped() | WorkWaits():
                    self.received.put_nowait(hint)

    async def _connect(self) -> None:
        connection = await self._database.direct()
        try:
            async with asyncio.timeout(5):
                await connection.add_listener(CHANNEL, self._receive)
        except _LOST as error:
            connection.terminate()
            raise Unavailable("The database cannot be reached; try again in a moment") from error
        self._connection = connection
        connection.add_termination_listener(self._notice_end)

    def _notice_end(self, connection: asyncpg.Connection) -> None:
        if connection is self._connection:
            self._drop()

    def _drop(self) -> None:
        if (connection := self._connection) is not None:
            log.warning("database.direct_lost")
            self._connection = None
            connection.remove_termination_listener(self._notice_end)
            # `close` would wait for a server that may not be there.
            connection.terminate()
            self._woken.set()


def _encode(hint: Hint) -> str:
    match hint:
        case TurnGrew(turn_id):
            return f"e{turn_id.hex}"
        case TurnStopped(turn_id):
            return f"s{turn_id.hex}"
        case WorkWaits():
            return "w"
        case CallLeft(id):
            return f"c{id.hex}"
        case Changed(id):
            return f"n{id.hex}"
        case QuestionAnswered(id):
            return f"a{id.hex}"
        case _:
            assert_never(hint)


def _decode(text: str) -> Hint | None:
    """The hint of a text. None for one of a kind that only another version of the server knows."""
    kind, id = text[:1], text[1:]
    if kind == "w":
        return WorkWaits()
    if (of := _KINDS.get(kind)) is None or not _ID.fullmatch(id):
        return None
    return of(UUID(id))
