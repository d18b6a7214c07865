"""Rows of turns.

A turn is queued, then running, then done, failed or cancelled. While it runs, `owner` is the replica that runs it and
`epoch` the fence: every write of an attempt names the epoch it was started with, and a takeover raises it.
Events and model calls are never updated.
"""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import JSON, DateTime, ForeignKeyConstraint, Index, LargeBinary, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from agent_server.db import Owned, now
from agent_server.db.late_indexes import LATE

Status = Literal["queued", "running", "done", "failed", "cancelled"]
FINISHED: frozenset[Status] = frozenset({"done", "failed", "cancelled"})


def _of_turn() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["owner_id", "turn_id"], ["turn.owner_id", "turn.id"], ondelete="CASCADE")


class Turn(Owned, table=True):
    """One message of a user and all that answers it. `input` holds the message and the caller's kind and scopes.

    `steers` counts the messages that were put into the running turn (`Steer`). `at_once` is how many turns of the owner
    may run while this one is begun (None: any number). `leave_after` is how many seconds nobody
    may follow it before it is cancelled (None: it goes on), `followed_at` when somebody last did. `events_kept` is
    False once its events are past retention, and `calls_kept` once its model and tool calls are. `requests` are the
    recipes of what models were sent (`turns.requests`), as long as calls are kept.
    """

    __tablename__ = "turn"
    __table_args__ = (
        ForeignKeyConstraint(
            ["owner_id", "conversation_id"],
            ["conversation.owner_id", "conversation.id"],
            ondelete="CASCADE",
        ),
        # Holds also without the lock that `accept` takes.
        UniqueConstraint("owner_id", "client_key"),
        UniqueConstraint("owner_id", "conversation_id", "turn_no"),
        Index(
            # What decides when two replicas claim two turns of a conversation in the same instant.
            "uq_turn_one_running",
            "owner_id",
            "conversation_id",
            unique=True,
            postgresql_where=text("status = 'running'"),
        ),
        Index(
            # Partial, as those below: few turns are open, and those that have ended pile up.
            "ix_turn_waiting",
            "owner_id",
            "conversation_id",
            "turn_no",
            postgresql_where=text("status in ('queued', 'running')"),
        ),
        Index("ix_turn_queued", "owner_id", "created_at", postgresql_where=text("status = 'queued'")),
        Index("ix_turn_owner", "owner", postgresql_where=text("status = 'running'")),
        Index(
            "ix_turn_left",
            "followed_at",
            postgresql_where=text("leave_after is not null and status in ('queued', 'running')"),
        ),
        Index("ix_turn_prune", "finished_at", postgresql_where=text("finished_at is not null and events_kept")),
        Index(
            "ix_turn_prune_calls",
            "finished_at",
            postgresql_where=text("finished_at is not null and calls_kept"),
            info=LATE,
        ),
        # Every write of an attempt updates the row. With room on its page the update leaves the indexes alone.
        {"postgresql_with": {"fillfactor": "85"}},
    )

    conversation_id: UUID
    turn_no: int
    client_key: str | None = None
    body_sha: bytes = Field(sa_type=LargeBinary)
    status: str
    owner: UUID | None = None
    epoch: int = 1
    attempts: int = 0
    last_event: int = 0
    last_item: int = 0
    cancel: bool = False
    # Defaults of the server: an older version beside this one inserts without the column.
    steers: int = Field(default=0, sa_column_kwargs={"server_default": text("0")})
    at_once: int | None = None
    leave_after: float | None = None
    followed_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))
    events_kept: bool = Field(default=True, sa_column_kwargs={"server_default": text("true")})
    calls_kept: bool = Field(default=True, sa_column_kwargs={"server_default": text("true")})
    input: dict[str, Any] = Field(sa_type=JSONB)
    agent: str | None = None
    usage: dict[str, Any] | None = Field(default=None, sa_type=JSONB)
    error: dict[str, Any] | None = Field(default=None, sa_type=JSONB)
    requests: str | None = None
    created_at: datetime = Field(default_factory=now, sa_type=DateTime(timezone=True))
    finished_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))


