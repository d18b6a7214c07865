"""Functions that look across owners are led astray by no temporary table, and what signs tokens is reached by one of
them alone.

Processes of before may run on during it where they have answered a request by then: they have read the secret. One that
has not is refused by the database, and answers with a 500 until it is replaced. One that is started after it does not
start, as after every migration that it does not know.
"""

from alembic import op

from agent_server.db.isolation import APP_ROLE, SYSTEM_ROLE

revision = "engine_0005"
down_revision = "engine_0004"
branch_labels = None
depends_on = None

# Where `pg_temp` is not named, it comes first: a temporary table would stand for ours, and a view for the functions that
# its maker wants called by whom the function belongs to.
SEARCH_PATH = """
do $$ declare f record; begin
  for f in select oid::regprocedure as name from pg_proc
           where prosecdef and pronamespace = quote_ident(current_schema())::regnamespace
             and proowner = '{role}'::regrole loop
    execute format('alter function %s set search_path = %I{last}', f.name, current_schema());
  end loop;
end $$
"""

# Of several processes that come first at once one stores its secret, and all are given that.
FUNCTION = """
create function signing_secret(fresh bytea) returns bytea
language sql volatile security definer set search_path from current as $$
  insert into signing_key (id, secret) values (1, fresh) on conflict (id) do nothing;
  select secret from signing_key where id = 1 $$
"""


def upgrade() -> None:
    op.execute(FUNCTION)
    op.execute("revoke all on function signing_secret(bytea) from public")
    op.execute(f"grant execute on function signing_secret(bytea) to {APP_ROLE}")
    op.execute(f"revoke all on signing_key from {APP_ROLE}, public")
    op.execute(f"grant select, insert on signing_key to {SYSTEM_ROLE}")
    # only who may create in the schema can be given a function in it
    _in_schema("grant usage, create on schema %I to {role}")
    op.execute(f"alter function signing_secret(bytea) owner to {SYSTEM_ROLE}")
    _in_schema("revoke create on schema %I from {role}")
    op.execute(SEARCH_PATH.format(role=SYSTEM_ROLE, last=", pg_temp"))


def _in_schema(statement: str) -> None:
    op.execute(f"do $$ begin execute format('{statement.format(role=SYSTEM_ROLE)}', current_schema()); end $$")


def downgrade() -> None:
    op.execute("drop function signing_secret(bytea)")
    op.execute(f"revoke all on signing_key from {SYSTEM_ROLE}")
    op.execute(f"grant select, insert, update, delete on signing_key to {APP_ROLE}")
    op.execute(SEARCH_PATH.format(role=SYSTEM_ROLE, last=""))
