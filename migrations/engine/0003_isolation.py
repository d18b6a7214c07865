"""Callers kept apart by the database: functions that look across owners, users who sign in, limits, an audit that only
grows. Row-level security itself follows from the models, after every upgrade (agent_server/db/isolation.py)."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from agent_server.db.isolation import APP_ROLE, SYSTEM_ROLE

revision = "engine_0003"
down_revision = "engine_0002"
branch_labels = None
depends_on = None

# A claim of a guest's rows changes their owner: what hangs on them follows.
FOLLOWS = {
    "item": ("conversation_id", "conversation"),
    "turn": ("conversation_id", "conversation"),
    "event": ("turn_id", "turn"),
    "model_call": ("turn_id", "turn"),
    "tool_call": ("turn_id", "turn"),
    "steer": ("turn_id", "turn"),
}

# What the functions below may read, column by column, and where they look across owners.
READS = {
    "turn": "owner_id, id, conversation_id, turn_no, epoch, owner, status, leave_after, followed_at, finished_at, "
    "events_kept",
    "guest": "id, expires_at",
    "api_key": "owner_id, id, name, secret_sha, scopes, expires_at, revoked_at, last_used_at",  # pragma: allowlist secret
    "account": "id, email, password_hash, roles, issuer, subject, disabled_at",
    "login": "owner_id, id, expires_at",
    "confirmation": "owner_id, id, expires_at",
}

SWEEP = """
create function sweep(what text, replica uuid, seconds double precision, batch int)
returns table (owner_id uuid, id uuid, epoch int, certain boolean)
language plpgsql stable security definer set search_path from current as $$
#variable_conflict use_column
begin
  case what
  when 'claimable' then return query
    with alive as materialized (
      select r.id from replica r
      where r.beat > now() - seconds * interval '1 second'
        and (r.lock_key is null or r.server_started is distinct from pg_postmaster_start_time() or exists (
          select from pg_locks l
          where l.locktype = 'advisory' and l.classid = 730042 and l.objid = r.lock_key::oid and l.objsubid = 2
            and l.granted and l.database = (select d.oid from pg_database d where d.datname = current_database())))),
    candidates as (
      select t.owner_id, t.id, t.epoch, true as certain from turn t
      where t.status = 'queued' and not exists (
        select from turn b where b.owner_id = t.owner_id and b.conversation_id = t.conversation_id
        and (b.status = 'running' or (b.status = 'queued' and b.turn_no < t.turn_no)))
      union all
      select t.owner_id, t.id, t.epoch, t.owner is null or not exists (
        select from replica r where r.id = t.owner and r.beat > now() - seconds * interval '1 second')
      from turn t where t.status = 'running' and (t.owner is null or t.owner not in (select a.id from alive a)))
    select * from candidates limit batch;
  when 'left' then return query
    select t.owner_id, t.id, t.epoch, true from turn t
    where t.leave_after is not null and t.status in ('queued', 'running')
      and t.followed_at < now() - t.leave_after * interval '1 second' limit batch;
  when 'held' then return query
    select t.owner_id, t.id, t.epoch, true from turn t where t.owner = replica and t.status = 'running';
  when 'prunable' then return query
    select t.owner_id, t.id, t.epoch, true from turn t
    where t.finished_at < now() - seconds * interval '1 second' and t.events_kept
    order by t.finished_at limit batch;
  when 'expired_guests' then return query
    select g.id, g.id, 0, true from guest g
    where g.expires_at < now() - seconds * interval '1 second' order by g.expires_at limit batch;
  when 'expired_logins' then return query
    select l.owner_id, l.id, 0, true from login l
    where l.expires_at < now() - seconds * interval '1 second' order by l.expires_at limit batch;
  when 'expired_confirmations' then return query
    select c.owner_id, c.id, 0, true from confirmation c
    where c.expires_at < now() - seconds * interval '1 second' order by c.expires_at limit batch;
  end case;
end $$
"""

FIND_KEY = """
create function find_key(key_id uuid, sha bytea)
returns table (owner_id uuid, scopes text[], expires_at timestamptz, revoked_at timestamptz, last_used_at timestamptz,
               disabled_at timestamptz)
language sql stable security definer set search_path from current as $$
  select k.owner_id, k.scopes, k.expires_at, k.revoked_at, k.last_used_at, a.disabled_at
  from api_key k left join account a on a.id = k.owner_id where k.id = key_id and k.secret_sha = sha $$
"""

FIND_LOGIN = """
create function find_login(address text)
returns table (id uuid, password_hash text, roles text[], disabled_at timestamptz)
language sql stable security definer set search_path from current as $$
  select a.id, a.password_hash, a.roles, a.disabled_at from account a
  where a.email = lower(address) and a.password_hash is not null $$
"""

FIND_OUTSIDER = """
create function find_outsider(of_issuer text, of_subject text)
returns table (id uuid, roles text[], disabled_at timestamptz)
language sql stable security definer set search_path from current as $$
  select a.id, a.roles, a.disabled_at from account a where a.issuer = of_issuer and a.subject = of_subject $$
"""

SIGN_IN_CONFIGURED = """
create function somebody_can_sign_in(but text) returns boolean
language sql stable security definer set search_path from current as $$
  select exists (select from api_key k where k.name <> but and k.revoked_at is null and (k.expires_at is null or k.expires_at > now()))
      or exists (select from account a where a.password_hash is not null and a.disabled_at is null) $$
