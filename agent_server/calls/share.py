"""What callers may take: so many connections at once, each and all together, and so many calls of a tool in an hour."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import ORMExecuteState, Session
from sqlalchemy.util import await_only

from agent_server.caller import Caller
from agent_server.db import Database, busy_database, patience
from agent_server.errors import TooMany
from agent_server.identity.limits import HOUR, limit_key, take
from agent_server.identity.logins import SigningSecret
from agent_server.tool import Tool


@dataclass
class _Places:
    """The places of one caller, and how many of its calls there are, those that wait among them."""

    free: asyncio.Semaphore
    calls: int = 0


@dataclass
class _Call:
    """A call that takes a place with its first statement, one of its caller's and one of all callers'."""

    of_caller: asyncio.Semaphore
    of_all: asyncio.Semaphore
    seconds: float
    has_place: bool = False

    @property
    def must_wait(self) -> bool:
        return not self.has_place and (self.of_caller.locked() or self.of_all.locked())

    async def take_place(self) -> None:
        try:
            async with asyncio.timeout(self.seconds):
                await self.of_caller.acquire()
        except TimeoutError:
            raise _too_many() from None
        try:
            async with asyncio.timeout(patience(self.seconds)):
                await self.of_all.acquire()
        except BaseException as error:
            self.of_caller.release()
            if isinstance(error, TimeoutError):
                raise busy_database() from None
            raise
        self.has_place = True

    def free_place(self) -> None:
        if self.has_place:
            self.of_caller.release()
            self.of_all.release()


@dataclass
class Shares:
    """Keeps calls from taking every connection of the process, which has `connections`.

    Those of one caller hold at most half of them at the same time, those of all callers at most three quarters: what is
    left is for what no tool does. Another call waits for up to `seconds`.
    """

    connections: int
    seconds: float
    _of: dict[UUID, _Places] = field(default_factory=dict, init=False)
    _of_all: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._of_all = asyncio.Semaphore(max(1, self.connections - max(1, self.connections // 4)))

    @contextmanager
    def bound(self, session: AsyncSession, caller: Caller) -> Iterator[None]:
        """Have `session` wait for a place of the caller's before its first statement. That raises TooMany, and
        DatabaseAway where it is other callers who take all that there is.

        A call that makes no statement takes none: it may work outside our database for as long as it likes.
        """
        places = self._of.setdefault(caller.id, _Places(asyncio.Semaphore(max(1, self.connections // 2))))
        places.calls += 1
        call = session.sync_session.info[_CALL] = _Call(places.free, self._of_all, self.seconds)
        try:
            yield
        finally:
            del session.sync_session.info[_CALL]
            call.free_place()
            places.calls -= 1
            if not places.calls:
                del self._of[caller.id]


_CALL = "call"


# A statement, and a flush, which makes its own: SQLAlchemy takes the connection after these. Listeners of one session
# would cost each call a tenth of a millisecond.
@event.listens_for(Session, "do_orm_execute")
def _before_statement(state: ORMExecuteState) -> None:
    _take_place(state.session)


@event.listens_for(Session, "before_flush")
def _before_flush(session: Session, *_: Any) -> None:
    _take_place(session)


@event.listens_for(Session, "after_begin")
def _after_begin(session: Session, *_: Any) -> None:
    call: _Call | None = session.info.get(_CALL)
    # By `session.connection()`: there is a connection by now, which must not be held while others are waited for.
    if call is not None and call.must_wait:
        raise _too_many() if call.of_caller.locked() else busy_database()
    _take_place(session)


def _take_place(session: Session) -> None:
    call: _Call | None = session.info.get(_CALL)
    if call is not None and not call.has_place:
        await_only(call.take_place())


def _too_many() -> TooMany:
    return TooMany("Too many of your calls run at the same time; try again when one has ended")


async def count_call(database: Database, secret: SigningSecret, tool: Tool[..., Any], caller: Caller) -> None:
    """Count a call of a tool that is limited. Raises TooMany."""
    if tool.per_hour is None:
        return
    key = await secret.get()
    of = [f"caller {caller.id}", *([f"network {caller.network}"] if caller.network is not None else [])]
    # A transaction of its own: a call that fails is counted, and those of a caller do not wait for each other.
    async with database.transaction() as session:
        for who in of:
            await take(session, limit_key(key, tool.name, who), per_seconds=HOUR, burst=tool.per_hour)
