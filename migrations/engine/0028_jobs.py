"""Long calls go on without their caller on every surface, not over MCP alone.

Processes of before may run on: those that were released do not know the table.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "engine_0028"
down_revision = "engine_0027"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("mcp_task", sa.Column("surface", sa.String(), nullable=False, server_default="mcp"))
    op.add_column("mcp_task", sa.Column("conversation_id", sa.Uuid(), nullable=True))
    op.add_column("mcp_task", sa.Column("collections", postgresql.JSONB(), nullable=True))
    op.add_column("mcp_task", sa.Column("done", sa.Float(), nullable=True))
    op.add_column("mcp_task", sa.Column("total", sa.Float(), nullable=True))
    op.add_column("mcp_task", sa.Column("outcome", postgresql.JSONB(), nullable=True))
    op.alter_column("mcp_task", "surface", server_default=None)
    # What is kept of a tool's result is the result itself, and no longer what MCP makes of it.
    op.execute("delete from mcp_task where tool <> 'ask_agent' and status in ('completed', 'failed')")


def downgrade() -> None:
    """Calls that were made elsewhere than over MCP are gone, and so are the results of all tools."""
    op.execute("delete from mcp_task where surface <> 'mcp' or outcome is not null")
    for name in ("outcome", "total", "done", "collections", "conversation_id", "surface"):
        op.drop_column("mcp_task", name)
