"""Looks for what is over begin where the last one ended, and a search reads what is common or rare in its own way.

Processes of before may run on: they look and search with the functions of before, which stay.
"""

import runpy
from pathlib import Path

from alembic import op

revision = "engine_0018"
down_revision = "engine_0017"
branch_labels = None
depends_on = None

# What was removed a moment ago still stands in the index, until a vacuum. `since` leads past it.
FIND_OVER = """
create function find_over(what text, seconds double precision, since timestamptz, batch int)
returns table (owner_id uuid, id uuid, at timestamptz)
language plpgsql stable rows 200 security definer set search_path = {schema}, pg_temp as $$
#variable_conflict use_column
declare
  until timestamptz := now() - seconds * interval '1 second';
begin
  case what
  when 'prunable' then return query
    select t.owner_id, t.id, t.finished_at from turn t
    where t.finished_at >= since and t.finished_at < until and t.events_kept order by t.finished_at limit batch;
  when 'prunable_calls' then return query
    select t.owner_id, t.id, t.finished_at from turn t
    where t.finished_at >= since and t.finished_at < until and t.calls_kept order by t.finished_at limit batch;
  when 'expired_logins' then return query
    select l.owner_id, l.id, l.expires_at from login l
    where l.expires_at >= since and l.expires_at < until order by l.expires_at limit batch;
  when 'expired_confirmations' then return query
    select c.owner_id, c.id, c.expires_at from confirmation c
    where c.expires_at >= since and c.expires_at < until order by c.expires_at limit batch;
  end case;
end $$"""
_OVER_CALL = "find_over(text, double precision, timestamptz, int)"


# To find what is alike letter by letter costs twenty times a pattern that matches nothing, as does the other form of a
# text that has but this one: each letter of it is its own (Unicode never changes that), and none is a mark.
_FORMED = (
    "\u0001-\u007f\u00a1-\u00a7\u00a9\u00ab-\u00ac\u00ae\u00b0\u00b6\u00b7\u00bb\u00bf\u00d7\u00df\u00f7\u0410-\u0418"
    "\u041a-\u0438\u043a-\u044f\u0621\u0627-\u063a\u0641-\u064a\u2010\u2012-\u2016\u2018-\u2022\u2030\u2039-\u203a"
    "\u20ac\u2190-\u2199\u2500-\u257f\u25a0-\u25ff\u2600-\u26ff\u2700-\u27bf\u3001\u3002\u3008-\u3011\u4e00-\u9fff\ufe0f"
    "\U0001f300-\U0001f64f\U0001f680-\U0001f6d7\U0001f90c-\U0001f9ff"
)
_PARTS = runpy.run_path(str(Path(__file__).with_name("0011_search.py")))
_SLOW = "normalize(\n      translate(said, '{alike}', '{plain}'), NFKD)"
_QUICK = f"""case
      when said !~ '[^{_FORMED}]' then regexp_replace(said, '[{_PARTS["_APOSTROPHES"]}]', \'\'\'\', 'g')
      else normalize(regexp_replace(regexp_replace(said, '[{_PARTS["_APOSTROPHES"]}]', \'\'\'\', 'g'),
        '[{_PARTS["_SPACES"]}]', ' ', 'g'), NFKD) end"""

_HOLDS = """(
      (select position(sought in search_text(t.title)) > 0 from conversation t where t.owner_id = of_owner and t.id = c.id)
      or (select true from item i where i.owner_id = of_owner and i.conversation_id = c.id and i.role is not null
          and position(sought in search_text(i.text)) > 0 limit 1))"""
