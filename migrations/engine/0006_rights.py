"""Rights that end with their maker, and turns that are claimed fairly: who made a key, what an outside issuer said of a
user, where a user signed in from, and how many turns of an owner may run."""

import runpy
from pathlib import Path

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from agent_server.db.isolation import APP_ROLE, SYSTEM_ROLE

revision = "engine_0006"
down_revision = "engine_0005"
branch_labels = None
depends_on = None

# What the functions below may read beside what they read before.
READS = {
    "turn": "at_once, created_at",
    "api_key": "by_roles",  # pragma: allowlist secret
    "account": "issuer_roles",
    "login": "device",
}

SWEEP = """
create function sweep(what text, replica uuid, seconds double precision, batch int)
returns table (owner_id uuid, id uuid, epoch int, certain boolean)
language plpgsql stable security definer set search_path = {schema}, pg_temp as $$
#variable_conflict use_column
begin
  case what
  when 'claimable' then return query
    with recursive alive as materialized (
      select r.id from replica r
      where r.beat > now() - seconds * interval '1 second'
        and (r.lock_key is null or r.server_started is distinct from pg_postmaster_start_time() or exists (
          select from pg_locks l
          where l.locktype = 'advisory' and l.classid = 730042 and l.objid = r.lock_key::oid and l.objsubid = 2
            and l.granted and l.database = (select d.oid from pg_database d where d.datname = current_database())))),
    -- From one owner to the next by the index: however many turns of one wait, they are not read.
    waiting as (
      (select t.owner_id from turn t where t.status = 'queued' order by t.owner_id limit 1)
      union all
      select (select t.owner_id from turn t where t.status = 'queued' and t.owner_id > w.owner_id
              order by t.owner_id limit 1)
      from waiting w where w.owner_id is not null),
    candidates as (
      select w.owner_id, t.id, t.epoch, true as certain, r.running + t.place as place, t.created_at
      from waiting w
      cross join lateral (
        select count(*) as running from turn b where b.owner_id = w.owner_id and b.status = 'running') r
      cross join lateral (
        select f.at_once from turn f where f.owner_id = w.owner_id and f.status = 'queued'
        order by f.created_at limit 1) f
      cross join lateral (
        select q.id, q.epoch, q.created_at, row_number() over (order by q.created_at, q.id) as place from (
          select q.id, q.epoch, q.created_at from turn q
          where q.owner_id = w.owner_id and q.status = 'queued' and not exists (
            select from turn b where b.owner_id = q.owner_id and b.conversation_id = q.conversation_id
            and (b.status = 'running' or (b.status = 'queued' and b.turn_no < q.turn_no)))
          order by q.created_at limit greatest(least(f.at_once - r.running, batch), 0)) q) t
      union all
      select t.owner_id, t.id, t.epoch, t.owner is null or not exists (
        select from replica r where r.id = t.owner and r.beat > now() - seconds * interval '1 second'),
        0, t.created_at
      from turn t where t.status = 'running' and (t.owner is null or t.owner not in (select a.id from alive a)))
    -- First whoever has the fewest that run, counting those before it in this list.
    select c.owner_id, c.id, c.epoch, c.certain from candidates c order by c.place, c.created_at limit batch;
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
               disabled_at timestamptz, by_roles boolean, roles text[])
language sql stable security definer set search_path = {schema}, pg_temp as $$
  select k.owner_id, k.scopes, k.expires_at, k.revoked_at, k.last_used_at, a.disabled_at, k.by_roles,
         coalesce(a.roles || a.issuer_roles, '{{}}')
  from api_key k left join account a on a.id = k.owner_id where k.id = key_id and k.secret_sha = sha $$
"""

FIND_OUTSIDER = """
create function find_outsider(of_issuer text, of_subject text)
returns table (id uuid, roles text[], disabled_at timestamptz, issuer_roles text[])
language sql stable security definer set search_path = {schema}, pg_temp as $$
  select a.id, a.roles, a.disabled_at, a.issuer_roles from account a
  where a.issuer = of_issuer and a.subject = of_subject $$
"""

