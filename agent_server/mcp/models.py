"""Rows of what the sessions of MCP clients watch."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import DateTime, UniqueConstraint
from sqlmodel import Field

from agent_server.db import Owned, now


class McpSubscription(Owned, table=True):
    """An address that a session of its owner's client watches. `session` is made of the id that the client was given."""

    __tablename__ = "mcp_subscription"
    __table_args__ = (UniqueConstraint("owner_id", "session", "uri"),)

    session: UUID
    uri: str
    created_at: datetime = Field(default_factory=now, sa_type=DateTime(timezone=True))
