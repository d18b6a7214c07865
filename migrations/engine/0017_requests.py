"""What models were sent is kept with the turn, and each text of it once.

Processes of before may run on: they write turns without it.
"""

import sqlalchemy as sa
from alembic import op

revision = "engine_0017"
down_revision = "engine_0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("turn", sa.Column("requests", sa.String(), nullable=True))
    op.create_table(
        "conversation_text",
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("conversation_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("owner_id", "conversation_id", "key"),
        sa.ForeignKeyConstraint(
            ["owner_id", "conversation_id"], ["conversation.owner_id", "conversation.id"], ondelete="CASCADE"
        ),
    )
    op.create_table(
        "shared_text",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_index("ix_shared_text_used", "shared_text", ["used_at"])


def downgrade() -> None:
    op.drop_table("shared_text")
    op.drop_table("conversation_text")
    op.drop_column("turn", "requests")
