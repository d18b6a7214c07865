"""Answers have notes about them, and turns may be replaced by others."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "engine_0009"
down_revision = "engine_0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Both have a value without being named, so that processes of before may run on.
    op.add_column("item", sa.Column("notes", postgresql.JSONB(), nullable=False, server_default=sa.text("'[]'::jsonb")))
    op.add_column(
        "conversation", sa.Column("replaced", postgresql.JSONB(), nullable=False, server_default=sa.text("'{}'::jsonb"))
    )
    op.add_column("conversation", sa.Column("summary", postgresql.JSONB(), nullable=True))


def downgrade() -> None:
    op.drop_column("conversation", "summary")
    op.drop_column("conversation", "replaced")
    op.drop_column("item", "notes")
