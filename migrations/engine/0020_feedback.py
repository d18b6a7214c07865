"""Callers say what they think of an answer.

Processes of before may run on: they do not know the table.
"""

import sqlalchemy as sa
from alembic import op

revision = "engine_0020"
down_revision = "engine_0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "feedback",
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("turn_id", sa.Uuid(), nullable=False),
        sa.Column("rating", sa.String(), nullable=False),
        sa.Column("comment", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("owner_id", "id"),
        sa.ForeignKeyConstraint(["owner_id", "turn_id"], ["turn.owner_id", "turn.id"], ondelete="CASCADE"),
        sa.UniqueConstraint("owner_id", "turn_id"),
    )
    op.create_index("ix_feedback_id", "feedback", ["id"])


def downgrade() -> None:
    op.drop_table("feedback")
