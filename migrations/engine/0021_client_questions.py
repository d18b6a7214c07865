"""Questions that a client is asked during a call wait for their answers.

Processes of before may run on: they do not know the table.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "engine_0021"
down_revision = "engine_0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "client_question",
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tool", sa.String(), nullable=False),
        sa.Column("arguments", postgresql.JSONB(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("given", postgresql.JSONB(), nullable=False),
        sa.Column("inquiry", postgresql.JSONB(), nullable=False),
        sa.Column("answer", postgresql.JSONB(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("owner_id", "id"),
    )


def downgrade() -> None:
    """Questions that are open are not put again; their calls were not made."""
    op.drop_table("client_question")
