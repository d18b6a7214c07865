"""A message says which version of its agent's prompt made it.

Processes of before may run on: they write messages without it.
"""

import sqlalchemy as sa
from alembic import op

revision = "engine_0019"
down_revision = "engine_0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("item", sa.Column("prompt_version", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("item", "prompt_version")
