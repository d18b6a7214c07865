"""Calls of MCP clients that go on without them.

Processes of before may run on: they do not know the table.
"""

import runpy
from pathlib import Path

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from agent_server.db.isolation import SYSTEM_ROLE

revision = "engine_0026"
down_revision = "engine_0025"
branch_labels = None
depends_on = None

FIND = """
create function find_tasks(what text, of_replica uuid, seconds double precision, batch int)
returns table (owner_id uuid, id uuid, epoch int, certain boolean)
language plpgsql stable rows 32 security definer set search_path = {schema}, pg_temp as $$
#variable_conflict use_column
begin
  case what
  when 'free' then return query
    with alive as materialized (
      select r.id from replica r
      where r.beat > now() - seconds * interval '1 second'
        and (r.lock_key is null or r.server_started is distinct from pg_postmaster_start_time() or exists (
          select from pg_locks l
          where l.locktype = 'advisory' and l.classid = 730042 and l.objid = r.lock_key::oid and l.objsubid = 2
            and l.granted and l.database = (select d.oid from pg_database d where d.datname = current_database()))))
    select t.owner_id, t.id, t.epoch, t.replica is null or not exists (
      select from replica r where r.id = t.replica and r.beat > now() - seconds * interval '1 second')
    from mcp_task t
    where t.status = 'working'
      and (t.replica is null or t.replica = of_replica or t.replica not in (select a.id from alive a))
    order by t.created_at limit batch;
  when 'over' then return query
    select t.owner_id, t.id, t.epoch, true from mcp_task t
    where t.expires_at < now() - seconds * interval '1 second' and t.status <> 'working'
    order by t.expires_at limit batch;
  end case;
end $$"""
_CALL = "find_tasks(text, uuid, double precision, int)"


def upgrade() -> None:
    time = sa.DateTime(timezone=True)
    op.create_table(
        "mcp_task",
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tool", sa.String(), nullable=False),
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("arguments", postgresql.JSONB(), nullable=False),
        sa.Column("caller", postgresql.JSONB(), nullable=False),
        sa.Column("can", postgresql.JSONB(), nullable=False),
        sa.Column("client_key", sa.String(), nullable=True),
        sa.Column("listed", sa.Boolean(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("message", sa.String(), nullable=True),
        sa.Column("replica", sa.Uuid(), nullable=True),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("started", sa.Boolean(), nullable=False),
        sa.Column("given", postgresql.JSONB(), nullable=False),
        sa.Column("inquiries", postgresql.JSONB(), nullable=True),
        sa.Column("replies", postgresql.JSONB(), nullable=True),
        sa.Column("asked", sa.Integer(), nullable=False),
        sa.Column("result", postgresql.JSONB(), nullable=True),
        sa.Column("error", postgresql.JSONB(), nullable=True),
        sa.Column("created_at", time, nullable=False),
        sa.Column("updated_at", time, nullable=False),
        sa.Column("expires_at", time, nullable=False),
        sa.PrimaryKeyConstraint("owner_id", "id"),
        sa.UniqueConstraint("owner_id", "client_key"),
    )
    op.create_index("ix_mcp_task_open", "mcp_task", ["created_at"], postgresql_where=sa.text("status = 'working'"))
    op.create_index("ix_mcp_task_over", "mcp_task", ["expires_at"])
    op.execute(
        f"grant select (owner_id, id, epoch, status, replica, created_at, expires_at) on mcp_task to {SYSTEM_ROLE}"
    )
    op.execute(f"create policy across_owners on mcp_task for select to {SYSTEM_ROLE} using (true)")
    runpy.run_path(str(Path(__file__).with_name("0006_rights.py")))["_replace"]({_CALL: FIND}, dropped={})


def downgrade() -> None:
    """Tasks that are open are not finished, and the results of others are gone."""
    op.execute(f"drop function {_CALL}")
    op.drop_table("mcp_task")