KNOWS_DEVICE = """
create function knows_device(owner uuid, with_device bytea) returns boolean
language sql stable security definer set search_path = {schema}, pg_temp as $$
  select exists (select from login l where l.owner_id = owner and l.device = with_device) $$
"""

REPLACED = {
    "sweep(text, uuid, double precision, int)": SWEEP,
    "find_key(uuid, bytea)": FIND_KEY,
    "find_outsider(text, text)": FIND_OUTSIDER,
}
NEW = {"knows_device(uuid, bytea)": KNOWS_DEVICE}


def upgrade() -> None:
    op.add_column("api_key", sa.Column("maker_id", sa.Uuid(), nullable=True))
    # Server defaults: processes of the version before insert rows without these columns while both run.
    op.add_column("api_key", sa.Column("by_roles", sa.Boolean(), nullable=False, server_default=sa.text("false")))
    op.create_index("ix_api_key_maker", "api_key", ["owner_id", "maker_id"])
    op.add_column(
        "account",
        sa.Column("issuer_roles", postgresql.ARRAY(sa.Text()), nullable=False, server_default=sa.text("'{}'")),
    )
    op.add_column("login", sa.Column("device", sa.LargeBinary(), nullable=True))
    op.add_column("turn", sa.Column("at_once", sa.Integer(), nullable=True))
    op.drop_index("ix_turn_queued", table_name="turn")
    op.create_index("ix_turn_queued", "turn", ["owner_id", "created_at"], postgresql_where=sa.text("status = 'queued'"))
    for table, columns in READS.items():
        op.execute(f"grant select ({columns}) on {table} to {SYSTEM_ROLE}")
    _replace({**REPLACED, **NEW}, dropped=REPLACED)
    _make_the_local_user_an_admin()


def _make_the_local_user_an_admin() -> None:
    # The command line acts as it with every scope, and makes keys for it that have what its roles have.
    # Row-level security is forced on the owner too: without this it would find no account.
    op.execute("alter table account no force row level security")
    op.execute("update account set roles = '{admin}' where name = 'local' and roles = '{}' and issuer is null")
    op.execute("alter table account force row level security")


def _replace(made: dict[str, str], dropped: dict[str, str]) -> None:
    schema = op.get_bind().execute(sa.text("select quote_ident(current_schema())")).scalar_one()
    for signature in dropped:
        op.execute(f"drop function {signature}")
    # only who may create in the schema can be given a function in it
    op.execute(f"grant usage, create on schema {schema} to {SYSTEM_ROLE}")
    for signature, body in made.items():
        op.execute(body.format(schema=schema))
        op.execute(f"revoke all on function {signature} from public")
        op.execute(f"grant execute on function {signature} to {APP_ROLE}")
        op.execute(f"alter function {signature} owner to {SYSTEM_ROLE}")
    op.execute(f"revoke create on schema {schema} from {SYSTEM_ROLE}")


def downgrade() -> None:
    before = runpy.run_path(str(Path(__file__).with_name("0003_isolation.py")))["FUNCTIONS"]
    bodies = {signature: before[signature].replace("{", "{{").replace("}", "}}") for signature in REPLACED}
    _replace(
        {signature: body.replace(" from current ", " = {schema}, pg_temp ") for signature, body in bodies.items()},
        dropped={**REPLACED, **NEW},
    )
    op.drop_index("ix_turn_queued", table_name="turn")
    op.create_index("ix_turn_queued", "turn", ["created_at"], postgresql_where=sa.text("status = 'queued'"))
    op.drop_column("turn", "at_once")
    op.drop_column("login", "device")
    op.drop_column("account", "issuer_roles")
    op.drop_index("ix_api_key_maker", table_name="api_key")
    op.drop_column("api_key", "by_roles")
    op.drop_column("api_key", "maker_id")
