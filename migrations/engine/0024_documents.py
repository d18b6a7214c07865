"""Callers have documents of their own, with their passages and how often each word occurs in them.

Processes of before may run on: they do not know the tables.
"""

import sqlalchemy as sa
from alembic import op
from pgvector.sqlalchemy import HALFVEC, SPARSEVEC

revision = "engine_0024"
down_revision = "engine_0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "own_document",
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("title", sa.String(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("passages", sa.Integer(), nullable=False),
        sa.Column("config", sa.String(), nullable=False),
        sa.Column("embedder", sa.String(), nullable=False),
        sa.Column("sha", sa.String(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("owner_id", "id"),
    )
    op.create_index("ix_own_document_name", "own_document", ["owner_id", "name"])
    op.create_table(
        "own_passage",
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("passage", sa.String(), nullable=False),
        sa.Column("heading", sa.String(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("start_offset", sa.Integer(), nullable=False),
        sa.Column("end_offset", sa.Integer(), nullable=False),
        sa.Column("lex", SPARSEVEC(1_000_000_000), nullable=True),
        sa.Column("emb", HALFVEC(), nullable=False),
        sa.PrimaryKeyConstraint("owner_id", "id"),
        _reference(),
    )
    op.create_index("ix_own_passage_document", "own_passage", ["owner_id", "document_id", "ordinal"])
    op.create_index("ix_own_passage_passage", "own_passage", ["owner_id", "passage"], unique=True)
    op.create_table(
        "own_word",
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("lexeme", sa.String(), nullable=False),
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("owner_id", "lexeme", "document_id"),
        _reference(),
    )
    op.create_index("ix_own_word_document", "own_word", ["owner_id", "document_id"])


def _reference() -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["owner_id", "document_id"], ["own_document.owner_id", "own_document.id"], ondelete="CASCADE"
    )


def downgrade() -> None:
    op.drop_table("own_word")
    op.drop_table("own_passage")
    op.drop_table("own_document")
