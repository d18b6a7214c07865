"""Documents say their language, compounds are found by their parts, and vectors that were paid for are kept.

Processes of before read the English stems of new pages of other languages until they end.
"""

import sqlalchemy as sa
from alembic import op
from pgvector.sqlalchemy import HALFVEC
from sqlalchemy.dialects import postgresql

revision = "engine_0023"
down_revision = "engine_0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("document", sa.Column("language", sa.String(), nullable=False, server_default="en"))
    op.add_column(
        "corpus", sa.Column("configs", postgresql.ARRAY(sa.TEXT()), nullable=False, server_default="{english}")
    )
    op.add_column("corpus", sa.Column("stale", sa.Boolean(), nullable=False, server_default="true"))
    op.create_table(
        "compound",
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("part", sa.String(), nullable=False),
        sa.Column("lexeme", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("owner_id", "part", "lexeme"),
    )
    op.create_index("ix_compound_lexeme", "compound", ["owner_id", "lexeme"])
    op.create_table(
        "embedding",
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("embedder", sa.String(), nullable=False),
        sa.Column("sha", sa.String(), nullable=False),
        sa.Column("emb", HALFVEC(), nullable=False),
        sa.PrimaryKeyConstraint("owner_id", "embedder", "sha"),
    )


def downgrade() -> None:
    op.drop_table("embedding")
    op.drop_table("compound")
    op.drop_column("corpus", "stale")
    op.drop_column("corpus", "configs")
    op.drop_column("document", "language")
