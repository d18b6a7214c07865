"""Rows of identity."""

from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import DateTime, ForeignKeyConstraint, Index, LargeBinary, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TEXT
from sqlmodel import Field, SQLModel

from agent_server.db import OUT_OF_REACH, Owned, RowPolicy, Timestamps, new_id, now


class User(Timestamps, table=True):
    """Somebody who owns rows. `name` is how the operator knows them.

    One signs in by `email` (in lower case) and password, of which `password_hash` is Argon2id's, or by the token of an
    outside `issuer`, to which it is `subject`. `roles` name the sets of scopes that it holds when it does, beside
    `issuer_roles`, which the issuer has named in tokens of it.
    """

    __tablename__ = "account"
    __table_args__ = (UniqueConstraint("issuer", "subject"),)
    row_policy: ClassVar[RowPolicy] = RowPolicy(column="id", read_scope="users:read", write_scope="users:write")

    id: UUID = Field(default_factory=new_id, primary_key=True)
    name: str = Field(unique=True)
    email: str | None = Field(default=None, unique=True)
    password_hash: str | None = None
    roles: list[str] = Field(
        default_factory=list, sa_type=ARRAY(TEXT), sa_column_kwargs={"server_default": text("'{}'")}
    )
    issuer: str | None = None
    subject: str | None = None
    issuer_roles: list[str] = Field(
        default_factory=list, sa_type=ARRAY(TEXT), sa_column_kwargs={"server_default": text("'{}'")}
    )
    disabled_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))


class ApiKey(Owned, Timestamps, table=True):
    """A key as `ask_<id>.<secret>`. Only the SHA-256 of its secret is stored. `last_used_at` is right to the minute.

    `maker_id` is the key that it was made with: it ends with that. `by_roles` says that it holds no more than the roles
    of its owner's account do at the time.
    """

    __tablename__ = "api_key"
    __table_args__ = (
        # A key is looked up by its id alone: whose it is shows only when it was found.
        Index("ix_api_key_id", "id", unique=True),
        Index("ix_api_key_maker", "owner_id", "maker_id"),
    )
    row_policy: ClassVar[RowPolicy] = RowPolicy(read_scope="users:read", write_scope="users:write")

    name: str
    secret_sha: bytes = Field(sa_type=LargeBinary)
    scopes: list[str] = Field(sa_type=ARRAY(TEXT))
    expires_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))
    revoked_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))
    last_used_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))
    maker_id: UUID | None = None
    by_roles: bool = Field(default=False, sa_column_kwargs={"server_default": text("false")})


class Login(Owned, table=True):
    """A user who signed in on one device. Its access tokens work until it expires or is revoked.

    `device` is a keyed hash of the user and of the address that it signed in from (`limits.device_of`).
    """

    __tablename__ = "login"

    created_at: datetime = Field(default_factory=now, sa_type=DateTime(timezone=True))
    expires_at: datetime = Field(sa_type=DateTime(timezone=True))
    revoked_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))
    device: bytes | None = Field(default=None, sa_type=LargeBinary)


class RefreshToken(SQLModel, table=True):
    """One of the refresh tokens of a login. Each works once, and one that is used again was stolen."""

    __tablename__ = "refresh_token"
    __table_args__ = (
        ForeignKeyConstraint(["owner_id", "login_id"], ["login.owner_id", "login.id"], ondelete="CASCADE"),
    )

    owner_id: UUID = Field(primary_key=True)
    login_id: UUID = Field(primary_key=True)
    secret_sha: bytes = Field(primary_key=True, sa_type=LargeBinary)
    created_at: datetime = Field(default_factory=now, sa_type=DateTime(timezone=True))
    used_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))


class SigningKey(SQLModel, table=True):
    """What the server's own access tokens are signed with. It is made once and the same on every replica.

    The function `signing_secret` of the database is the only way to it.
    """

    __tablename__ = "signing_key"
    __table_args__: ClassVar[Any] = {"info": OUT_OF_REACH}

    # Always 1, so that of several replicas that make the secret at once one succeeds.
    id: int = Field(default=1, primary_key=True, sa_column_kwargs={"autoincrement": False})
    secret: bytes = Field(sa_type=LargeBinary)


class Rate(SQLModel, table=True):
    """A limited caller or address. `free_at` is when it will have paid for all it has done, GCRA's theoretical arrival
    time."""

    __tablename__ = "rate"
    # Nearly every request writes here, and what a crash of the database loses only lets everybody start anew.
    __table_args__: ClassVar[Any] = {"prefixes": ["UNLOGGED"]}

    key: str = Field(primary_key=True)
    free_at: datetime = Field(sa_type=DateTime(timezone=True))


class Guest(Timestamps, table=True):
    """A visitor without an account until `expires_at`. Its token is `asg_<id>.<secret>`."""

    __tablename__ = "guest"
    row_policy: ClassVar[RowPolicy] = RowPolicy(column="id")

    id: UUID = Field(default_factory=new_id, primary_key=True)
    secret_sha: bytes = Field(sa_type=LargeBinary)
    expires_at: datetime = Field(sa_type=DateTime(timezone=True))


class Profile(SQLModel, table=True):
    """What is known of a caller. The workspace's tools and the caller fill it in."""

    __tablename__ = "profile"

    owner_id: UUID = Field(primary_key=True)
    body: dict[str, Any] = Field(default_factory=dict, sa_type=JSONB)
