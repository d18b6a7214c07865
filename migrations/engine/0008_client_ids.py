"""A conversation is reached by the id that its client began it under, also by the user that a guest becomes."""

import sqlalchemy as sa
from alembic import op

revision = "engine_0008"
down_revision = "engine_0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Nullable, so that processes of before may run on: they make the conversation's id from the client's, and so do we.
    op.add_column("conversation", sa.Column("client_id", sa.String(), nullable=True))
    op.create_index(
        "ix_conversation_client",
        "conversation",
        ["owner_id", "client_id"],
        postgresql_where=sa.text("client_id is not null"),
    )


def downgrade() -> None:
    op.drop_index("ix_conversation_client", "conversation")
    op.drop_column("conversation", "client_id")
