"""The tables and policies are such as a Postgres takes that is spread over servers by owner."""

import asyncio
from collections.abc import Mapping, Sequence
from uuid import UUID

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from agent_server.db import Database, new_id
from agent_server.db.isolation import preamble, row_policy_of
from agent_server.workspace import load_workspace
from tests.conftest import ROOT, everything, fetch
from tests.owners import unfit
from tests.rows import owned_tables

load_workspace(ROOT)  # its tables as well
SPREAD = {
    table.name
    for table in owned_tables()
    if (policy := row_policy_of(table)) is not None and policy.column == "owner_id"
}
"""The tables whose rows would be on the server of their owner."""

UNIQUE: Mapping[str, str] = {
    "ix_api_key_id": "a key is found before it is known whose it is; keys are few and stay on one server",
}
TRIGGERS: Mapping[str, str] = {
    "audit_only_grows": "the audit stays on one server, or is kept by rights alone",
    "audit_is_kept": "the audit stays on one server, or is kept by rights alone",
}
ACROSS: Mapping[str, str] = {
    "sweep": "finds what is to be done for any owner; asked on each server, or of the one that plans",
    "find_key": "who asks is not known yet; credentials stay on one server",
    "find_login": "who asks is not known yet; credentials stay on one server",
    "find_outsider": "who asks is not known yet; credentials stay on one server",
    "somebody_can_sign_in": "asked at start-up, of credentials",
    "knows_device": "who asks is not known yet; credentials stay on one server",
    "signing_secret": "reads a table without owners",  # pragma: allowlist secret
    "find_tasks": "as sweep, of tasks",
    "find_over": "as sweep: the one look across owners, which shows ids and times alone",
    "find_talks": "reads the rows of one owner, which it checks to be the transaction's",
    "find_said": "reads the rows of one owner, which it checks to be the transaction's",
}
"""Functions that run with the rights of a role of their own, which servers that rows are spread over do not know."""


async def test_policies_have_no_subquery_and_no_function_that_changes_within_a_statement(url: str) -> None:
    found = await fetch(
        url,
        """select c.relname, p.polname, pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)
           from pg_policy p join pg_class c on c.oid = p.polrelid
           where concat(polqual, polwithcheck) like '%{SUBLINK %' or exists (
               select from pg_depend d join pg_proc f on f.oid = d.refobjid
               where d.classid = 'pg_policy'::regclass and d.objid = p.oid and f.provolatile = 'v')""",
    )
    assert found == []


async def test_what_must_be_there_once_is_so_by_owner(url: str) -> None:
    found = await fetch(
        url,
        """select c.relname, i.indexrelid::regclass::text from pg_index i join pg_class c on c.oid = i.indrelid
           where i.indisunique and c.relnamespace = 'public'::regnamespace and not exists (
               select from pg_attribute a
               where a.attrelid = i.indrelid and a.attname = 'owner_id' and a.attnum = any (i.indkey))""",
    )
    assert {index for table, index in found if table in SPREAD} == UNIQUE.keys()


async def test_references_are_to_rows_of_the_same_owner_who_stays_the_same(url: str) -> None:
    found = await fetch(
        url,
        """select c.relname, k.conname, k.confupdtype::text, k.confdeltype::text,
               exists (select from unnest(k.conkey, k.confkey) as pair(here, there)
                       join pg_attribute h on h.attrelid = k.conrelid and h.attnum = here and h.attname = 'owner_id'
                       join pg_attribute t on t.attrelid = k.confrelid and t.attnum = there and t.attname = 'owner_id')
           from pg_constraint k join pg_class c on c.oid = k.conrelid where k.contype = 'f'""",
    )
    assert SPREAD & {table for table, *_ in found}
    wrong = [row for row in found if row[0] in SPREAD and (row[2] != "a" or row[3] not in "acr" or not row[4])]
    assert wrong == []


