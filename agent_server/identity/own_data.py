"""All that a caller owns in any table, to be moved to another owner, exported or erased.

The tables are those that the models declare, the workspace's among them: one that is new is in here by itself. The
transaction must hold `OWN_DATA`, without which rows that were handed in are not there.
"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, LargeBinary, Table, delete, select, text, tuple_, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import SQLModel

from agent_server.db import OWN_DATA, SYSTEM, Database, storable
from agent_server.db.isolation import row_policy_of
from agent_server.errors import Conflict
from agent_server.identity.models import ApiKey, Guest, Login, Profile, RefreshToken, User
from agent_server.identity.profiles import fits

BATCH = 200
"""Rows that are read at once: the client of an export may be slow, and no transaction waits for it."""

# Locked before it is looked whether a turn is unfinished: whoever stores a message locks its conversation first.
_LOCK_CONVERSATIONS = text("select id from conversation where owner_id = :guest for update")
_LOCK_CREDENTIALS = (
    text("select id from account where id = any(:owners) order by id for update"),
    text("select id from guest where id = any(:owners) order by id for update"),
    text("select id from api_key where owner_id = any(:owners) order by id for update"),
)
_LOCK_TURNS = text("select id from turn where owner_id = any(:owners) order by id for update")
_LOCK_ALL_CONVERSATIONS = text("select id from conversation where owner_id = any(:owners) order by id for update")
_UNFINISHED = text("select 1 from turn where owner_id = :guest and status in ('queued', 'running') limit 1")
_SECRET_COLUMNS = frozenset({"password_hash"})
# A credential of the guest's must not become the user's: it would have been given to somebody else.
_CREDENTIALS = frozenset({ApiKey.__tablename__, Login.__tablename__, RefreshToken.__tablename__})
_NOT_MOVED = _CREDENTIALS | {User.__tablename__, Guest.__tablename__, Profile.__tablename__}


def _tables_of_owners() -> Iterator[tuple[Table, ColumnElement[UUID], bool]]:
    """Every table whose rows are callers', parents first. Beside each: the column of the owner, and whether rows are
    ever removed."""
    for table in SQLModel.metadata.sorted_tables:
        policy = row_policy_of(table)
        if policy is not None and not policy.shared:
            yield table, table.c[policy.column], not policy.append_only


async def move_rows(session: AsyncSession, guest: UUID, user: UUID) -> None:
    """Make what is a guest's a user's. The guest itself and its audit stay, its credentials end, and of two profiles
    the user's wins.

    Raises Conflict while the guest is being answered, and where a row of the user's is in the way.
    """
    await session.execute(_LOCK_CONVERSATIONS, {"guest": guest})
    if (await session.execute(_UNFINISHED, {"guest": guest})).first() is not None:
        raise Conflict("The guest is still being answered; wait for the answer, or stop it, and try again")
    for table, owner, _ in _tables_of_owners():
        # An idempotency key is the guest's word, and the user may have said the same.
        if (key := table.columns.get("client_key")) is not None:
            await session.execute(update(table).where(owner == guest, key.is_not(None)).values({key: None}))
    await _merge_profiles(session, guest, user)
    for table, owner, changes in _tables_of_owners():
        if table.name in _CREDENTIALS:
            await session.execute(delete(table).where(owner == guest))
        if not changes or table.name in _NOT_MOVED:
            continue
        # what the database has follow of itself (what hangs on a conversation) is moved by then, and not found
        try:
            await session.execute(update(table).where(owner == guest).values({**_kept(table), owner: user}))
        except IntegrityError:
            raise Conflict(f"A {table.name} of the guest's is one that you have already; remove yours first") from None


async def _merge_profiles(session: AsyncSession, guest: UUID, user: UUID) -> None:
    theirs = await session.get(Profile, guest)
    if theirs is None:
        return
    mine = await session.get(Profile, user, with_for_update=True)
    merged = {**theirs.body, **(mine.body if mine else {})}
    if mine is None:
        session.add(Profile(owner_id=user, body=merged))
    # Where both are too large together, the user's own stays as it is.
    elif fits(merged):
        mine.body = merged
    await session.delete(theirs)
    await session.flush()


async def erase_rows(session: AsyncSession, *owners: UUID) -> None:
    """Remove all that these callers own and the callers themselves. The audit stays, of ids that stand for nobody."""
    # First, so that whoever stores rows has stored them all by now, or finds no credential (`keep_credential`) or no turn
    # to store them for. A turn before its conversation, as whoever ends a turn takes the two.
    for lock in (*_LOCK_CREDENTIALS, _LOCK_TURNS, _LOCK_ALL_CONVERSATIONS):
        await session.execute(lock, {"owners": list(owners)})
    # Children first, because not every reference need delete with what it refers to (the workspace has tables, too).
    for table, owner, changes in reversed(list(_tables_of_owners())):
        if changes:
            await session.execute(delete(table).where(owner.in_(owners)))


async def hand_over_submissions(session: AsyncSession, *owners: UUID) -> None:
    """Make the system's what these callers handed in for staff (`Submitted`). What cannot be, because it hangs on
    another row of theirs or the system has one like it, stays with them."""
    for table, owner, _ in _tables_of_owners():
        policy = row_policy_of(table)
        if policy is None or policy.own_read is None:
            continue
        keys = list(table.primary_key.columns)
        rows = (await session.execute(select(*keys).where(owner.in_(owners)))).all()
        if not await _give(session, table, owner, owner.in_(owners)):
            for row in rows:
                await _give(session, table, owner, tuple_(*keys) == tuple_(*row))


async def _give(session: AsyncSession, table: Table, owner: ColumnElement[UUID], where: ColumnElement[bool]) -> bool:
    """Make rows the system's, and nothing else of them otherwise. Returns whether that was possible."""
    try:
        async with session.begin_nested():
            await session.execute(update(table).where(where).values({**_kept(table), owner: SYSTEM}))
    except IntegrityError:
        return False
    return True


def _kept(table: Table) -> dict[ColumnElement[Any], ColumnElement[Any]]:
    """The columns that an update would set by itself: to change hands is no change of the content."""
    return {column: column for column in table.columns if column.onupdate is not None}


async def export_rows(database: Database, owner_id: UUID) -> AsyncIterator[tuple[str, Sequence[Mapping[str, Any]]]]:
    """Read all that a caller owns, a batch at a time. Each table is named at least once."""
    for table, owner, _ in _tables_of_owners():
        keys, last = list(table.primary_key.columns), None
        while True:
            statement = select(table).where(owner == owner_id).order_by(*keys).limit(BATCH)
            if last is not None:
                # From the last key on and not by offset, since rows may come and go between two batches.
                statement = statement.where(tuple_(*keys) > tuple_(*last))
            async with database.transaction(owner_id, scopes=(OWN_DATA,)) as session:
                rows = (await session.execute(statement)).all()
            yield table.name, [_fields_to_show(table, row) for row in rows]
            if len(rows) < BATCH:
                break
            last = [rows[-1]._mapping[key] for key in keys]


def _fields_to_show(table: Table, row: Any) -> dict[str, Any]:
    """A row without its secrets."""
    # Bytes are hashes, of tokens and of what was sent: no use to the one whom they are about.
    return {
        column.name: storable(row._mapping[column])
        for column in table.columns
        if not isinstance(column.type, LargeBinary) and column.name not in _SECRET_COLUMNS
    }
