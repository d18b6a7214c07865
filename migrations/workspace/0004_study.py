"""Study abroad: programmes, reports and payments."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "workspace_0004"
down_revision = "workspace_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "study_programme",
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("slug", sa.String(), nullable=False),
        sa.Column("university", sa.String(), nullable=False),
        sa.Column("city", sa.String(), nullable=False),
        sa.Column("nation", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("award", sa.String(), nullable=False),
        sa.Column("level", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("months", sa.Integer(), nullable=False),
        sa.Column("mode", sa.String(), nullable=False),
        sa.Column("start", sa.String(), nullable=False),
        sa.Column("tuition", postgresql.JSONB(none_as_null=True), nullable=True),
        sa.Column("deposit", sa.Integer(), nullable=True),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("source_date", sa.String(), nullable=False),
        sa.Column("check", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("owner_id", "id"),
        sa.UniqueConstraint("owner_id", "slug"),
    )
    op.create_table(
        "study_report",
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("topic", sa.String(200), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("price_pence", sa.Integer(), nullable=False),
        sa.Column("sources", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("owner_id", "id"),
    )
    op.create_table(
        "study_report_text",
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("owner_id", "id"),
    )
    op.create_table(
        "study_payment",
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("report_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("pence", sa.Integer(), nullable=False),
        sa.Column("session", sa.String(), nullable=True),
        sa.Column("url", sa.String(), nullable=True),
        sa.Column("intent", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("owner_id", "id"),
    )
    op.create_index("ix_study_payment_report", "study_payment", ["owner_id", "report_id", "number"])
    op.create_table(
        "study_payment_event",
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("payment_id", sa.Uuid(), nullable=False),
        sa.Column("event", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("owner_id", "id"),
    )


def downgrade() -> None:
    op.drop_table("study_payment_event")
    op.drop_table("study_payment")
    op.drop_table("study_report_text")
    op.drop_table("study_report")
    op.drop_table("study_programme")
