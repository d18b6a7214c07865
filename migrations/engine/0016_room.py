"""Pages of `turn` are fuller, since a turn is written to less often.

What there is stays as it is until its pages are written anew. Processes of before may run on during it.
"""

from alembic import op

revision = "engine_0016"
down_revision = "engine_0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("alter table turn set (fillfactor = 85)")


def downgrade() -> None:
    op.execute("alter table turn set (fillfactor = 70)")
