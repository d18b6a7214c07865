"""A replica says which forms of rows it reads, so that newer ones write no others beside it."""

import sqlalchemy as sa
from alembic import op

revision = "engine_0013"
down_revision = "engine_0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # nullable: processes of before insert rows without it, and read the first forms only
    op.add_column("replica", sa.Column("format", sa.Integer(), nullable=True))


def downgrade() -> None:
    op.drop_column("replica", "format")
