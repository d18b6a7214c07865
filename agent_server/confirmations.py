"""What a user is asked before something is lost for good: each answer counts once."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import DateTime
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from agent_server.db import Owned, now


class Confirmation(Owned, table=True):
    """A call of a destructive tool that waits for its caller's word, until `expires_at`; `used_at` is when it was given
    and the call made."""

    __tablename__ = "confirmation"

    tool: str
    arguments: dict[str, Any] = Field(sa_type=JSONB)
    conversation_id: UUID | None = None
    turn_id: UUID | None = None
    created_at: datetime = Field(default_factory=now, sa_type=DateTime(timezone=True))
    expires_at: datetime = Field(sa_type=DateTime(timezone=True))
    used_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))
