"""What a call would lose is kept with the question about it."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "engine_0007"
down_revision = "engine_0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # nullable, so that processes of before may run on: what they ask about is asked about once more
    op.add_column("confirmation", sa.Column("losses", postgresql.JSONB(), nullable=True))


def downgrade() -> None:
    op.drop_column("confirmation", "losses")
