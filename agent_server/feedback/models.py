"""Rows of feedback."""

from typing import ClassVar, Literal
from uuid import UUID

from sqlalchemy import ForeignKeyConstraint, Index, UniqueConstraint

from agent_server.db import Owned, RowPolicy, Timestamps

Rating = Literal["good", "bad"]
READ_SCOPE = "feedback:read"
"""What staff holds who reads what all callers gave."""
LONGEST_COMMENT = 2_000


class Feedback(Owned, Timestamps, table=True):
    """What a caller thinks of the answer in one of its turns. A turn has one at most."""

    row_policy: ClassVar[RowPolicy] = RowPolicy(read_scope=READ_SCOPE)

    __tablename__ = "feedback"
    __table_args__ = (
        ForeignKeyConstraint(["owner_id", "turn_id"], ["turn.owner_id", "turn.id"], ondelete="CASCADE"),
        UniqueConstraint("owner_id", "turn_id"),
        # Staff reads what all callers gave, with the latest first.
        Index("ix_feedback_id", "id"),
    )

    turn_id: UUID
    rating: str
    comment: str | None = None
