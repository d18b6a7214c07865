"""Reads and writes of one table as one caller may see it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar
from uuid import UUID

from sqlalchemy import func
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from agent_server.caller import Caller
from agent_server.db import SYSTEM, Audited, Owned, Shared, SoftDeleted, Supervised, Versioned, now
from agent_server.errors import Conflict, Forbidden, InvalidInput, NotFound
from agent_server.records import check_version, stamp_changes

M = TypeVar("M", bound=Owned | Shared)


@dataclass(frozen=True)
class Page(Generic[M]):
    """Rows, newest first. `next_cursor` is None after the last page."""

    items: Sequence[M]
    next_cursor: str | None


class Repository(Generic[M]):
    """The base of a table's repository. Subclass it with `model`, and add a method for each question you ask of the
    table.

    Every statement starts from `visible()`, so a row that is not the caller's is a row that is not there. Of a
    `Supervised` table, all rows are there for holders of its scope.
    """

    model: ClassVar[type[Any]]

    def __init__(self, session: AsyncSession, caller: Caller) -> None:
        self.session = session
        self.caller = caller
        if issubclass(self.model, Versioned | Audited):
            stamp_changes(session.sync_session, caller)

    @property
    def owner(self) -> UUID:
        # Shared rows are the system's, for every caller.
        return SYSTEM if issubclass(self.model, Shared) else self.caller.id

    def visible(self) -> SelectOfScalar[M]:
        """The rows that are there for the caller."""
        return self._there(self._reachable())

    def deleted(self) -> SelectOfScalar[M]:
        """The rows of a `SoftDeleted` table that the caller may restore."""
        return self._reachable(to_write=True).where(col(self.model.deleted_at).is_not(None))

    def _reachable(self, *, to_write: bool = False) -> SelectOfScalar[M]:
        statement = select(self.model)
        if self._supervises(to_write=to_write):
            return statement
        return statement.where(col(self.model.owner_id) == self.owner)

    def _there(self, statement: SelectOfScalar[M]) -> SelectOfScalar[M]:
        return statement.where(col(self.model.deleted_at).is_(None)) if self._is_soft else statement

    def _supervises(self, *, to_write: bool = False) -> bool:
        """Whether the rows of all owners are the caller's to read; with `to_write`, to change."""
        if not issubclass(self.model, Supervised):
            return False
        policy = self.model.row_policy
        needed = (policy.read_scope, policy.write_scope) if to_write else (policy.read_scope,)
        return all(scope is not None and self.caller.may(scope) for scope in needed)

    @property
    def _is_soft(self) -> bool:
        return issubclass(self.model, SoftDeleted)

    async def find(self, id: UUID, *, lock: bool = False) -> M | None:
        """The row or None. `lock=True` holds it until the transaction ends, for read-change-write; there are then only
        rows that the caller may change."""
        statement = self._there(self._reachable(to_write=lock)).where(col(self.model.id) == id)
        return await self._find_one(statement, lock=lock)

    async def _find_one(self, statement: SelectOfScalar[M], *, lock: bool) -> M | None:
        if lock:
            statement = statement.with_for_update()
            if issubclass(self.model, Versioned):
                # As it is under the lock: what this transaction read before may be of another version.
                await self.session.flush()
                statement = statement.execution_options(populate_existing=True)
        return (await self.session.execute(statement)).scalar_one_or_none()

    async def get(self, id: UUID, *, lock: bool = False) -> M:
        """As `find`. Raises NotFound."""
        row = await self.find(id, lock=lock)
        if row is None:
            raise NotFound(f"There is no {self._noun} {id}; list them to see which there are")
        return row

    @property
    def _noun(self) -> str:
        return self.model.__name__.lower()

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

    async def count_rows(self, statement: SelectOfScalar[M] | None = None) -> int:
        """How many rows `statement` has. The default is all visible rows."""
        counted = (self.visible() if statement is None else statement).subquery()
        return (await self.session.execute(select(func.count()).select_from(counted))).scalar_one()

    async def add(self, row: M, *, owner: UUID | None = None) -> M:
        """Add a row of the caller's. Of a `Supervised` table staff may add one for another `owner`, whom they take from a
        row that they have read. Raises Forbidden."""
        if owner not in (None, self.owner) and not self._supervises(to_write=True):
            scope = self.model.row_policy.write_scope if issubclass(self.model, Supervised) else None
            raise Forbidden("Only staff may add this for somebody else; add your own", scope)
        # Set here and not by the tool: an owner that came from arguments would be another caller's.
        row.owner_id = owner or self.owner
        self.session.add(row)
        await self.session.flush()
        return row

    async def change(self, id: UUID, values: Mapping[str, Any], *, version: int | None = None) -> M:
        """Set fields of a row. With `version`, the one that the caller has seen, of a `Versioned` table.

        Raises NotFound, and Conflict that says what others have changed since that version.
        """
        row = await self.get(id, lock=True)
        if version is not None:
            self.check_version(row, version)
        for name, value in values.items():
            setattr(row, name, value)
        await self.session.flush()
        return row

    def check_version(self, row: M, version: int) -> None:
        """Whether `version` is that of a row that is held by `lock=True`. Raises Conflict that says what has changed since,
        and InvalidInput for a version that there never was."""
        if not isinstance(row, Versioned):
            raise TypeError(f"{self.model.__name__} has no versions; make it Versioned")
        check_version(row, version, self.caller)

    async def remove(self, row: M) -> None:
        """Delete a row; of a `SoftDeleted` table until it is restored or purged."""
        if isinstance(row, SoftDeleted):
            row.deleted_at = now()
        else:
            await self.session.delete(row)
        await self.session.flush()

    async def restore(self, id: UUID) -> M:
        """Take back that a row of a `SoftDeleted` table was deleted. Raises NotFound, and Conflict where another row has
        taken its place."""
        row = await self._find_one(self.deleted().where(col(self.model.id) == id), lock=True)
        if row is None:
            raise NotFound(f"There is no deleted {self._noun} {id}; list what is deleted to see what can be restored")
        try:
            async with self.session.begin_nested():
                row.deleted_at = None
                await self.session.flush()
        except IntegrityError:
            raise Conflict(
                f"Another {self._noun} has taken the place of {id}; delete or rename that one first"
            ) from None
        return row


def cursor_id(cursor: str) -> UUID:
    """The id in a cursor. Raises InvalidInput for anything that did not come from `next_cursor`."""
    try:
        return UUID(cursor)
    except ValueError:
        raise InvalidInput("cursor: not one of ours; pass next_cursor of the page before, or leave it out") from None
