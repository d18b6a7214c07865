"""Tasks, as their owner may see them."""

from uuid import UUID

from sqlalchemy import func, tuple_
from sqlmodel import col

from agent_server import Conflict, InvalidInput, NotFound, Page, Repository
from tools.todo.models import Status, Task

_NAMED = 5
"""Ids of tasks of one title that an error names."""


class TaskRepository(Repository[Task]):
    model = Task

    async def listed(self, status: Status | None, limit: int, cursor: str | None) -> Page[Task]:
        """Open tasks before done ones, each newest first. Raises InvalidInput for a cursor that is not ours."""
        place = tuple_(col(Task.status), col(Task.id))
        statement = self.visible()
        if status is not None:
            statement = statement.where(col(Task.status) == status)
        if cursor is not None:
            statement = statement.where(place < tuple_(*_parse(cursor)))
        statement = statement.order_by(col(Task.status).desc(), col(Task.id).desc()).limit(limit + 1)
        rows = (await self.session.execute(statement)).scalars().all()
        last = rows[limit - 1] if len(rows) > limit else None
        return Page(rows[:limit], f"{last.status}~{last.id}" if last else None)

    async def named(self, task: str, *, lock: bool = False, open_first: bool = False) -> Task:
        """The task with this id or title. With `open_first` a done task of the same title does not make it ambiguous.
        Raises NotFound, and Conflict that names the ids of the tasks it could be."""
        if (id := _id(task)) is not None:
            return await self.get(id, lock=lock)
        titled = self.visible().where(func.lower(col(Task.title)) == func.lower(task))
        # Open ones first; more than are named need not be read.
        titled = titled.order_by(col(Task.status).desc(), col(Task.id)).limit(_NAMED + 1)
        statement = titled.with_for_update() if lock else titled
        found = (await self.session.execute(statement)).scalars().all()
        if open_first:
            found = [row for row in found if row.status == "open"] or found
        if not found:
            raise NotFound(f"There is no task called {task!r}; list_tasks shows which there are")
        if len(found) > 1:
            ids = ", ".join(f"{row.id} ({row.status})" for row in found[:_NAMED])
            many = len(found) if len(found) <= _NAMED else f"More than {_NAMED}"
            raise Conflict(f"{many} tasks are called {task!r}; give the id of one: {ids}")
        return found[0]


def _id(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _parse(cursor: str) -> tuple[str, UUID]:
    status, _, id = cursor.partition("~")
    if (last := _id(id)) is None:
        raise InvalidInput("cursor: not one of ours; pass next_cursor of the page before, or leave it out")
    return status, last
