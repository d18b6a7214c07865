"""How a call ended that was confirmed is kept with the question about it."""

import sqlalchemy as sa
from alembic import op

revision = "engine_0010"
down_revision = "engine_0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # nullable, so that processes of before may run on: of what they confirm the outcome is not known
    op.add_column("confirmation", sa.Column("outcome", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("confirmation", "outcome")
