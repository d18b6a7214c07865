"""What is read and written of tasks: by their callers, and by whoever runs them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlmodel import col, or_, select

from agent_server.calls.ledger import CallOutcome
from agent_server.db import Database, Executor, now, storable
from agent_server.db.sweep import BATCH
from agent_server.errors import Conflict, InvalidInput, NotFound, TooMany
from agent_server.heartbeat import DEAD_AFTER
from agent_server.identity.credentials import keep_credential
from agent_server.questions import Inquiry, Reply
from agent_server.repository import Page, Repository
from agent_server.tasks.models import ENDED, McpTask

MOST_KEPT = 1_000
"""Tasks of a caller that are kept. For more, those that ended first make room."""

# Of two that begin at once each must see the other's.
_LOCK_OWNER = text("select pg_advisory_xact_lock(hashtextextended('tasks of ' || :owner, 0))")
_COUNT = text("""
    select count(*) filter (where status in ('working', 'input_required')), count(*)
    from mcp_task where owner_id = :owner_id""")
_MAKE_ROOM = text("""
    delete from mcp_task where owner_id = :owner_id and id in (
        select id from mcp_task where owner_id = :owner_id and status not in ('working', 'input_required')
        order by created_at limit :many)""")
_CANCEL = text("""
    update mcp_task set status = 'cancelled', message = 'The task was cancelled', replica = null, updated_at = clock_timestamp()
    where owner_id = :owner_id and id = :id and status in ('working', 'input_required') returning 1""")

# By the clock and not by the transaction, which may have begun long before, with the call.
_MINE = "owner_id = :owner_id and id = :id and epoch = :epoch"
_CLAIM = text(f"""
    update mcp_task set replica = :me, epoch = epoch + 1, attempts = attempts + 1
    where {_MINE} and status = 'working' returning *""")  # noqa: S608  # SQL of our own
# What was let go in good order is no attempt that failed.
_RELEASE = text(f"""
    update mcp_task set replica = null, attempts = attempts - cast(:in_order as int)
    where {_MINE} and status = 'working' returning 1""")  # noqa: S608  # SQL of our own
_START = text(f"update mcp_task set started = true where {_MINE} and status = 'working' returning 1")  # noqa: S608  # SQL of our own
# A task that was cancelled stays so, but what happened outside is on record.
_FINISH = text(f"""
    update mcp_task set replica = null, updated_at = clock_timestamp(), inquiries = null,
        status = case when status = 'working' then cast(:status as text) else status end,
        outcome = cast(:outcome as jsonb), result = cast(:result as jsonb), error = cast(:error as jsonb)
    where {_MINE} and (status = 'working' or :has_happened) returning 1""")  # noqa: S608  # SQL of our own
_ASK = text(f"""
    update mcp_task set status = 'input_required', replica = null, started = false, updated_at = clock_timestamp(),
        given = cast(:given as jsonb), inquiries = cast(:inquiries as jsonb), replies = '{{}}', asked = :asked
    where {_MINE} and status = 'working' returning 1""")  # noqa: S608  # SQL of our own
_SAY = text(f"""
    update mcp_task set message = coalesce(:message, message), done = :done, total = :total, updated_at = clock_timestamp()
    where {_MINE} and status = 'working' returning 1""")  # noqa: S608  # SQL of our own
_STATUS = text("select status, epoch from mcp_task where owner_id = :owner_id and id = :id")
_FIND = text("select * from find_tasks(:what, :replica, :seconds, :batch)")
_FORGET = text("""
    delete from mcp_task t using unnest(cast(:owners as uuid[]), cast(:ids as uuid[])) w(owner_id, id)
    where t.owner_id = w.owner_id and t.id = w.id and t.status <> 'working' and t.expires_at < now()""")


class Found(NamedTuple):
    """A task that nobody runs, or whose time is over. With False for `certain` only a lock says that nobody runs it."""

    owner_id: UUID
    id: UUID
    epoch: int
    certain: bool


class TaskRepository(Repository[McpTask]):
    """A caller's own tasks."""

    model = McpTask

    async def get(self, id: UUID, *, lock: bool = False) -> McpTask:
        row = await self.find(id, lock=lock)
        if row is None or (row.expires_at < now() and row.status != "working"):
            raise NotFound(f"There is no job {id}; it is another caller's, or its time is over")
        return row

    async def begin(self, row: McpTask, *, most_open: int) -> tuple[McpTask, bool]:
        """Store a task, or find the one that was sent with the same key. Returns whether it is new.

        Raises InvalidInput where the key stands for another call, and TooMany where `most_open` are open.
        """
        await keep_credential(self.session, self.caller)
        await self.session.execute(_LOCK_OWNER, {"owner": str(self.owner)})
        if row.client_key is not None:
            same = self.visible().where(McpTask.client_key == row.client_key)
            if (before := (await self.session.execute(same)).scalar_one_or_none()) is not None:
                if (before.tool, before.arguments) != (row.tool, row.arguments):
                    raise InvalidInput(
                        "idempotencyKey: was sent with another call; send a new key, or the same tool and arguments"
                    )
                return before, False
        is_open, kept = (await self.session.execute(_COUNT, {"owner_id": self.owner})).one()
        if is_open >= most_open:
            raise TooMany(f"{is_open} of your jobs are open, the most there may be; wait for one, or cancel it")
        if kept >= MOST_KEPT:
            await self.session.execute(_MAKE_ROOM, {"owner_id": self.owner, "many": kept - MOST_KEPT + 1})
        return await self.add(row), True

    async def page_listed(
        self, limit: int, cursor: str | None = None, conversation_id: UUID | None = None
    ) -> Page[McpTask]:
        """The tasks that this caller may see, newest first, of one conversation or all. Raises InvalidInput."""
        statement = self.visible().where(McpTask.listed)
        if not self.caller.may("*"):  # as for their tools: another key of the caller's may lack the scope of one
            held = self.caller.scopes
            whole = [col(McpTask.scope).startswith(each[:-1], autoescape=True) for each in held if each.endswith(":*")]
            statement = statement.where(or_(col(McpTask.scope).in_(held), *whole))
        if conversation_id is not None:
            statement = statement.where(McpTask.conversation_id == conversation_id)
        return await self.page(
            limit, cursor, statement.where(or_(col(McpTask.expires_at) > now(), McpTask.status == "working"))
        )

    async def cancel(self, id: UUID) -> McpTask:
        """Raises NotFound, and Conflict for one that has ended."""
        cancelled = (await self.session.execute(_CANCEL, {"owner_id": self.owner, "id": id})).first()
        row = await self.get(id)
        if cancelled is None:
            raise Conflict(f"It has ended already, as {row.status}, and cannot be cancelled")
        return row

    async def reply(self, id: UUID, replies: Mapping[str, Reply]) -> McpTask:
        """Keep answers to questions that wait; others are passed over. With the last one the task works again, and
        nobody runs it yet. Raises NotFound."""
        row = await self.get(id, lock=True)
        if row.status != "input_required" or row.inquiries is None:
            return row
        asked, waiting = order_inquiries(row), row.inquiries
        known = {name: asdict(reply) for name, reply in replies.items() if name in waiting}
        row.replies = storable({**known, **(row.replies or {})})
        if row.replies.keys() >= asked.keys():
            row.given = [*row.given, *([waiting[name], row.replies[name]] for name in asked)]
            row.inquiries, row.replies, row.status, row.updated_at = None, None, "working", now()
        await self.session.flush()
        return row


