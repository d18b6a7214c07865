"""Identifiers, times and the mixins of tables."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar
from uuid import UUID

import uuid_utils.compat
from sqlalchemy import DateTime, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import declared_attr
from sqlmodel import Field, SQLModel

SYSTEM = UUID(int=0)
"""The owner of rows that belong to nobody: shared content and reference data."""


def new_id() -> UUID:
    """A new UUID version 7 (RFC 9562). It begins with the millisecond, which keeps new keys together in an index.

    Never sort by it: two processes may make theirs in one millisecond.
    """
    return uuid_utils.compat.uuid7()


def now() -> datetime:
    return datetime.now(UTC)


# Postgres refuses them, and a refused write would end the turn.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable(value: Any) -> Any:
    """The JSON-ready `value` as Postgres can store it. NUL and half surrogate pairs, which a model may write, become
    U+FFFD."""
    match value:
        case str():
            # Nearly every text of a turn ends here, in a fifth of the time.
            is_plain = value.isascii() and "\x00" not in value
            return value if is_plain else _UNSTORABLE.sub("\ufffd", value)
        case dict():
            return {storable(key): storable(item) for key, item in value.items()}
        case list() | tuple():
            return [storable(item) for item in value]
        case _:
            return value


@dataclass(frozen=True, kw_only=True)
class RowPolicy:
    """Who may reach the rows of a table (`db.isolation`). A row belongs to whom `column` names.

    The rows of a `shared` table are all the system's, and there for everybody. Holders of `read_scope` and
    `write_scope` reach rows of all owners; `own_read` is what an owner must hold to read back its own. `append_only`:
    nobody changes or removes a row. `soft_deleted` follows from the model (`SoftDeleted`).
    """

    column: str = "owner_id"
    shared: bool = False
    append_only: bool = False
    own_read: str | None = None
    read_scope: str | None = None
    write_scope: str | None = None
    soft_deleted: bool = False


OUT_OF_REACH: Mapping[str, Any] = {"out_of_reach": True}
"""The `info` of a table that transactions neither read nor write; functions of the database do (migrations)."""

DERIVED: Mapping[str, Any] = {"derived": True}
"""The `info` of a table whose rows are made of an owner's other rows. An export leaves them out."""


class Owned(SQLModel):
    """A row that belongs to one caller. The repository sets `owner_id`; nobody passes it."""

    row_policy: ClassVar[RowPolicy] = RowPolicy()

    # The owner is the first part of every key, so that tables can be spread over servers by it.
    owner_id: UUID = Field(default=None, primary_key=True)
    id: UUID = Field(default_factory=new_id, primary_key=True)


OWN_DATA = "own_data:all"
"""What a transaction holds that moves, exports or erases all that a caller owns; no caller is given it by name."""


class Submitted(Owned):
    """A row that a caller hands in and does not get to see again: for those who hold `row_policy.read_scope`.

    Declare `row_policy = submission_policy(to="leads:read")`, and add rows without reading them back.
    """


def submission_policy(*, to: str) -> RowPolicy:
    """The policy of a `Submitted` table whose rows are for holders of the scope `to`."""
    return RowPolicy(own_read=OWN_DATA, read_scope=to)


class Supervised(Owned):
    """A row of one caller's that staff reach, too: an owner its own rows, holders of a scope those of all owners.

    Declare `row_policy = supervision_policy(read="orders:all", write="orders:edit")`. The repository and the database
    both keep to it.
    """

    # Staff find a row and read pages by the id alone, for which the key, with the owner first, is no use.
    id: UUID = Field(default_factory=new_id, primary_key=True, index=True)


def supervision_policy(*, read: str, write: str | None = None) -> RowPolicy:
    """The policy of a `Supervised` table. Holders of `read` see all rows; those who hold `write` as well add, change and
    remove them. Without `write` only the owner does."""
    return RowPolicy(read_scope=read, write_scope=write)


class Shared(SQLModel):
    """A row of reference data that every caller may read and no caller owns."""

    row_policy: ClassVar[RowPolicy] = RowPolicy(shared=True)

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


class Audited(Timestamps):
    """Who added the row and who changed it last, and when (UTC). The repository sets all four."""

    created_by: UUID = Field(default=None)
    updated_by: UUID = Field(default=None)


class Versioned(SQLModel):
    """A row that each change makes one version newer. `changes` are the latest of them, oldest first (`records`)."""

    # With the version in the condition of each update, of two writers who have not locked the row one fails.
    @declared_attr.directive
    def __mapper_args__(cls) -> Mapping[str, Any]:
        return {"version_id_col": cls.__dict__["version"], "version_id_generator": False}

    version: int = Field(default=1, sa_column_kwargs={"server_default": text("1")})
    changes: list[dict[str, Any]] = Field(
        default_factory=list, sa_type=JSONB, sa_column_kwargs={"server_default": text("'[]'")}
    )


class SoftDeleted(SQLModel):
    """A row that is deleted by a mark, from when on it is not there for repositories. It can be restored until it is
    purged. What is unique among rows has to be so among those without a `deleted_at` only."""

    deleted_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))


PURGE = "deleted:purge"
"""What a transaction holds that looks for rows whose time to be restored is over; no caller is given it by name."""
