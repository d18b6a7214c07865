"""The engine's tables: identity, conversations, the turn ledger, knowledge, audit."""

import sqlalchemy as sa
from alembic import op
from pgvector.sqlalchemy import HALFVEC, SPARSEVEC
from sqlalchemy.dialects import postgresql

revision = "engine_0001"
down_revision = None
branch_labels = ("engine",)
depends_on = None

# As the code of this revision has it; a later change of the function is a later migration.
LEXVEC = """
create function lexvec(v tsvector, pivot real, k1 real default 1.2, b real default 0.75) returns sparsevec
language sql immutable parallel safe as $$
  with t as (
    select (hashtextextended(lexeme, 0) & 536870911) + 1 as h,
           sum(cardinality(positions) + length(array_to_string(weights, ''))
               - length(replace(array_to_string(weights, ''), 'A', '')))::real as tf
    from unnest(v) group by 1),
  l as (select sum(tf) as len from t)
  select case when count(*) = 0 then null else
    ('{' || string_agg(h || ':' || (tf * (k1 + 1) / (tf + k1 * (1 - b + b * len / pivot)))::real, ',')
     || '}/1000000000')::sparsevec end
  from t, l $$
"""


def upgrade() -> None:
    op.execute("create extension if not exists vector")
    op.execute(LEXVEC)
    op.create_table(
        "account",
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "api_key",
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("secret_sha", sa.LargeBinary(), nullable=False),
        sa.Column("scopes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("owner_id", "id"),
    )
    op.create_index("ix_api_key_id", "api_key", ["id"], unique=True)
    op.create_table(
        "audit",
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("caller_kind", sa.String(), nullable=False),
        sa.Column("surface", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("latency_ms", sa.Float(), nullable=False),
        sa.Column("conversation_id", sa.Uuid(), nullable=True),
        sa.Column("turn_id", sa.Uuid(), nullable=True),
        sa.Column("request_id", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("owner_id", "id"),
    )
    op.create_index("ix_audit_owner_at", "audit", ["owner_id", "at"], unique=False)
    op.create_table(
        "conversation",
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("title", sa.String(), nullable=False),
        sa.Column("next_turn", sa.Integer(), nullable=False),
        sa.Column("agent", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("owner_id", "id"),
    )
    op.create_index("ix_conversation_owner_updated", "conversation", ["owner_id", "updated_at"], unique=False)
    op.create_table(
        "corpus",
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("n_chunks", sa.Integer(), nullable=False),
        sa.Column("pivot", sa.REAL(), nullable=False),
        sa.PrimaryKeyConstraint("owner_id"),
    )
    op.create_table(
        "document",
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("collection", sa.String(), nullable=False),
        sa.Column("title", sa.String(), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("urgent", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("sha", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("owner_id", "id"),
        sa.UniqueConstraint("owner_id", "path"),
    )
    op.create_table(
        "guest",
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("secret_sha", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "profile",
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("body", postgresql.JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("owner_id"),
    )
    op.create_table(
        "replica",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("beat", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "term",
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("lexeme", sa.String(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("owner_id", "lexeme"),
    )
    op.create_table(
        "chunk",
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("passage", sa.String(), nullable=False),
        sa.Column("collection", sa.String(), nullable=False),
        sa.Column("heading", sa.String(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("start_offset", sa.Integer(), nullable=False),
        sa.Column("end_offset", sa.Integer(), nullable=False),
        sa.Column("tsv", postgresql.TSVECTOR(), nullable=False),
        sa.Column("lex", SPARSEVEC(1_000_000_000), nullable=True),
        sa.Column("emb", HALFVEC(256), nullable=False),
        sa.ForeignKeyConstraint(["owner_id", "document_id"], ["document.owner_id", "document.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("owner_id", "id"),
    )
    op.create_index("ix_chunk_document", "chunk", ["owner_id", "document_id", "ordinal"], unique=False)
    op.create_index("ix_chunk_passage", "chunk", ["owner_id", "passage"], unique=True)
    op.create_index("ix_chunk_tsv", "chunk", ["tsv"], unique=False, postgresql_using="gin")
    op.create_table(
        "item",
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("conversation_id", sa.Uuid(), nullable=False),
        sa.Column("turn_no", sa.Integer(), nullable=False),
        sa.Column("k", sa.Integer(), nullable=False),
        sa.Column("turn_id", sa.Uuid(), nullable=False),
        sa.Column("role", sa.String(), nullable=True),
        sa.Column("text", sa.String(), nullable=True),
        sa.Column("agent", sa.String(), nullable=True),
        sa.Column("model", sa.String(), nullable=True),
        sa.Column("prompt_sha", sa.String(), nullable=True),
        sa.Column("body", postgresql.JSONB(), nullable=False),
        sa.Column("sources", postgresql.JSONB(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["owner_id", "conversation_id"], ["conversation.owner_id", "conversation.id"], ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("owner_id", "conversation_id", "turn_no", "k"),
    )
    op.create_table(
        "seed",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("sha", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "turn",
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("conversation_id", sa.Uuid(), nullable=False),
        sa.Column("turn_no", sa.Integer(), nullable=False),
        sa.Column("client_key", sa.String(), nullable=True),
        sa.Column("body_sha", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("owner", sa.Uuid(), nullable=True),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("last_event", sa.Integer(), nullable=False),
        sa.Column("last_item", sa.Integer(), nullable=False),
        sa.Column("cancel", sa.Boolean(), nullable=False),
        sa.Column("input", postgresql.JSONB(), nullable=False),
        sa.Column("agent", sa.String(), nullable=True),
        sa.Column("usage", postgresql.JSONB(), nullable=True),
        sa.Column("error", postgresql.JSONB(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["owner_id", "conversation_id"], ["conversation.owner_id", "conversation.id"], ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("owner_id", "id"),
        sa.UniqueConstraint("owner_id", "client_key"),
        sa.UniqueConstraint("owner_id", "conversation_id", "turn_no"),
        postgresql_with={"fillfactor": "70"},
    )
    op.create_index("ix_turn_owner", "turn", ["owner"], unique=False, postgresql_where=sa.text("status = 'running'"))
    op.create_index(
        "ix_turn_queued", "turn", ["created_at"], unique=False, postgresql_where=sa.text("status = 'queued'")
    )
    op.create_index(
        "ix_turn_waiting",
        "turn",
        ["owner_id", "conversation_id", "turn_no"],
        unique=False,
        postgresql_where=sa.text("status in ('queued', 'running')"),
    )
    op.create_index(
        "uq_turn_one_running",
        "turn",
        ["owner_id", "conversation_id"],
        unique=True,
        postgresql_where=sa.text("status = 'running'"),
    )
    op.create_table(
        "event",
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("turn_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("body", postgresql.JSONB(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["owner_id", "turn_id"], ["turn.owner_id", "turn.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("owner_id", "turn_id", "seq"),
    )
    op.create_table(
        "model_call",
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("turn_id", sa.Uuid(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("agent", sa.String(), nullable=True),
        sa.Column("request_sha", sa.LargeBinary(), nullable=False),
        sa.Column("response", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["owner_id", "turn_id"], ["turn.owner_id", "turn.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("owner_id", "turn_id", "n"),
    )
    op.create_table(
        "tool_call",
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("turn_id", sa.Uuid(), nullable=False),
        sa.Column("call_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("effect", sa.String(), nullable=False),
        sa.Column("args_sha", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("result", postgresql.JSONB(), nullable=True),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["owner_id", "turn_id"], ["turn.owner_id", "turn.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("owner_id", "turn_id", "call_id"),
    )


def downgrade() -> None:
    op.drop_table("tool_call")
    op.drop_table("model_call")
    op.drop_table("event")
    op.drop_table("turn")
    op.drop_table("seed")
    op.drop_table("item")
    op.drop_table("chunk")
    op.drop_table("term")
    op.drop_table("replica")
    op.drop_table("profile")
    op.drop_table("guest")
    op.drop_table("document")
    op.drop_table("corpus")
    op.drop_table("conversation")
    op.drop_table("audit")
    op.drop_table("api_key")
    op.drop_table("account")
    op.execute("drop function lexvec(tsvector, real, real, real)")
