"""Nothing depends on the change of a row's owner, so that tables can be spread over servers by it.

What a guest had is stored once more for the user, and removed. Processes of before change the owner, and have what hangs
on a conversation follow by itself: until they are replaced, they refuse to hand over (409), and nothing is lost.
The policies, which follow from the models after each upgrade, have no subqueries any more.
"""

import runpy
from pathlib import Path

from alembic import op

revision = "engine_0014"
down_revision = "engine_0013"
branch_labels = None
depends_on = None

_FOLLOWS = {
    **runpy.run_path(str(Path(__file__).with_name("0003_isolation.py")))["FOLLOWS"],
    "refresh_token": ("login_id", "login"),
}


def upgrade() -> None:
    _refer(on_update="no action")


def downgrade() -> None:
    _refer(on_update="cascade")


def _refer(on_update: str) -> None:
    for table, (column, parent) in _FOLLOWS.items():
        name = f"{table}_owner_id_{column}_fkey"
        # Not valid: the constraint before it has held all rows to the same until this moment, and to look through them
        # again would keep everybody from the table for as long.
        op.execute(
            f"alter table {table} drop constraint {name}, add constraint {name} foreign key (owner_id, {column}) "
            f"references {parent} (owner_id, id) on delete cascade on update {on_update} not valid"
        )