def order_inquiries(row: McpTask) -> dict[str, Inquiry]:
    """The questions that wait by their names, in the order in which they were put."""
    # The database keeps the keys of an object in an order of its own.
    waiting = row.inquiries or {}
    return {name: Inquiry(**waiting[name]) for name in sorted(waiting, key=lambda name: int(name.rpartition("-")[2]))}


def find_unanswered(row: McpTask) -> dict[str, Inquiry]:
    """The questions of a task that wait for their answers."""
    return {name: asked for name, asked in order_inquiries(row).items() if name not in (row.replies or {})}


def given_of(row: McpTask) -> Sequence[tuple[Inquiry, Reply]]:
    """The answers that a task has, with their questions."""
    return [(Inquiry(**asked), Reply(**said)) for asked, said in row.given]


def has_ended(row: McpTask) -> bool:
    return row.status in ENDED


async def claim(database: Database, found: Found, replica: UUID) -> McpTask | None:
    """Make a task this replica's. None where another one was first."""
    async with database.transaction(found.owner_id) as session:
        values = {**found._asdict(), "me": replica}
        return (await session.execute(select(McpTask).from_statement(_CLAIM), values)).scalar_one_or_none()


async def find_free(database: Database, replica: UUID, batch: int) -> Sequence[Found]:
    """Tasks that nobody runs and those of this replica's, the oldest first."""
    values = {"what": "free", "replica": replica, "seconds": DEAD_AFTER, "batch": batch}
    return [Found(*row) for row in await database.single(_FIND, values)]