TURN_COLUMNS = ", ".join(Turn.__table__.columns.keys())  # type: ignore[attr-defined]  # SQLModel's metaclass makes it
"""By name: a version that adds a column may run beside this one."""


def turn_of(row: Any) -> Turn:
    """The turn of a row with `TURN_COLUMNS`."""
    return Turn(**dict(row.items()))


class ModelCall(SQLModel, table=True):
    """The journal. The `n`th model response of a turn is committed before the run loop sees it."""

    __tablename__ = "model_call"
    __table_args__ = (_of_turn(),)

    owner_id: UUID = Field(primary_key=True)
    turn_id: UUID = Field(primary_key=True)
    n: int = Field(primary_key=True)
    agent: str | None = None
    request_sha: bytes = Field(sa_type=LargeBinary)
    response: dict[str, Any] = Field(sa_type=JSON)  # as the model wrote it: jsonb refuses NUL, and it is only read back


class ToolCall(SQLModel, table=True):
    """The ledger. `state` of a tool call is `started` or `done`, `result` the output or the error."""

    __tablename__ = "tool_call"
    __table_args__ = (_of_turn(),)

    owner_id: UUID = Field(primary_key=True)
    turn_id: UUID = Field(primary_key=True)
    call_id: str = Field(primary_key=True)
    name: str
    effect: str
    args_sha: bytes = Field(sa_type=LargeBinary)
    state: str
    result: dict[str, Any] | None = Field(default=None, sa_type=JSONB)
    epoch: int


class TurnEvent(SQLModel, table=True):
    """The log that clients follow. `seq` is dense per turn, allotted under the turn's row lock."""

    __tablename__ = "event"
    __table_args__ = (_of_turn(),)

    owner_id: UUID = Field(primary_key=True)
    turn_id: UUID = Field(primary_key=True)
    seq: int = Field(primary_key=True)
    kind: str
    body: dict[str, Any] = Field(sa_type=JSON)  # jsonb puts keys in an order of its own; a stream is the same each time
    at: datetime = Field(default_factory=now, sa_type=DateTime(timezone=True))


class Steer(SQLModel, table=True):
    """The `i`th message put into a running turn. `consumed_n` is the model call that was the first to be given it."""

    __tablename__ = "steer"
    __table_args__ = (_of_turn(), UniqueConstraint("owner_id", "client_key"))

    owner_id: UUID = Field(primary_key=True)
    turn_id: UUID = Field(primary_key=True)
    i: int = Field(primary_key=True)
    client_key: str | None = None
    body_sha: bytes = Field(sa_type=LargeBinary)
    text: str
    consumed_n: int | None = None
    created_at: datetime = Field(default_factory=now, sa_type=DateTime(timezone=True))


class ConversationText(SQLModel, table=True):
    """A text that a model was told in a conversation and that holds its owner's words: a profile, a summary."""

    __tablename__ = "conversation_text"
    __table_args__ = (
        ForeignKeyConstraint(
            ["owner_id", "conversation_id"],
            ["conversation.owner_id", "conversation.id"],
            ondelete="CASCADE",
        ),
    )

    owner_id: UUID = Field(primary_key=True)
    conversation_id: UUID = Field(primary_key=True)
    key: str = Field(primary_key=True)
    text: str


class SharedText(SQLModel, table=True):
    """A text of the workspace that models were told: a prompt, a passage. `used_at` is at most a day before its last
    use."""

    __tablename__ = "shared_text"
    __table_args__ = (Index("ix_shared_text_used", "used_at"),)

    key: str = Field(primary_key=True)
    text: str
    used_at: datetime = Field(default_factory=now, sa_type=DateTime(timezone=True))
