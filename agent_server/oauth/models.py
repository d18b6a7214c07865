"""Rows of clients that signed in through a browser, and of what users let them do."""

from datetime import datetime

from sqlalchemy import DateTime, LargeBinary
from sqlalchemy.dialects.postgresql import ARRAY, TEXT
from sqlmodel import Field, SQLModel

from agent_server.db import Owned, now


class OAuthClient(SQLModel, table=True):
    """A program as it described itself. Nobody owns it: it says who it is before anybody has signed in.

    `id` is the address of its metadata document, or a text of ours where it was registered. It has no secret stored:
    one is derived from the server's own (`tokens.client_secret`).
    """

    __tablename__ = "oauth_client"

    id: str = Field(primary_key=True)
    name: str
    redirect_uris: list[str] = Field(sa_type=ARRAY(TEXT))
    method: str
    created_at: datetime = Field(default_factory=now, sa_type=DateTime(timezone=True))
    read_at: datetime = Field(default_factory=now, sa_type=DateTime(timezone=True))
    used_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))


class OAuthGrant(Owned, table=True):
    """What a user let a client do: these scopes at one resource, until it expires or is revoked.

    It begins with a code, of which the SHA-256 is stored, and which is exchanged once. `refreshes` counts the refresh
    tokens that were given since: the latest alone works.
    """

    __tablename__ = "oauth_grant"

    client_id: str
    client_name: str
    redirect_uri: str
    redirect_named: bool
    resource: str
    scopes: list[str] = Field(sa_type=ARRAY(TEXT))
    challenge: str
    code_sha: bytes = Field(sa_type=LargeBinary)
    code_expires_at: datetime = Field(sa_type=DateTime(timezone=True))
    exchanged_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))
    refreshes: int = 0
    created_at: datetime = Field(default_factory=now, sa_type=DateTime(timezone=True))
    last_used_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))
    expires_at: datetime = Field(sa_type=DateTime(timezone=True))
    revoked_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))
