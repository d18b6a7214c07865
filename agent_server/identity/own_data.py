"""All that a caller owns in any table, to be moved to another owner, exported or erased.

The tables are those that the models declare, the workspace's among them: one that is new is in here by itself. The
transaction must hold `OWN_DATA`, without which rows that were handed in are not there.
"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Column,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
    column,
    delete,
    exists,
    insert,
    literal,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy import table as bare_table
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import SQLModel

from agent_server.db import DERIVED, OWN_DATA, SYSTEM, Database, storable
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
_COLUMNS = text("""
    select attname from pg_attribute
    where attrelid = cast(quote_ident(:table) as regclass) and attnum > 0 and not attisdropped and attgenerated = ''""")
_UNFINISHED = text("select 1 from turn where owner_id = :guest and status in ('queued', 'running') limit 1")
_SECRET_COLUMNS = frozenset({"password_hash"})
# A credential of the guest's must not become the user's: it would have been given to somebody else.
_CREDENTIALS = frozenset({ApiKey.__tablename__, Login.__tablename__, RefreshToken.__tablename__})
_NOT_MOVED = _CREDENTIALS | {User.__tablename__, Guest.__tablename__, Profile.__tablename__}


def _tables_of_owners() -> Iterator[tuple[Table, Column[UUID], bool]]:
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
    moves: list[_Move] = []
    for table, owner, changes in _tables_of_owners():
        if table.name in _CREDENTIALS:
            await session.execute(delete(table).where(owner == guest))
        elif changes and table.name not in _NOT_MOVED:
            moves.append(_Move(table, owner, guest, user))
    for move in moves:
        try:
            await move.copy(session)
        except IntegrityError:
            raise Conflict(
                f"A {move.table.name} of the guest's is one that you have already; remove yours first"
            ) from None
    for move in reversed(moves):
        await move.remove_copied(session)


class _Move:
    """The rows of a table that change hands from `old` to `new`.

    The owner of a row stays as it is where a database may be spread over servers by it: so a row is stored once more for
    the new owner, and removed. Rows that others refer to are stored before them, and removed after them.
    """

    def __init__(self, table: Table, owner: Column[UUID], old: UUID, new: UUID) -> None:
        self.table, self._owner, self._old, self._new = table, owner, old, new

    async def find_keys(self, session: AsyncSession) -> Sequence[Mapping[str, Any]]:
        """The keys of the old owner's rows."""
        rows = await session.execute(select(*self.table.primary_key.columns).where(self._owner == self._old))
        return [dict(row._mapping) for row in rows]

    async def copy(self, session: AsyncSession, key: Mapping[str, Any] | None = None) -> None:
        """Store the rows for the new owner as well, or the one with a key, and lock them. Raises IntegrityError."""
        only = {self._owner.name: self._old, **(key or {})}
        if not _is_keyed_by(self.table, self._owner):
            # There cannot be two rows of one key, not even for a moment.
            change = update(self.table).where(*(self.table.c[name] == value for name, value in only.items()))
            kept = {column: column for column in self.table.columns if column.onupdate is not None}
            await session.execute(change.values({**kept, self._owner: self._new}))
            return
        # As the database has them: a version that runs beside this one may have added some.
        names = (await session.execute(_COLUMNS, {"table": self.table.name})).scalars().all()
        rows = bare_table(self.table.name, *map(column, names))
        values = [literal(self._new) if name == self._owner.name else rows.c[name] for name in names]
        chosen = select(*values).select_from(rows).where(*(rows.c[name] == value for name, value in only.items()))
        await session.execute(insert(rows).from_select(list(names), chosen.with_for_update()))

    async def remove_copied(self, session: AsyncSession) -> None:
        """Remove the old owner's rows that the new one has, and no others: somebody may have stored one meanwhile."""
        keys = [key for key in self.table.primary_key.columns if key.name != self._owner.name]
        new = self.table.alias()
        twin = exists().where(new.c[self._owner.name] == self._new, *(new.c[key.name] == key for key in keys))
        await session.execute(delete(self.table).where(self._owner == self._old, twin))


def _is_keyed_by(table: Table, owner: Column[UUID]) -> bool:
    """Whether the owner is a part of all that must be there once only."""
    keys = [c.columns for c in table.constraints if isinstance(c, PrimaryKeyConstraint | UniqueConstraint)]
    keys += [index.columns for index in table.indexes if index.unique]
    return all(owner.name in key for key in keys)


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
    moves = [
        _Move(table, column, owner, SYSTEM)
        for table, column, _ in _tables_of_owners()
        if (policy := row_policy_of(table)) is not None and policy.own_read is not None
        for owner in owners
    ]
    for move in moves:
        if not await _give(session, move):
            for key in await move.find_keys(session):
                await _give(session, move, key)
    for move in reversed(moves):
        await move.remove_copied(session)


async def _give(session: AsyncSession, move: _Move, key: Mapping[str, Any] | None = None) -> bool:
    """Store rows for the system as well. Returns whether that was possible."""
    try:
        async with session.begin_nested():
            await move.copy(session, key)
    except IntegrityError:
        return False
    return True


async def export_rows(database: Database, owner_id: UUID) -> AsyncIterator[tuple[str, Sequence[Mapping[str, Any]]]]:
    """Read all that a caller owns, a batch at a time. Each table is named at least once, but for those that are made of
    others."""
    for table, owner, _ in _tables_of_owners():
        if DERIVED.items() <= table.info.items():
            continue
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
