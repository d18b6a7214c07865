"""Statements of the hot path, sent by the driver itself.

SQLAlchemy's session costs several times what the statement under it does. What runs for each message of a user goes
past it: the same SQL (`text`), on connections of the same pool, under the same rules.
"""

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import Any, cast

import asyncpg
from sqlalchemy import TextClause
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import PoolProxiedConnection
from sqlalchemy.util import greenlet_spawn

from agent_server.db.outages import BROKEN, is_unusable, translate_outage
from agent_server.errors import Unavailable

_PARAMETER = re.compile(r"(?<![:\w\\]):(\w+)(?![:\w])")
"""As SQLAlchemy's `text` has it: a colon before a name, and none beside it."""
_compiled: dict[TextClause, tuple[str, tuple[str, ...]]] = {}


class Row(asyncpg.Record):  # type: ignore[misc]  # asyncpg has no types
    """A row whose columns are attributes, too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Rows(list[Any]):
    """What a statement returned, with the methods of SQLAlchemy's result that are used here."""

    def all(self) -> "Rows":
        return self

    def scalars(self) -> "Rows":
        """The first column."""
        return Rows(row[0] for row in self)

    def first(self) -> Any:
        return self[0] if self else None

    def one_or_none(self) -> Any:
        """The only row. Raises ValueError where there are more."""
        if len(self) > 1:
            raise ValueError(f"{len(self)} rows where there should be one at most")
        return self.first()

    def one(self) -> Any:
        """As `one_or_none`. Raises ValueError where there is none, too."""
        if not self:
            raise ValueError("no row where there should be one")
        return self.one_or_none()

    def scalar(self) -> Any:
        """The first column of the first row, None without one."""
        return self[0][0] if self else None

    def scalar_one_or_none(self) -> Any:
        row = self.one_or_none()
        return None if row is None else row[0]

    def scalar_one(self) -> Any:
        return self.one()[0]


def compile_text(statement: TextClause) -> tuple[str, tuple[str, ...]]:
    """The statement as Postgres reads it, and the names of its parameters in their order."""
    if (found := _compiled.get(statement)) is None:
        names: dict[str, int] = {}
        sql = _PARAMETER.sub(lambda m: f"${names.setdefault(m[1], len(names) + 1)}", statement.text)
        found = _compiled[statement] = sql, tuple(names)
    return found


class QuickSession:
    """One transaction on a connection of the pool. `Database.quick` makes it and ends it."""

    def __init__(self, engine: AsyncEngine, preamble: str) -> None:
        self._engine, self._preamble = engine, preamble
        self._held: PoolProxiedConnection | None = None
        self._after_commit: list[Callable[[], None]] = []

    async def execute(self, statement: TextClause, params: Mapping[str, Any] | None = None, /) -> Rows:
        """Run a statement. Raises DatabaseAway."""
        sql, names = compile_text(statement)
        values = params or {}
        return Rows(await self._send("fetch", sql, *(values[name] for name in names), record_class=Row))

    def after_commit(self, call: Callable[[], None]) -> None:
        """Have `call` made when the transaction has committed, and not if it does not."""
        self._after_commit.append(call)

    async def begin(self) -> None:
        """Take a connection and say for whom the transaction acts. Raises DatabaseAway."""
        self._held = await self._engine.raw_connection()
        # One round trip for all of it.
        await self._send("execute", f"BEGIN; {self._preamble}")

    async def begin_single(self) -> None:
        """Take a connection for one statement, which is a transaction of its own and acts for nobody. Raises
        DatabaseAway."""
        self._held = await self._engine.raw_connection()
        driver = cast(Any, self._held.driver_connection)
        if not driver.has_role:
            await self._send("execute", self._preamble)
            driver.has_role = True

    async def commit(self) -> None:
        """Raises DatabaseAway. The transaction is over either way."""
        try:
            # Postgres answers the commit of a transaction in which a statement has failed with this word.
            if await self._send("execute", "COMMIT") == "ROLLBACK":
                raise RuntimeError("a statement of this transaction has failed, and nothing of it is stored")
        finally:
            await self.give_back()
        for call in self._after_commit:
            call()

    async def roll_back(self) -> None:
        """Undo what was done. It never fails: what cannot be told to roll back is gone, and has done so."""
        try:
            if self._held is not None and self._held.is_valid:
                await self._send("execute", "ROLLBACK")
        except (Unavailable, asyncpg.PostgresError, *BROKEN) as error:
            # A connection in an unknown state must serve nobody else.
            if self._held is not None:
                await greenlet_spawn(self._held.invalidate, error)
        finally:
            await self.give_back()

    async def give_back(self) -> None:
        """Give the connection back to the pool."""
        held, self._held = self._held, None
        if held is not None:
            await greenlet_spawn(held.close)

    async def _send(self, method: str, *args: Any, **options: Any) -> Any:
        held = cast(Any, self._held)
        driver: asyncpg.Connection = held.driver_connection
        try:
            with translate_outage():
                return await getattr(driver, method)(*args, **options)
        except Exception as error:
            cause = error.__cause__ or error
            if isinstance(cause, TimeoutError):
                # A server that is there answers in time, if only that a statement took too long. One that does not is
                # gone for the other connections as well (a link that is up on our side only).
                pool = cast(Any, self._engine.pool)
                await greenlet_spawn(pool._invalidate, held, cause)  # SQLAlchemy's own way to do this
            elif driver.is_closed() or is_unusable(cause):
                await greenlet_spawn(held.invalidate, cause)
            raise


async def uncut(work: Any) -> None:
    """Await `work`, which is not cut off when this is cancelled."""
    task = asyncio.create_task(work)
    try:
        # A commit on its way cannot be called back: the driver would have to give up the connection.
        await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(lambda task: task.cancelled() or task.exception())  # nobody is left to be told
        raise
