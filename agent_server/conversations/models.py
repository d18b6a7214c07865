"""Rows of conversations.

An item is one entry of a model's input or output, in the form the Agents SDK replays (OpenAI Responses items): a
message, a function call, its output. Messages, as people read them, are the items that have a role.
What a model thought is an item as well, which no model is given again.
Items are never updated: the order of a conversation is (turn_no, k).
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import DateTime, ForeignKeyConstraint, Index
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from agent_server.db import Owned, Timestamps, now
from agent_server.db.late_indexes import LATE


class Conversation(Owned, Timestamps, table=True):
    """A conversation of one owner. `next_turn` numbers the turns under this row's lock; `agent` is the specialist that
    answered last. `client_id` is the id that the client began it under, where that is not `id`. `replaced` maps
    the numbers of turns that others stand in the place of to theirs. `summary` is what its first turns were about: a
    `text`, and `until` which turn."""

    __tablename__ = "conversation"
    __table_args__ = (
        # With the id: it decides between those of one instant, of which an import makes many.
        Index(
            "ix_conversation_recent",
            "owner_id",
            "updated_at",
            "id",
            info={**LATE, "instead_of": "ix_conversation_owner_updated"},
        ),
        Index("ix_conversation_title", sql("search_keys(owner_id, title)"), postgresql_using="gin", info=LATE),
        # Not unique: a user may have a conversation under an id that a guest had one under, which is the user's then.
        Index("ix_conversation_client", "owner_id", "client_id", postgresql_where=sql("client_id is not null")),
    )

    title: str
    next_turn: int = 1
    agent: str | None = None
    client_id: str | None = None
    summary: dict[str, Any] | None = Field(default=None, sa_type=JSONB)
    # A default of the server: an older version beside this one inserts without the column.
    replaced: dict[str, int] = Field(
        default_factory=dict, sa_type=JSONB, sa_column_kwargs={"server_default": sql("'{}'::jsonb")}
    )


class Item(SQLModel, table=True):
    """One entry of a model's input or output. `role` and `text` are set for messages only; `sources` are the passages
    an answer cites, as they then were, and `notes` the codes of what its reader should know (`conversations.notes`)."""

    __tablename__ = "item"
    __table_args__ = (
        ForeignKeyConstraint(
            ["owner_id", "conversation_id"],
            ["conversation.owner_id", "conversation.id"],
            ondelete="CASCADE",
        ),
        Index(
            "ix_item_said",
            sql("search_keys(owner_id, text)"),
            postgresql_using="gin",
            postgresql_where=sql("role is not null"),
            info=LATE,
        ),
    )

    owner_id: UUID = Field(primary_key=True)
    conversation_id: UUID = Field(primary_key=True)
    turn_no: int = Field(primary_key=True)
    k: int = Field(primary_key=True)
    turn_id: UUID
    role: str | None = None
    text: str | None = None
    agent: str | None = None
    model: str | None = None
    prompt_sha: str | None = None
    prompt_version: str | None = None
    body: dict[str, Any] = Field(sa_type=JSONB)
    sources: list[dict[str, Any]] = Field(default_factory=list, sa_type=JSONB)
    # A default of the server: an older version beside this one inserts without the column.
    notes: list[str] = Field(
        default_factory=list, sa_type=JSONB, sa_column_kwargs={"server_default": sql("'[]'::jsonb")}
    )
    created_at: datetime = Field(default_factory=now, sa_type=DateTime(timezone=True))
