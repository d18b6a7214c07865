"""The tasks of a process's callers."""

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text

from agent_server.audit import Surface
from agent_server.caller import Caller
from agent_server.changes import Changes
from agent_server.db import Database, now, storable
from agent_server.errors import InvalidInput, NotFound
from agent_server.questions import Need, Reply
from agent_server.repository import Page
from agent_server.settings import Settings
from agent_server.tasks.models import McpTask
from agent_server.tasks.runner import TaskRunner, subject_of
from agent_server.tasks.store import TaskRepository
from agent_server.turns.sender import sender_json

POLL_SECONDS = 2.0
"""The longest that a hint which was lost holds up whoever waits for a task."""
STOPPING_SECONDS = 0.2
LONGEST_KEY = 200
PAGE = 50


@dataclass(frozen=True)
class Call:
    """A call that is to become a task. `can` is what its client can be asked; one that is not `listed` is known by its
    `client_key` alone. `keep` is how long its client wants it kept. `surface`, `conversation_id` and `collections` are as
    `calls.call_tool` has them."""

    tool: str
    scope: str
    arguments: Mapping[str, Any]
    can: frozenset[Need] = frozenset()
    listed: bool = True
    client_key: str | None = None
    keep: timedelta | None = None
    surface: Surface = "mcp"
    conversation_id: UUID | None = None
    collections: Sequence[str] | None = None


@dataclass(frozen=True)
class Tasks:
    """Begins tasks and finds them again, each for its own caller alone."""

    database: Database
    settings: Settings
    changes: Changes
    runner: TaskRunner

    async def begin(self, caller: Caller, call: Call) -> McpTask:
        """Store a call and have it made, here or by another replica. A call with a key that was sent before is the task of
        then.

        Raises InvalidInput, TooMany, and Unauthorized for a caller whose credential has ended.
        """
        row = create_task(self.settings, caller, call)
        row.replica, row.attempts = self.runner.replica, 1
        async with self.database.transaction(caller.id, scopes=caller.scopes) as session:
            kept, is_new = await TaskRepository(session, caller).begin(row, most_open=self.settings.tasks_per_user)
        if is_new:
            self.runner.run(kept)
        return kept

    async def get(self, caller: Caller, id: UUID) -> McpTask:
        """Raises NotFound."""
        async with self.database.transaction(caller.id) as session:
            return await TaskRepository(session, caller).get(id)

    async def get_job(self, caller: Caller, id: UUID) -> McpTask:
        """The task as its caller knows it: as a job. Raises NotFound."""
        row = await self.get(caller, id)
        # As for its tool: another key of the caller's may lack the scope. A call that a client sends again is no job.
        if not row.listed or not caller.may(row.scope):
            raise NotFound(f"There is no job {id}; it is another caller's, or its time is over")
        return row

    async def page(
        self, caller: Caller, cursor: str | None, *, limit: int = PAGE, conversation_id: UUID | None = None
    ) -> Page[McpTask]:
        """The caller's tasks, newest first, of one conversation or all. Raises InvalidInput."""
        async with self.database.transaction(caller.id) as session:
            return await TaskRepository(session, caller).page_listed(limit, cursor, conversation_id)

    async def list_changed(self, caller: Caller) -> Sequence[McpTask]:
        """The caller's tasks that have changed in the last minute."""
        async with self.database.transaction(caller.id) as session:
            statement = TaskRepository(session, caller).visible()
            # by the clock of the database, which wrote the times
            lately = text("updated_at > clock_timestamp() - interval '1 minute'")
            found = await session.execute(statement.where(McpTask.listed, lately))
            return found.scalars().all()

    async def reply(self, caller: Caller, id: UUID, replies: Mapping[str, Reply]) -> McpTask:
        """Give answers to questions of a task. With the last one it goes on. Raises NotFound."""
        async with self.database.transaction(caller.id) as session:
            row = await TaskRepository(session, caller).reply(id, replies)
        if row.status == "working":
            self.runner.look_soon()
        self.runner.tell(row)
        return row

    async def cancel(self, caller: Caller, id: UUID) -> McpTask:
        """Raises NotFound, and Conflict for one that has ended."""
        async with self.database.transaction(caller.id) as session:
            row = await TaskRepository(session, caller).cancel(id)
        self.runner.tell(row)
        return row

    async def wait(self, caller: Caller, id: UUID, seconds: float = math.inf) -> McpTask:
        """The task once it has ended or has a question, or as it is after so many seconds. Raises NotFound."""
        ends = time.monotonic() + seconds
        with self.changes.watch() as watch:
            watch.follow([subject_of(id)])
            while (row := await self.get(caller, id)).status == "working" and (left := ends - time.monotonic()) > 0:
                # Whoever waits in a process that is to stop is answered in the time that is left.
                if self.changes.is_closed:
                    await asyncio.sleep(min(left, STOPPING_SECONDS))
                else:
                    await watch.wait(min(left, POLL_SECONDS))
            return row


def create_task(settings: Settings, caller: Caller, call: Call) -> McpTask:
    """The row of a call, which nobody runs yet. Raises InvalidInput."""
    if call.client_key is not None and not 0 < len(call.client_key) <= LONGEST_KEY:
        raise InvalidInput(f"idempotencyKey: is a text of 1 to {LONGEST_KEY} characters")
    longest = timedelta(hours=settings.task_hours)
    created = now()
    return McpTask(
        tool=call.tool,
        scope=call.scope,
        arguments=storable(dict(call.arguments)),
        caller=sender_json(caller),
        can=sorted(call.can),
        client_key=call.client_key,
        listed=call.listed,
        surface=call.surface,
        conversation_id=call.conversation_id,
        collections=None if call.collections is None else list(call.collections),
        created_at=created,
        updated_at=created,
        expires_at=created + (longest if call.keep is None else min(call.keep, longest)),
    )