async def test_triggers_and_functions_with_rights_of_their_own_are_those_that_there_is_a_reason_for(url: str) -> None:
    triggers = await fetch(url, "select tgname from pg_trigger where not tgisinternal")
    assert {name for (name,) in triggers} == TRIGGERS.keys()
    functions = await fetch(url, "select proname from pg_proc where prosecdef")
    assert {name for (name,) in functions} == ACROSS.keys()


IDS = st.one_of(st.uuids(), st.sampled_from([UUID(int=n) for n in range(4)]))


@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.lists(IDS, max_size=4), IDS), min_size=30, max_size=60))
def test_a_policy_lets_through_the_owners_of_the_transaction_and_nobody_else(
    url: str, cases: Sequence[tuple[list[UUID], UUID]]
) -> None:
    async def ask() -> list[bool | None]:
        connection = await asyncpg.connect(url)
        try:
            policy = "select qual from pg_policies where tablename = 'conversation' and policyname = 'reads'"
            ask = f"select {await connection.fetchval(policy)} from (select $1::uuid) conversation(owner_id)"
            assert not await connection.fetchval(ask, cases[0][1])  # where nobody was named
            found = []
            for owners, owner in cases:
                async with connection.transaction():
                    await connection.execute(preamble(owners, ()))
                    found.append(await connection.fetchval(ask, owner))
            assert not await connection.fetchval(ask, cases[-1][1])  # where somebody was, in a transaction before
            return found
        finally:
            await connection.close()

    assert asyncio.run(ask()) == [owner in owners for owners, owner in cases]


async def test_one_turn_is_found_by_its_key_however_many_its_owner_has(database: Database) -> None:
    owner = new_id()
    async with everything(database) as session:
        await session.execute(_MANY_TURNS, {"owner": owner, "conversation": new_id()})
        await session.execute(text("analyze turn"))
    async with database.transaction(owner) as session:
        plan = await session.execute(
            text(
                "explain update turn set last_event = last_event + 1 where owner_id = :owner and id = :id and epoch = 1"
            ),
            {"owner": owner, "id": new_id()},
        )
        assert "turn_pkey" in "\n".join(plan.scalars())


# Of a thousand owners, one of whom has a thousand turns.
_MANY_TURNS = text("""
    with who as (select case when n <= 1000 then cast(:owner as uuid) else gen_random_uuid() end as owner_id, n
                 from generate_series(1, 2000) n),
    talks as (insert into conversation (owner_id, id, title, next_turn, created_at, updated_at)
              select distinct owner_id, cast(:conversation as uuid), '', 1, now(), now() from who)
    insert into turn (owner_id, id, conversation_id, turn_no, body_sha, status, epoch, attempts, last_event, last_item,
                      cancel, input, created_at)
    select owner_id, gen_random_uuid(), :conversation, n, '', 'done', 1, 1, 1, 1, false, '{}', now() from who""")


@pytest.mark.parametrize(
    ("statement", "owners", "says"),
    [
        (
            "insert into turn (owner_id) values ($1) on conflict (id) do update set beat = now() returning id",
            1,
            "do update",
        ),
        (
            "insert into turn (owner_id) values ($1) on conflict (id) do update set at = greatest(turn.at, excluded.at)",
            1,
            None,
        ),
        (
            "with a as (insert into corpus (owner_id) values ($1) on conflict (owner_id) do update set n = excluded.n) "
            "insert into term (owner_id) values ($1)",
            1,
            None,
        ),
        ("select 1 from unnest($1) w left join turn t on t.owner_id = w.owner_id", 1, "left join"),
        ("select 1 from turn where owner_id = any($1)", 2, "several owners"),
        ("select 1 from turn where owner_id = $1", 1, None),
        ("select 1 from rate where key = any($1)", 2, None),
    ],
)
def test_the_lint_of_statements_finds_what_is_not_taken(statement: str, owners: int, says: str | None) -> None:
    found = unfit(statement, owners)
    assert found is None if says is None else says in str(found)
