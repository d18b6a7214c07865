"""All that a caller owns, across every table: exported, erased, handed over."""

import contextlib
import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from sqlmodel import SQLModel

from agent_server.db import DERIVED, OWN_DATA, Database, new_id
from agent_server.db.isolation import row_policy_of
from agent_server.errors import Conflict
from agent_server.identity.own_data import erase_rows, export_rows, move_rows
from tests.conftest import everything, fetch
from tests.rows import insert_row_of_everything, owned_tables

pytestmark = pytest.mark.names_no_owner

ALICE, BOB = new_id(), new_id()
KEPT = {"audit", "invoice", "stock_movement"}
ENDED = {"login", "refresh_token", "api_key"}
"""Credentials: a guest has none of these, and what it has is not for the user to go on with."""


@pytest.fixture
async def filled(database: Database) -> Database:
    for owner, said in ((ALICE, "canary-of-alice"), (BOB, "canary-of-bob")):
        async with everything(database) as session:
            await insert_row_of_everything(session, owner, said)
            await session.execute(text("update turn set status = 'done'"))
    return database


async def _owners(database: Database) -> dict[str, list[UUID]]:
    found = {}
    async with everything(database) as session:
        for table in owned_tables():
            policy = row_policy_of(table)
            assert policy is not None
            found[table.name] = sorted((await session.execute(select(table.c[policy.column]))).scalars())
    return found


async def _mentions(database: Database, needle: str) -> Sequence[str]:
    """The tables in which any column of any row holds `needle`."""
    names = await fetch(database.url, "select tablename from pg_tables where schemaname = 'public'")
    found = []
    for (name,) in names:
        rows = await fetch(database.url, f'select t::text from "{name}" t')
        if any(needle in row or needle.encode().hex() in row for (row,) in rows):
            found.append(name)
    return found


async def test_an_erased_callers_rows_are_gone_from_every_table_and_everybody_elses_are_there(
    filled: Database,
) -> None:
    # a table of ids and times alone has no room for what was said
    assert set(await _mentions(filled, "canary-of-alice")) == {table.name for table in owned_tables()} - {"sent_lead"}
    before = await _owners(filled)
    async with filled.transaction(ALICE, scopes=[OWN_DATA]) as session:
        await erase_rows(session, ALICE)
    after = await _owners(filled)
    assert {name for name, owners in after.items() if ALICE in owners} == KEPT
    assert all(owners.count(BOB) == before[name].count(BOB) for name, owners in after.items())
    assert set(await _mentions(filled, "canary-of-alice")) == KEPT  # which has the made-up names of this test only
    assert set(await _mentions(filled, str(ALICE))) == KEPT


async def test_an_export_has_all_of_the_caller_nothing_of_others_and_no_secret(filled: Database) -> None:
    exported: dict[str, list[dict[str, Any]]] = {}
    async for name, rows in export_rows(filled, ALICE):
        exported.setdefault(name, []).extend(dict(row) for row in rows)
    given = {table.name for table in owned_tables() if not DERIVED.items() <= table.info.items()}
    assert {name for name, rows in exported.items() if len(rows) == 1} == given
    said = json.dumps(exported, default=str)
    assert "canary-of-bob" not in said
    assert str(BOB) not in said
    columns = {column for rows in exported.values() for row in rows for column in row}
    assert columns.isdisjoint({"password_hash", "secret_sha", "body_sha", "args_sha", "request_sha"})


async def test_what_a_guest_has_is_a_users_with_all_that_hangs_on_it(filled: Database) -> None:
    before = await _owners(filled)
    async with everything(filled) as session:
        await session.execute(text("delete from profile where owner_id = :bob"), {"bob": BOB})
        await session.execute(text("insert into profile values (:b, :j)"), {"b": BOB, "j": '{"said": "my own"}'})
        await session.execute(
            text("update profile set body = body || '{\"more\": 1}' where owner_id = :a"), {"a": ALICE}
        )
    async with filled.transaction(ALICE, BOB, scopes=[OWN_DATA]) as session:
        await move_rows(session, ALICE, BOB)
    after = await _owners(filled)
    stay = {"account", "guest", *KEPT}
    assert {name for name, owners in after.items() if ALICE in owners} == stay
    moved = SQLModel.metadata.tables.keys() & after.keys() - stay - {"profile", *ENDED}
    assert all(after[name].count(BOB) == len(before[name]) for name in moved)
    assert after["guest"] == sorted([ALICE, BOB])
    assert await fetch(filled.url, "select body from profile") == [('{"more": 1, "said": "my own"}',)]


async def test_nothing_is_handed_over_without_both_callers_in_the_transaction(filled: Database) -> None:
    before = await _owners(filled)
    for owners in ((ALICE,), (BOB,), ()):
        with contextlib.suppress(DBAPIError):  # refused, or nothing was there to be handed over
            async with filled.transaction(*owners, scopes=[OWN_DATA]) as session:
                await move_rows(session, ALICE, BOB)
    assert await _owners(filled) == before


async def test_a_guest_who_is_being_answered_is_not_handed_over(filled: Database) -> None:
    async with everything(filled) as session:
        await session.execute(text("update turn set status = 'running' where owner_id = :a"), {"a": ALICE})
    before = await _owners(filled)
    with pytest.raises(Conflict, match="still being answered"):
        async with filled.transaction(ALICE, BOB, scopes=[OWN_DATA]) as session:
            await move_rows(session, ALICE, BOB)
    assert await _owners(filled) == before
