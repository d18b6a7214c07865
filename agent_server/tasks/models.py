"""Rows of tasks.

A task works, may wait for its user, and ends as completed, failed or cancelled. While it works, `replica` is the process
that runs it and `epoch` the fence: every write of an attempt names the epoch it was started with, and a takeover raises it.
"""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import DateTime, Index, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from agent_server.db import Owned, now

Status = Literal["working", "input_required", "completed", "failed", "cancelled"]
ENDED: frozenset[Status] = frozenset({"completed", "failed", "cancelled"})


class McpTask(Owned, table=True):
    """A call of `tool` that goes on without its client. `caller` is who made it (`turns.sender`), `surface` is where, and
    `conversation_id` says in which conversation. `collections` bound the agent that made it.

    `listed` says that its client was given its id; else it is a call that its client may send again with `client_key`.
    `can` is what the client can be asked, and `given` are the answers so far with their questions. `inquiries` are the
    questions that wait, by their names, `replies` the answers to some of them, and `asked` is how many were put.
    `started` says that a call with an effect outside our database has begun. `done` of `total` and `message` are what the
    tool said last of its progress. `outcome` is how the call of a tool ended (`calls.ledger.CallOutcome`), `result` what
    MCP's own tools answer in the words of the protocol, and `error` is the code and the message of what is no outcome.
    """

    __tablename__ = "mcp_task"
    __table_args__ = (
        UniqueConstraint("owner_id", "client_key"),
        # Partial: few are open, and those that have ended pile up.
        Index("ix_mcp_task_open", "created_at", postgresql_where=text("status = 'working'")),
        Index("ix_mcp_task_over", "expires_at"),
    )

    tool: str
    scope: str
    arguments: dict[str, Any] = Field(sa_type=JSONB)
    caller: dict[str, Any] = Field(sa_type=JSONB)
    can: list[str] = Field(sa_type=JSONB)
    client_key: str | None = None
    listed: bool
    surface: str = "mcp"
    conversation_id: UUID | None = None
    collections: list[str] | None = Field(default=None, sa_type=JSONB(none_as_null=True))
    status: str = "working"
    message: str | None = None
    done: float | None = None
    total: float | None = None
    replica: UUID | None = None
    epoch: int = 1
    attempts: int = 0
    started: bool = False
    given: list[list[dict[str, Any]]] = Field(default_factory=list, sa_type=JSONB)
    inquiries: dict[str, dict[str, Any]] | None = Field(default=None, sa_type=JSONB(none_as_null=True))
    replies: dict[str, dict[str, Any]] | None = Field(default=None, sa_type=JSONB(none_as_null=True))
    asked: int = 0
    outcome: dict[str, Any] | None = Field(default=None, sa_type=JSONB(none_as_null=True))
    result: dict[str, Any] | None = Field(default=None, sa_type=JSONB(none_as_null=True))
    error: dict[str, Any] | None = Field(default=None, sa_type=JSONB(none_as_null=True))
    created_at: datetime = Field(default_factory=now, sa_type=DateTime(timezone=True))
    updated_at: datetime = Field(default_factory=now, sa_type=DateTime(timezone=True))
    expires_at: datetime = Field(sa_type=DateTime(timezone=True))
