"""Identifiers, times and the mixins of tables."""

import re
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import uuid_utils.compat
from sqlalchemy import DateTime
from sqlmodel import Field, SQLModel

SYSTEM = UUID(int=0)
"""The owner of rows that belong to nobody: shared content and reference data."""


def new_id() -> UUID:
    """A UUID version 7 (RFC 9562): ordered by the millisecond it was made in, for locality of keys, never for order."""
    return uuid_utils.compat.uuid7()


def now() -> datetime:
    return datetime.now(UTC)


_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable(value: Any) -> Any:
    """`value` (JSON-ready) as Postgres can store it: NUL and half surrogate pairs, which a model may write, become
    U+FFFD."""
    match value:
        case str():
            return _UNSTORABLE.sub("\ufffd", value)
        case dict():
            return {storable(key): storable(item) for key, item in value.items()}
        case list() | tuple():
            return [storable(item) for item in value]
        case _:
            return value


class Owned(SQLModel):
    """A row that belongs to one caller. The repository sets `owner_id`; nobody passes it."""

    owner_id: UUID = Field(default=None, primary_key=True)
    id: UUID = Field(default_factory=new_id, primary_key=True)


class Shared(SQLModel):
    """A row of reference data that every caller may read and no caller owns."""

    owner_id: UUID = Field(default=SYSTEM, primary_key=True)
    id: UUID = Field(default_factory=new_id, primary_key=True)


class Timestamps(SQLModel):
    """When the row was made and last changed (UTC)."""

    created_at: datetime = Field(default_factory=now, sa_type=DateTime(timezone=True))
    updated_at: datetime = Field(
        default_factory=now,
        sa_type=DateTime(timezone=True),
        sa_column_kwargs={"onupdate": now},
    )