_ORDER = "order by c.updated_at desc, c.id desc"
_HERE = "c.owner_id = of_owner and (c.updated_at, c.id) < (at, last)"
# What many conversations hold is found among the latest, what few hold by the index. How many have the words, and how many
# have each part of them, is told by the latest: as long as they are on the way to a full page they are read on. The index is
# asked for the rarest parts only, each of which is a list to go through.
# `is true`, without which Postgres would join, and sort all of them.
FIND = f"""
create function find_talks(of_owner uuid, words text, at timestamptz, last uuid, most int, latest int)
returns table (conversation_id uuid)
language plpgsql stable rows 20 security definer
set search_path = {{schema}}, pg_temp set work_mem = '64MB' set random_page_cost = 1.1 as $$
#variable_conflict use_column
declare
  sought text := search_text(words);
  keys integer[] := search_keys(of_owner, words);
  -- the last one has the octet at the end, after which a text may go on
  whole integer[] := keys[1:cardinality(keys) - 1];
  -- one letter is in no list: it is sought among the latest alone
  step int := case when keys = '{{{{}}}}' then latest else latest / 5 end;
  seen int := 0;
  page uuid[] := '{{{{}}}}';
  candidates uuid[];
  checked uuid[];
  rare integer[];
  share float := 0;
  place record;
  asked text;
begin
  if of_owner = any (nullif(current_setting('agent_server.owners', true), '')::uuid[]) is not true then return; end if;
  loop
    select c.updated_at, c.id, c.so_far into place from (
      select c.*, sum(c.turns) over ({_ORDER} rows unbounded preceding) as so_far from (
        select c.id, c.updated_at, c.next_turn - 1 as turns from conversation c where {_HERE} {_ORDER} limit step) c) c
    where c.so_far <= step order by c.updated_at, c.id limit 1;
    exit when place.id is null;
    page := page || array(
      select c.id from conversation c where {_HERE} and (c.updated_at, c.id) >= (place.updated_at, place.id) and {_HOLDS}
      {_ORDER} limit most - cardinality(page));
    if cardinality(page) >= most then return query select unnest(page); return; end if;
    if seen = 0 and octet_length(sought) = length(sought) and cardinality(whole) > 0 then
      -- how many of these texts have each part of plain words
      with said as materialized (
        select search_text(i.text) as said from (
          select c.id from conversation c where {_HERE} and (c.updated_at, c.id) >= (place.updated_at, place.id)
          {_ORDER} limit {{sample}}) c
        join item i on i.owner_id = of_owner and i.conversation_id = c.id and i.role is not null limit {{sample}}),
      parts as (
        select distinct substr(sought, 1 + n * (length(sought) - 3) / {{most_parts}}, 3) as part
        from generate_series(0, {{most_parts}}) n)
      select array_agg(p.part_key order by p.many), min(p.many) into rare, share from (
        select (search_keys(of_owner, parts.part))[1] as part_key,
          (select avg((position(parts.part in said.said) > 0)::int)::float from said) as many from parts
        order by many limit {{most_rare}}) p;
    end if;
    seen := seen + place.so_far;
    at := place.updated_at;
    last := place.id;
    -- the longer, the more the index would have to read
    exit when (cardinality(page) + share) * ({{shortest}} + {{longer}} * share) * latest <= most * seen;
    step := latest;
  end loop;
  if keys = '{{{{}}}}' then return query select unnest(page); return; end if;
  if whole = '{{{{}}}}' then
    -- two octets: whatever comes after them
    keys := array(select keys[1] | octet from generate_series(0, 255) octet);
  elsif rare is not null then
    keys := rare;
  else
    -- of a long phrase not all, each of which is a list to go through
    keys := array(select distinct whole[1 + n * (cardinality(whole) - 1) / {{most_keys}}]
                  from generate_series(0, {{most_keys}}) n);
  end if;
  asked := 'select array(select i.conversation_id from item i where i.owner_id = $1 and i.role is not null'
    ' and search_keys(i.owner_id, i.text) %1$s $2 %2$s'
    ' union all select c.id from conversation c where c.owner_id = $1 and search_keys(c.owner_id, c.title) %1$s $2 %3$s)';
  -- planned for these keys each time
  execute format(asked, case when whole <> '{{{{}}}}' then '@>' else '&&' end, '', '')
    into candidates using of_owner, keys;
  if cardinality(candidates) <= {{few}} then
    page := page || array(
      select c.id from (
        select c.id, c.updated_at from conversation c where {_HERE} and c.id = any (candidates) {_ORDER} offset 0) c
      where {_HOLDS} {_ORDER} limit most - cardinality(page));
    return query select unnest(page);
    return;
  end if;
  checked := array(
    select c.id from (
      select c.id, c.updated_at from conversation c where {_HERE} and (c.id in (select unnest(candidates))) is true
      {_ORDER} limit {{few}}) c
    where {_HOLDS} {_ORDER} limit most - cardinality(page));
  if cardinality(checked) = most - cardinality(page) then
    return query select unnest(page || checked);
    return;
  end if;
  -- The rest is read by its places on the disk, unless a page is filled before.
  if cardinality(checked) * cardinality(candidates) < {{read_on}} * most * {{few}} then
    execute format(asked, case when whole <> '{{{{}}}}' then '@>' else '&&' end,
      'and position($3 in search_text(i.text)) > 0', 'and position($3 in search_text(c.title)) > 0')
      into candidates using of_owner, keys, sought;
    page := page || array(
      select c.id from conversation c where {_HERE} and (c.id in (select unnest(candidates))) is true
      {_ORDER} limit most - cardinality(page));
  else
    page := page || array(
      select c.id from conversation c where {_HERE} and (c.id in (select unnest(candidates))) is true and {_HOLDS}
      {_ORDER} limit most - cardinality(page));
  end if;
  return query select unnest(page);
end $$"""
NUMBERS = {
    "few": 3000,  # conversations that are looked up by their ids faster than they are met on a way through the latest
    "most_keys": 16,  # of a phrase that are sought: more leave hardly fewer candidates, and take longer to find these
    "most_parts": 31,  # of a phrase whose shares are counted
    "most_rare": 5,  # of them that are sought
    "sample": 100,  # texts that they are counted in
    "shortest": 5,  # times as many of the latest are read where they would fill a page
    "longer": 15,  # times more where all have the rarest part
    "read_on": 3,  # times that a look at one conversation takes as long as one at a text in its place
}


def spell_find(numbers: dict[str, int]) -> str:
    """The function with these numbers in it."""
    spelled = FIND
    for name, number in numbers.items():
        spelled = spelled.replace(f"{{{name}}}", str(number))
    return spelled


_CALL = "find_talks(uuid, text, timestamptz, uuid, int, int)"


def upgrade() -> None:
    before = runpy.run_path(str(Path(__file__).with_name("0015_search.py")))
    _write_text(before["_BEFORE"]["SEARCH_TEXT"].replace(before["_LOCALE"], before["_PLAIN"]).replace(_SLOW, _QUICK))
    replace = runpy.run_path(str(Path(__file__).with_name("0006_rights.py")))["_replace"]
    replace({_OVER_CALL: FIND_OVER, _CALL: spell_find(NUMBERS)}, dropped={})


def downgrade() -> None:
    before = runpy.run_path(str(Path(__file__).with_name("0015_search.py")))
    op.execute(f"drop function {_OVER_CALL}")
    op.execute(f"drop function {_CALL}")
    _write_text(before["_BEFORE"]["SEARCH_TEXT"].replace(before["_LOCALE"], before["_PLAIN"]))


def _write_text(function: str) -> None:
    _PARTS["write_text"](function.replace("create function", "create or replace function", 1))
