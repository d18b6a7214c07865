"""Many replicas: liveness by lock, steering, streams that were left, background jobs, retention of events."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "engine_0002"
down_revision = "engine_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Server defaults: replicas of the version before insert rows without these columns while both run.
    op.add_column("turn", sa.Column("steers", sa.Integer(), nullable=False, server_default=sa.text("0")))
    op.add_column("turn", sa.Column("leave_after", sa.Float(), nullable=True))
    op.add_column("turn", sa.Column("followed_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("turn", sa.Column("events_kept", sa.Boolean(), nullable=False, server_default=sa.text("true")))
    op.create_index(
        "ix_turn_left",
        "turn",
        ["followed_at"],
        postgresql_where=sa.text("leave_after is not null and status in ('queued', 'running')"),
    )
    op.create_index(
        "ix_turn_prune", "turn", ["finished_at"], postgresql_where=sa.text("finished_at is not null and events_kept")
    )
    op.alter_column("event", "body", type_=sa.JSON(), postgresql_using="body::json")
    op.create_table(
        "steer",
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("turn_id", sa.Uuid(), nullable=False),
        sa.Column("i", sa.Integer(), nullable=False),
        sa.Column("client_key", sa.String(), nullable=True),
        sa.Column("body_sha", sa.LargeBinary(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("consumed_n", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["owner_id", "turn_id"], ["turn.owner_id", "turn.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("owner_id", "turn_id", "i"),
        sa.UniqueConstraint("owner_id", "client_key"),
    )
    op.add_column("replica", sa.Column("lock_key", sa.Integer(), nullable=True))
    op.add_column("replica", sa.Column("server_started", sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        "job",
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("kind"),
    )


def downgrade() -> None:
    op.drop_table("job")
    op.drop_column("replica", "server_started")
    op.drop_column("replica", "lock_key")
    op.drop_table("steer")
    op.alter_column("event", "body", type_=postgresql.JSONB(), postgresql_using="body::jsonb")
    op.drop_index("ix_turn_prune", table_name="turn")
    op.drop_index("ix_turn_left", table_name="turn")
    for column in ("events_kept", "followed_at", "leave_after", "steers"):
        op.drop_column("turn", column)
