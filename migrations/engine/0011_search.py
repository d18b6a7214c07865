"""Conversations are searched by an index.

It is built after the migrations, beside what goes on (`db.late_indexes`). Processes of before may run on: Postgres keeps
the index by itself, whoever writes.
"""

import runpy
from pathlib import Path

import sqlalchemy as sa
from alembic import op

from agent_server.db.isolation import SYSTEM_ROLE

revision = "engine_0011"
down_revision = "engine_0010"
branch_labels = None
depends_on = None

# As `folding` has them at this revision; accents go as well.
_DROPPED = (
    "\u0300-\u036f\u00ad\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_APOSTROPHES = "`’‘‛′‵ʼʻʽˈˊˋꞌꞋ՚׳´΄᾽᾿῾＇｀"
_SPACES = "\u1680\u2028\u2029\u0085"

# What is common is told by octets: those of plain text are its letters. Whatever the locale of the database, letters of
# all scripts have their capitals where there is one of these collations.
_COLLATION = """
    select c.collname from pg_collation c join pg_namespace n on n.oid = c.collnamespace
    where n.nspname = 'pg_catalog' and c.collname in ('pg_c_utf8', 'und-x-icu', 'C.utf8')
      and c.collencoding in (-1, pg_char_to_encoding('UTF8'))
    order by array_position(array['pg_c_utf8', 'und-x-icu', 'C.utf8'], c.collname::text) limit 1"""
# Not declared as strict, or Postgres would call it rather than write it out.
SEARCH_TEXT = """
create function search_text(said text) returns text language sql immutable parallel safe begin atomic
  select case
    when octet_length(said) = length(said) then replace(lower(said), '`', '''')
    else replace(replace(lower(regexp_replace(normalize(
      translate(said, '{alike}', '{plain}'), NFKD), '[{dropped}]', '', 'g') collate "{collation}"), 'ß', 'ss'), 'ς', 'σ')
    end;
end"""
# Each three octets in a row are a key. A letter is one octet of its code, which is enough to tell those of one script
# apart, and an ideograph is two, so that a word of two of them has keys. One more octet stands at the end, so that each
# two octets begin a key. The owner chooses one of 128 ranges of keys: one with many conversations reads little of the
# others', and the lists of keys stay long enough to be packed well.
SEARCH_KEYS = """
create function search_keys(owner uuid, said text) returns integer[] language sql immutable parallel safe
cost 1000 begin atomic
  select array(
    select range | get_byte(octets, i) << 16 | get_byte(octets, i + 1) << 8 | get_byte(octets, i + 2)
    from (
      select get_byte(uuid_send(owner), 15) >> 1 << 24 as range,
        case when octet_length(plain) = length(plain) then convert_to(plain, 'UTF8') else (
          select string_agg(case when code < 11904 then set_byte('\\x00', 0, code & 255)
                                 else set_byte(set_byte('\\x0000', 0, code >> 8 & 255), 1, code & 255) end, '')
          from (select ascii(letter) as code from string_to_table(plain, null) letter) codes) end || '\\x00' as octets
      from (select search_text(said) as plain offset 0) folded offset 0) read,
    generate_series(0, octet_length(octets) - 3) i);
end"""
# The operators of the index may not be asked before row-level security, which would keep a statement of the
# application's from the index. Hence this, for whom the transaction is for and for nobody else. What it finds is ids of
# conversations that have the keys of the words; whether they have the words is seen under row-level security.
FIND = """
create function find_said(of_owner uuid, words text) returns table (conversation_id uuid)
language plpgsql stable rows 100 security definer set search_path = {schema}, pg_temp as $$
#variable_conflict use_column
declare
  keys integer[] := search_keys(of_owner, words);
  -- the last one has the octet at the end, after which a text may go on
  whole integer[] := keys[1:cardinality(keys) - 1];
begin
  if of_owner = any (nullif(current_setting('agent_server.owners', true), '')::uuid[]) is not true then return; end if;
  if whole <> '{{}}' then
    keys := whole;
  elsif keys <> '{{}}' then
    -- two octets: whatever comes after them
    keys := array(select keys[1] | octet from generate_series(0, 255) octet);
  end if;
  -- planned for these keys each time
  return query execute format(
    'select i.conversation_id from item i where i.owner_id = $1 and i.role is not null'
    ' and search_keys(i.owner_id, i.text) %1$s $2'
    ' union select c.id from conversation c where c.owner_id = $1 and search_keys(c.owner_id, c.title) %1$s $2',
    case when whole <> '{{}}' then '@>' else '&&' end) using of_owner, keys;
end $$"""
_READS = {"item": "owner_id, conversation_id, role, text", "conversation": "owner_id, id, title"}
_CALL = "find_said(uuid, text)"


def upgrade() -> None:
    write_text(SEARCH_TEXT)
    # Not by `op.execute`, which reads a colon as the beginning of a parameter.
    run = op.get_bind().exec_driver_sql
    run(SEARCH_KEYS)
    for table, columns in _READS.items():
        run(f"grant select ({columns}) on {table} to {SYSTEM_ROLE}")
        run(f"create policy across_owners on {table} for select to {SYSTEM_ROLE} using (true)")
    runpy.run_path(str(Path(__file__).with_name("0006_rights.py")))["_replace"]({_CALL: FIND}, dropped={})


def write_text(function: str) -> None:
    connection = op.get_bind()
    collation = connection.execute(sa.text(_COLLATION)).scalar() or "default"
    alike = _APOSTROPHES + _SPACES
    plain = "''" * len(_APOSTROPHES) + " " * len(_SPACES)
    connection.exec_driver_sql(function.format(alike=alike, plain=plain, dropped=_DROPPED, collation=collation))


def downgrade() -> None:
    op.execute("create index if not exists ix_conversation_owner_updated on conversation (owner_id, updated_at)")
    for index in ("ix_conversation_recent", "ix_conversation_title", "ix_item_said"):
        op.execute(f"drop index if exists {index}")
    op.execute(f"drop function {_CALL}")
    for table, columns in _READS.items():
        op.execute(f"drop policy across_owners on {table}")
        op.execute(f"revoke select ({columns}) on {table} from {SYSTEM_ROLE}")
    op.execute("drop function search_keys(uuid, text)")
    op.execute("drop function search_text(text)")
