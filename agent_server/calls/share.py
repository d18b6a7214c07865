"""What one caller may take: so many connections at once, and so many calls of a tool in an hour."""

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
from agent_server.db import Database
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
    """A call that takes a place with its first statement."""

    places: _Places
    seconds: float
    has_place: bool = False

    async def take_place(self) -> None:
        try:
            async with asyncio.timeout(self.seconds):
                await self.places.free.acquire()
        except TimeoutError:
            raise _too_many() from None
        self.has_place = True


@dataclass
class Shares:
    """Keeps the calls of one caller from taking every connection of the process.

    At most `limit` of a caller's calls hold one at the same time; another waits for up to `seconds`.
    """

    limit: int
    seconds: float
    _of: dict[UUID, _Places] = field(default_factory=dict, init=False)

    @contextmanager
    def bound(self, session: AsyncSession, caller: Caller) -> Iterator[None]:
        """Have `session` wait for a place of the caller's before its first statement. That raises TooMany.

        A call that makes no statement takes none: it may work outside our database for as long as it likes.
        """
        places = self._of.setdefault(caller.id, _Places(asyncio.Semaphore(self.limit)))
        places.calls += 1
        call = session.sync_session.info[_CALL] = _Call(places, self.seconds)
        try:
            yield
        finally:
            del session.sync_session.info[_CALL]
            if call.has_place:
                places.free.release()
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
    if call is not None and not call.has_place and call.places.free.locked():
        raise _too_many()
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
