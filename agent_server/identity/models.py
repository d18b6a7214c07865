"""Rows of identity: users, their API keys, guests, profiles."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import DateTime, Index, LargeBinary
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TEXT
from sqlmodel import Field, SQLModel

from agent_server.db import Owned, Timestamps, new_id


class User(Timestamps, table=True):
    """Somebody who owns rows. `name` is how the operator knows them; an e-mail address is a good name."""

    __tablename__ = "account"

    id: UUID = Field(default_factory=new_id, primary_key=True)
    name: str = Field(unique=True)


class ApiKey(Owned, Timestamps, table=True):
    """A key as `ask_<id>.<secret>`; only the SHA-256 of its secret is stored (256 random bits need no slow hash)."""

    __tablename__ = "api_key"
    __table_args__ = (Index("ix_api_key_id", "id", unique=True),)

    name: str
    secret_sha: bytes = Field(sa_type=LargeBinary)
    scopes: list[str] = Field(sa_type=ARRAY(TEXT))
    expires_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))
    revoked_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))


class Guest(Timestamps, table=True):
    """A visitor without an account, until `expires_at`; its token is `asg_<id>.<secret>`."""

    __tablename__ = "guest"

    id: UUID = Field(default_factory=new_id, primary_key=True)
    secret_sha: bytes = Field(sa_type=LargeBinary)
    expires_at: datetime = Field(sa_type=DateTime(timezone=True))


class Profile(SQLModel, table=True):
    """What is known of a caller, as the workspace's tools and the caller fill it in."""

    __tablename__ = "profile"

    owner_id: UUID = Field(primary_key=True)
    body: dict[str, Any] = Field(default_factory=dict, sa_type=JSONB)
