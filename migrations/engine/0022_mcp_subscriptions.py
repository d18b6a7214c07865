"""What the sessions of MCP clients watch.

Processes of before may run on: they do not know the table.
"""

import sqlalchemy as sa
from alembic import op

revision = "engine_0022"
down_revision = "engine_0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "mcp_subscription",
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("session", sa.Uuid(), nullable=False),
        sa.Column("uri", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("owner_id", "id"),
        sa.UniqueConstraint("owner_id", "session", "uri"),
    )


def downgrade() -> None:
    op.drop_table("mcp_subscription")
