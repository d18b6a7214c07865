"""A search of conversations takes as long for words that many of them have, however old those are.

One function now reads the latest, then what the index says, latest first, and ends when a page is full. The function of
before stays for processes of before.
"""

import runpy
from pathlib import Path

import sqlalchemy as sa
from alembic import op

from agent_server.db.isolation import SYSTEM_ROLE

revision = "engine_0015"
down_revision = "engine_0014"
branch_labels = None
depends_on = None

_BEFORE = runpy.run_path(str(Path(__file__).with_name("0011_search.py")))
# The letters of plain text have the same small ones wherever they are; looked up by a locale they cost three times.
_LOCALE, _PLAIN = "replace(lower(said),", 'replace(lower(said collate "C") collate "{collation}",'
_HOLDS = """(
      (select position(sought in search_text(t.title)) > 0 from conversation t where t.owner_id = of_owner and t.id = c.id)
      or (select true from item i where i.owner_id = of_owner and i.conversation_id = c.id and i.role is not null
          and position(sought in search_text(i.text)) > 0 limit 1))"""
_ORDER = "order by c.updated_at desc, c.id desc"
# Words that are common are found among the latest, where to look up all that hold them would take longer. Few candidates
# are looked up by their ids and sorted; many are met on the way through the latest, which is left when the page is full.
# `is true`, without which Postgres would join, and sort all of them.
FIND = f"""
create function find_said(of_owner uuid, words text, at timestamptz, last uuid, most int, latest int)
returns table (conversation_id uuid)
language plpgsql stable rows 20 security definer
set search_path = {{schema}}, pg_temp set work_mem = '64MB' set random_page_cost = 1.1 as $$
#variable_conflict use_column
declare
  sought text := search_text(words);
  keys integer[] := search_keys(of_owner, words);
  -- the last one has the octet at the end, after which a text may go on
  whole integer[] := keys[1:cardinality(keys) - 1];
  found uuid[];
  candidates uuid[];
begin
  if of_owner = any (nullif(current_setting('agent_server.owners', true), '')::uuid[]) is not true then return; end if;
  found := array(
    select c.id from (
      select c.*, sum(c.turns) over (order by c.updated_at desc, c.id desc rows unbounded preceding) as so_far from (
        select c.id, c.updated_at, c.next_turn - 1 as turns from conversation c
        where c.owner_id = of_owner and (c.updated_at, c.id) < (at, last) {_ORDER} limit latest) c) c
    where c.so_far <= latest and {_HOLDS} {_ORDER} limit most);
  if cardinality(found) < most and keys <> '{{{{}}}}' then
    if whole <> '{{{{}}}}' then
      -- of a long phrase not all, each of which is a list to go through
      keys := array(select distinct whole[1 + n * (cardinality(whole) - 1) / {{most_keys}}]
                    from generate_series(0, {{most_keys}}) n);
    else
      -- two octets: whatever comes after them
      keys := array(select keys[1] | octet from generate_series(0, 255) octet);
    end if;
    -- planned for these keys each time
    execute format(
      'select array(select i.conversation_id from item i where i.owner_id = $1 and i.role is not null'
      ' and search_keys(i.owner_id, i.text) %1$s $2'
      ' union all select c.id from conversation c where c.owner_id = $1 and search_keys(c.owner_id, c.title) %1$s $2)',
      case when whole <> '{{{{}}}}' then '@>' else '&&' end) into candidates using of_owner, keys;
    if cardinality(candidates) <= {{few}} then
      found := array(
        select c.id from (
          select c.id, c.updated_at from conversation c
          where c.owner_id = of_owner and c.id = any (candidates) and (c.updated_at, c.id) < (at, last)
          {_ORDER} offset 0) c
        where {_HOLDS} {_ORDER} limit most);
    else
      found := array(
        select c.id from conversation c
        where c.owner_id = of_owner and (c.updated_at, c.id) < (at, last)
          and (c.id in (select unnest(candidates))) is true and {_HOLDS} {_ORDER} limit most);
    end if;
  end if;
  return query select unnest(found);
end $$"""
_FEW = 3000
"""Candidates that are looked up by their ids faster than they are met on a way through the latest."""
_MOST_KEYS = 16
"""Of a phrase that are sought: more of them leave hardly fewer candidates, and take longer to find these."""
_CALL = "find_said(uuid, text, timestamptz, uuid, int, int)"
_COLUMNS = "updated_at, next_turn"


def upgrade() -> None:
    _write_text(_BEFORE["SEARCH_TEXT"].replace(_LOCALE, _PLAIN))
    op.execute(f"grant select ({_COLUMNS}) on conversation to {SYSTEM_ROLE}")
    replace = runpy.run_path(str(Path(__file__).with_name("0006_rights.py")))["_replace"]
    replace({_CALL: FIND.replace("{few}", str(_FEW)).replace("{most_keys}", str(_MOST_KEYS))}, dropped={})


def downgrade() -> None:
    op.execute(f"drop function {_CALL}")
    op.execute(f"revoke select ({_COLUMNS}) on conversation from {SYSTEM_ROLE}")
    _write_text(_BEFORE["SEARCH_TEXT"])


def _write_text(function: str) -> None:
    """Write the function of the text that is searched anew, which is what indexes are of."""
    _BEFORE["write_text"](function.replace("create function", "create or replace function", 1))
    # Turkish has another small I: what the indexes have of plain text is not what is sought any more.
    if op.get_bind().execute(sa.text("select lower('I') <> 'i'")).scalar_one():
        for index in ("ix_conversation_title", "ix_item_said"):
            op.execute(f"drop index if exists {index}")  # built again after the migrations (`db.late_indexes`)
