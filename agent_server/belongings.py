"""All that a caller owns: exported, erased, or handed to another caller.

Which tables those are follows from the models, those of tools/ included. The transaction is `belongings(...)`: it also
reaches what its owner handed in for staff. The audit is exported and stays: it has no names, and when its subject is
gone the id in it stands for nobody.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any
from uuid import UUID

from sqlalchemy import Column, LargeBinary, Table, delete, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import SQLModel, col

from agent_server.db import OWN_DATA, Database
from agent_server.db.isolation import access_of
from agent_server.errors import Conflict
from agent_server.identity.models import Guest, Profile, User
from agent_server.turns.models import Steer, Turn

BATCH = 500
SECRET = frozenset({"password_hash"})
"""Columns that no export has, beside binary ones, which are hashes."""


def belongings(database: Database, *owners: UUID) -> AbstractAsyncContextManager[AsyncSession]:
    """A transaction that reaches all that these callers own."""
    return database.transaction(*owners, scopes=[OWN_DATA])


def _owned() -> Sequence[tuple[Table, Column[Any], bool]]:
    """Each table of owned rows, parents first, with the column that names the owner, and whether rows may leave it."""
    found = []
    for table in SQLModel.metadata.sorted_tables:
        access = access_of(table)
        if access is not None and not access.shared:
            found.append((table, table.c[access.column], not access.append_only))
    return found


async def export(session: AsyncSession, owner: UUID) -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """Every row that `owner` has, in pieces of one table each, without secrets."""
    for table, column, _ in _owned():
        columns = [c for c in table.columns if not isinstance(c.type, LargeBinary) and c.name not in SECRET]
        statement = select(*columns).where(column == owner).order_by(*table.primary_key)
        rows: list[dict[str, Any]] = []
        async for row in await session.stream(statement.execution_options(yield_per=BATCH)):
            rows.append(dict(row._mapping))
            if len(rows) == BATCH:
                yield table.name, rows
                rows = []
        yield table.name, rows


async def erase(session: AsyncSession, owner: UUID) -> int:
    """Remove every row that `owner` has but the audit's; returns how many there were.

    No turn of theirs may be running: its end could not be written any more, which only costs a log line.
    """
    removed = 0
    for table, column, leaves in reversed(_owned()):
        if leaves:
            gone = await session.execute(delete(table).where(column == owner).returning(column))
            removed += len(gone.all())
    return removed


async def hand_over(session: AsyncSession, guest: UUID, user: UUID) -> None:
    """Make all that a guest has a user's: conversations with what hangs on them, leads, rows of tools/, and the profile,
    in which the user's own word counts. The guest is gone after that.

    Raises Conflict while an answer to the guest is being written, and where a row of the guest's and one of the user's
    cannot both be (a unique name, say).
    """
    open_turns = select(col(Turn.id)).where(col(Turn.owner_id) == guest, col(Turn.status).in_(("queued", "running")))
    if (await session.execute(open_turns.limit(1).with_for_update())).first() is not None:
        raise Conflict("The guest's last message is still being answered; wait for the answer, then try again")
    for model in (Turn, Steer):  # the keys of one caller's messages are unique, and the two may have used the same
        await session.execute(update(model).where(col(model.owner_id) == guest).values(client_key=None))
    body = (await session.execute(select(col(Profile.body)).where(col(Profile.owner_id) == guest))).scalar_one_or_none()
    if body:
        given = insert(Profile).values(owner_id=user, body=body)
        merged = given.excluded.body.op("||")(col(Profile.body))
        await session.execute(given.on_conflict_do_update(index_elements=["owner_id"], set_={"body": merged}))
    await session.execute(delete(Profile).where(col(Profile.owner_id) == guest))
    await session.execute(delete(Guest).where(col(Guest.id) == guest))
    own = {model.__tablename__ for model in (Guest, Profile, User)}
    try:
        for table, column, leaves in _owned():
            if leaves and table.name not in own:
                await session.execute(update(table).where(column == guest).values({column.name: user}))
    except IntegrityError as error:
        raise Conflict("What the guest has and what you have cannot both be kept: two rows have one name") from error
