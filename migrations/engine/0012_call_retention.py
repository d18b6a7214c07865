"""The calls of a turn are removed some time after it has ended.

What has piled up before goes too, a few turns at a time, once the index is there by which they are found
(`db.late_indexes`). Processes of before may run on: the column has a value without being named.
"""

import runpy
from pathlib import Path

import sqlalchemy as sa
from alembic import op

from agent_server.db.isolation import SYSTEM_ROLE

revision = "engine_0012"
down_revision = "engine_0011"
branch_labels = None
depends_on = None

_RIGHTS = runpy.run_path(str(Path(__file__).with_name("0006_rights.py")))
_CALL = "sweep(text, uuid, double precision, int)"
_NEXT = "  when 'expired_guests' then"
_CALLS = """
  when 'prunable_calls' then return query
    select t.owner_id, t.id, t.epoch, true from turn t
    where t.finished_at < now() - seconds * interval '1 second' and t.calls_kept
    order by t.finished_at limit batch;
"""


def upgrade() -> None:
    op.add_column("turn", sa.Column("calls_kept", sa.Boolean(), nullable=False, server_default=sa.text("true")))
    op.execute(f"grant select (calls_kept) on turn to {SYSTEM_ROLE}")
    sweep = _RIGHTS["SWEEP"]
    _RIGHTS["_replace"]({_CALL: sweep.replace(_NEXT, _CALLS.lstrip("\n") + _NEXT)}, dropped={_CALL: sweep})


def downgrade() -> None:
    _RIGHTS["_replace"]({_CALL: _RIGHTS["SWEEP"]}, dropped={_CALL: _RIGHTS["SWEEP"]})
    op.drop_column("turn", "calls_kept")
