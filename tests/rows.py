"""A row of any table, made up from its columns."""

from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

from pgvector import SparseVector
from pgvector.sqlalchemy import HALFVEC, SPARSEVEC
from sqlalchemy import ARRAY, JSON, Boolean, Column, Date, DateTime, Float, Integer, LargeBinary, Table, Uuid, insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import SQLModel

from agent_server.db import new_id
from agent_server.db.isolation import row_policy_of


def owned_tables() -> list[Table]:
    """The tables whose rows belong to callers, parents first."""
    tables = ((table, row_policy_of(table)) for table in SQLModel.metadata.sorted_tables)
    return [table for table, policy in tables if policy is not None and not policy.shared]


async def insert_row_of_everything(session: AsyncSession, owner: UUID, text: str) -> None:
    """A row in every owned table, of `owner`, with `text` wherever there is room for it."""
    keys: dict[Column[Any], Any] = {}
    for table in owned_tables():
        policy = row_policy_of(table)
        assert policy is not None
        row = {column.name: _value(column, text, keys) for column in table.columns}
        row[policy.column] = owner
        await session.execute(insert(table), row)
        keys.update({column: row[column.name] for column in table.columns})


def _value(column: Column[Any], text: str, keys: dict[Column[Any], Any]) -> Any:
    for key in column.foreign_keys:
        return keys[key.column]
    match column.type:
        case Uuid():
            return new_id()
        case DateTime():
            return datetime.now(UTC)
        case Date():
            return date(2026, 1, 1)
        case Boolean():
            return False
        case Integer():
            return 1
        case Float():
            return 1.0
        case LargeBinary():
            return text.encode() + new_id().bytes
        case JSON():  # JSONB is one
            return {"said": text}
        case ARRAY():
            return [text]
        case HALFVEC():
            return [1.0]
        case SPARSEVEC():
            return SparseVector({0: 1.0}, column.type.dim or 1)
        case _:
            return f"{text} {new_id()}"