"""

FUNCTIONS = {
    "sweep(text, uuid, double precision, int)": SWEEP,
    "find_key(uuid, bytea)": FIND_KEY,
    "find_login(text)": FIND_LOGIN,
    "find_outsider(text, text)": FIND_OUTSIDER,
    "somebody_can_sign_in(text)": SIGN_IN_CONFIGURED,
}

# By a trigger as well as by rights: the owner of the table has all rights.
APPEND_ONLY = """
create function refuse_change() returns trigger language plpgsql as $$
begin
  raise exception 'rows of % are only ever added', tg_table_name using errcode = 'insufficient_privilege';
end $$
"""


def upgrade() -> None:
    op.add_column("account", sa.Column("email", sa.String(), nullable=True))
    op.add_column("account", sa.Column("password_hash", sa.String(), nullable=True))
    op.add_column(
        "account", sa.Column("roles", postgresql.ARRAY(sa.Text()), nullable=False, server_default=sa.text("'{}'"))
    )
    op.add_column("account", sa.Column("issuer", sa.String(), nullable=True))
    op.add_column("account", sa.Column("subject", sa.String(), nullable=True))
    op.add_column("account", sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True))
    op.create_unique_constraint("account_email_key", "account", ["email"])
    op.create_unique_constraint("account_issuer_subject_key", "account", ["issuer", "subject"])
    op.add_column("api_key", sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        "login",
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("owner_id", "id"),
    )
    op.create_table(
        "refresh_token",
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("login_id", sa.Uuid(), nullable=False),
        sa.Column("secret_sha", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["owner_id", "login_id"], ["login.owner_id", "login.id"], ondelete="CASCADE", onupdate="CASCADE"
        ),
        sa.PrimaryKeyConstraint("owner_id", "login_id", "secret_sha"),
    )
    op.create_table(
        "signing_key",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "rate",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("free_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key"),
        prefixes=["UNLOGGED"],
    )
    op.create_table(
        "confirmation",
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tool", sa.String(), nullable=False),
        sa.Column("arguments", postgresql.JSONB(), nullable=False),
        sa.Column("conversation_id", sa.Uuid(), nullable=True),
        sa.Column("turn_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("confirmed", sa.Boolean(), nullable=True),
        sa.PrimaryKeyConstraint("owner_id", "id"),
    )
    _let_owners_change(True)
    op.execute("alter index ix_chunk_tsv set (fastupdate = off)")
    op.execute(APPEND_ONLY)
    op.execute(
        "create trigger audit_only_grows before update or delete on audit for each row execute function refuse_change()"
    )
    op.execute("create trigger audit_is_kept before truncate on audit execute function refuse_change()")
    _look_across_owners()


def _let_owners_change(follow: bool) -> None:
    for table, (column, parent) in FOLLOWS.items():
        name = f"{table}_owner_id_{column}_fkey"
        op.drop_constraint(name, table, type_="foreignkey")
        op.create_foreign_key(
            name,
            table,
            parent,
            ["owner_id", column],
            ["owner_id", "id"],
            ondelete="CASCADE",
            onupdate="CASCADE" if follow else None,
        )


def _look_across_owners() -> None:
    for table, columns in READS.items():
        op.execute(f"grant select ({columns}) on {table} to {SYSTEM_ROLE}")
        op.execute(f"create policy across_owners on {table} for select to {SYSTEM_ROLE} using (true)")
    op.execute(f"grant select on replica to {SYSTEM_ROLE}")
    # only who may create in the schema can be given a function in it
    op.execute(
        f"do $$ begin execute format('grant usage, create on schema %I to {SYSTEM_ROLE}', current_schema()); end $$"
    )
    for signature, body in FUNCTIONS.items():
        op.execute(body)
        op.execute(f"revoke all on function {signature} from public")
        op.execute(f"grant execute on function {signature} to {APP_ROLE}")
        op.execute(f"alter function {signature} owner to {SYSTEM_ROLE}")
    op.execute(f"do $$ begin execute format('revoke create on schema %I from {SYSTEM_ROLE}', current_schema()); end $$")


def downgrade() -> None:
    for signature in FUNCTIONS:
        op.execute(f"drop function {signature}")
    op.execute("drop trigger audit_only_grows on audit")
    op.execute("drop trigger audit_is_kept on audit")
    op.execute("drop function refuse_change()")
    op.execute("alter index ix_chunk_tsv reset (fastupdate)")
    _let_owners_change(False)
    for table in ("confirmation", "rate", "signing_key", "refresh_token", "login"):
        op.drop_table(table)
    op.drop_column("api_key", "last_used_at")
    op.drop_constraint("account_issuer_subject_key", "account", type_="unique")
    op.drop_constraint("account_email_key", "account", type_="unique")
    for column in ("disabled_at", "subject", "issuer", "roles", "password_hash", "email"):
        op.drop_column("account", column)
    # what is guarded by a role that the version before does not take on would be out of its reach
    op.execute(
        f"""
        do $$ declare t record; begin
          for t in select c.oid::regclass as name from pg_class c
                   where c.relrowsecurity and c.relnamespace = quote_ident(current_schema())::regnamespace loop
            execute format('alter table %s no force row level security', t.name);
            execute format('alter table %s disable row level security', t.name);
          end loop;
          for t in select format('drop policy %I on %s', p.polname, p.polrelid::regclass) as drop from pg_policy p
                   join pg_class c on c.oid = p.polrelid where c.relnamespace = quote_ident(current_schema())::regnamespace loop
            execute t.drop;
          end loop;
          execute format('revoke all on all tables in schema %I from {APP_ROLE}, {SYSTEM_ROLE}', current_schema());
          execute format('revoke all on schema %I from {APP_ROLE}, {SYSTEM_ROLE}', current_schema());
        end $$"""
    )
