"""Who did what, on which surface, with what outcome; append-only."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from sqlalchemy import DateTime, Index
from sqlmodel import Field

from agent_server.db import Owned, now
from agent_server.repository import Repository

Surface = Literal["agent", "mcp", "rest", "cli"]


class Audit(Owned, table=True):
    """One call of a tool by the caller `owner_id`; `outcome` is `ok` or an error code. No arguments, no results."""

    __tablename__ = "audit"
    __table_args__ = (Index("ix_audit_owner_at", "owner_id", "at"),)

    at: datetime = Field(default_factory=now, sa_type=DateTime(timezone=True))
    caller_kind: str
    surface: str
    action: str
    outcome: str
    latency_ms: float
    conversation_id: UUID | None = None
    turn_id: UUID | None = None
    request_id: str | None = None


class AuditRepository(Repository[Audit]):
    model = Audit
