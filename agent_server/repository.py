"""Reads and writes of one table as one caller may see it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from agent_server.caller import Caller
from agent_server.db import SYSTEM, Owned, Shared
from agent_server.errors import InvalidInput, NotFound

M = TypeVar("M", bound=Owned | Shared)


@dataclass(frozen=True)
class Page(Generic[M]):
    """Rows, newest first. `next_cursor` is None after the last page."""

    items: Sequence[M]
    next_cursor: str | None


class Repository(Generic[M]):
    """The base of a table's repository. Subclass it with `model`, and add a method for each question you ask of the
    table.

    Every statement starts from `visible()`, so a row that is not the caller's is a row that is not there.
    """

    model: ClassVar[type[Any]]

    def __init__(self, session: AsyncSession, caller: Caller) -> None:
        self.session = session
        self.caller = caller

    @property
    def owner(self) -> UUID:
        # Shared rows are the system's, for every caller.
        return SYSTEM if issubclass(self.model, Shared) else self.caller.id

    def visible(self) -> SelectOfScalar[M]:
        return select(self.model).where(col(self.model.owner_id) == self.owner)

    async def find(self, id: UUID, *, lock: bool = False) -> M | None:
        """The row or None. `lock=True` holds it until the transaction ends, for read-change-write."""
        statement = self.visible().where(col(self.model.id) == id)
        return (await self.session.execute(statement.with_for_update() if lock else statement)).scalar_one_or_none()

    async def get(self, id: UUID, *, lock: bool = False) -> M:
        """As `find`. Raises NotFound."""
        row = await self.find(id, lock=lock)
        if row is None:
            noun = self.model.__name__.lower()
            raise NotFound(f"There is no {noun} {id}; list them to see which there are")
        return row

    async def page(self, limit: int, cursor: str | None = None, statement: SelectOfScalar[M] | None = None) -> Page[M]:
        """`limit` rows of `statement` after `cursor`, newest first. The default is all visible rows. Raises
        InvalidInput."""
        statement = self.visible() if statement is None else statement
        if cursor is not None:
            statement = statement.where(col(self.model.id) < cursor_id(cursor))
        # One more than asked for: it says whether there is a next page, without a count.
        rows = (
            (await self.session.execute(statement.order_by(col(self.model.id).desc()).limit(limit + 1))).scalars().all()
        )
        return Page(rows[:limit], str(rows[limit - 1].id) if len(rows) > limit else None)

    async def add(self, row: M) -> M:
        # Set here and not by the tool: an owner that came from arguments would be another caller's.
        row.owner_id = self.owner
        self.session.add(row)
        await self.session.flush()
        return row

    async def remove(self, row: M) -> None:
        await self.session.delete(row)
        await self.session.flush()


def cursor_id(cursor: str) -> UUID:
    """The id in a cursor. Raises InvalidInput for anything that did not come from `next_cursor`."""
    try:
        return UUID(cursor)
    except ValueError:
        raise InvalidInput("cursor: not one of ours; pass next_cursor of the page before, or leave it out") from None