async def prune_tasks(database: Database) -> int:
    """Remove tasks whose time is over. Returns how many there were."""
    removed, many = 0, BATCH
    while many == BATCH:
        over = {"what": "over", "replica": None, "seconds": 0, "batch": BATCH}
        found = [Found(*row) for row in await database.single(_FIND, over)]
        many = len(found)
        if found:
            async with database.transaction(*{row.owner_id for row in found}) as session:
                values = {"owners": [row.owner_id for row in found], "ids": [row.id for row in found]}
                await session.execute(_FORGET, values)
        removed += many
    return removed


class Lease:
    """The writes of one attempt. Each returns whether the task is still this attempt's."""

    def __init__(self, database: Database, row: McpTask) -> None:
        self._database = database
        self.owner_id, self.id, self._key = row.owner_id, row.id, {"owner_id": row.owner_id, "id": row.id}
        self._fence = {**self._key, "epoch": row.epoch}
        self._asked = row.asked

    async def start(self) -> bool:
        return await self._write(_START)

    async def release(self, *, in_order: bool) -> bool:
        """Leave the task to whoever has room for it."""
        return await self._write(_RELEASE, in_order=in_order)

    async def say(self, message: str | None, done: float | None = None, total: float | None = None) -> bool:
        """Keep how far the call is. Without a message the one before stays."""
        return await self._write(_SAY, message=storable(message), done=done, total=total)

    async def ask(self, inquiries: Sequence[Inquiry], given: Sequence[tuple[Inquiry, Reply]]) -> bool:
        """Have the caller asked."""
        first = self._asked + 1
        return await self._write(
            _ASK,
            given=_to_json([[asdict(asked), asdict(reply)] for asked, reply in given]),
            inquiries=_to_json({f"input-{first + n}": asdict(asked) for n, asked in enumerate(inquiries)}),
            asked=self._asked + len(inquiries),
        )

    async def fail(self, code: str, message: str) -> bool:
        """End the task with what is no outcome of its call."""
        values = {"outcome": None, "result": None, "error": _to_json({"code": code, "message": message})}
        return await self._write(_FINISH, status="failed", has_happened=False, **values)

    async def complete(self, result: Mapping[str, Any]) -> bool:
        """End the task with what the protocol answers."""
        values = {"outcome": None, "result": _to_json(result), "error": None}
        return await self._write(_FINISH, status="completed", has_happened=False, **values)

    async def finish(self, session: Executor, outcome: CallOutcome, *, has_happened: bool) -> bool:
        """End the task with the outcome of its call in the transaction of `session`. What `has_happened` outside is kept
        also of a task that was cancelled."""
        values = {"outcome": _to_json(asdict(outcome)), "result": None, "error": None, "has_happened": has_happened}
        return (await session.execute(_FINISH, {**self._fence, "status": "completed", **values})).first() is not None

    async def is_mine(self) -> bool:
        """Whether this attempt may go on."""
        return await self._read_status() == ("working", self._fence["epoch"])

    async def is_open(self) -> bool:
        """Whether the task works, in whosoever's hands."""
        return (await self._read_status())[0] == "working"

    async def _read_status(self) -> tuple[str, int]:
        async with self._database.transaction(self.owner_id) as session:
            found = (await session.execute(_STATUS, self._key)).first()
        return ("cancelled", 0) if found is None else (found.status, found.epoch)

    async def _write(self, statement: Any, **values: Any) -> bool:
        async with self._database.transaction(self.owner_id) as session:
            return (await session.execute(statement, {**self._fence, **values})).first() is not None


def _to_json(value: Any) -> str:
    return json.dumps(storable(value))
