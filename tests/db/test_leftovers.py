"""Tables of tools that are gone are named, counted, and dropped or guarded on request."""

import json
from typing import Any

import pytest

from agent_server.db import Database, new_id
from agent_server.db.leftovers import Leftover, drop_leftovers, find_leftovers, guard_leftovers, list_leftovers
from agent_server.errors import InvalidInput
from tests.commands import agent_server
from tests.conftest import ROOT, execute, fetch

MAKE = (
    'create table "old Books" (owner_id uuid, id uuid primary key, title text)',
    'create table old_page (owner_id uuid, book uuid references "old Books")',
    f"insert into \"old Books\" values ('{new_id()}', '{new_id()}', 'a'), ('{new_id()}', '{new_id()}', 'b')",
    # Somebody else's, in the same schema.
    'create table "user" (id text primary key)',
)
BOTH = [Leftover("old Books", 2, False), Leftover("old_page", 0, False)]


async def test_ours_are_found_with_their_rows_and_those_of_others_are_left_in_peace(
    database: Database, url: str
) -> None:
    assert await find_leftovers(database) == []
    await execute(url, *MAKE)
    assert await find_leftovers(database) == BOTH
    assert await list_leftovers(database) == ["old Books", "old_page"]
    assert await find_leftovers(database) == BOTH  # to look changes nothing


async def test_one_that_is_guarded_keeps_its_rows_and_callers_apart(database: Database, url: str) -> None:
    await execute(url, *MAKE)
    with pytest.raises(InvalidInput, match=r"old_page have no row-level security.*agent-server db leftovers"):
        await database.check_isolation(login_too=False)
    await guard_leftovers(database, ["old Books", "old_page"])
    await database.check_isolation(login_too=False)
    assert await find_leftovers(database) == [Leftover("old Books", 2, True), Leftover("old_page", 0, True)]
    async with database.transaction() as session:
        rows = await (await session.connection()).exec_driver_sql('select * from "old Books"')
        assert rows.all() == []


async def test_what_something_else_depends_on_or_is_no_leftover_is_not_dropped(database: Database, url: str) -> None:
    await execute(url, *MAKE)
    with pytest.raises(InvalidInput, match="something else depends on it"):
        await drop_leftovers(database, ["old Books"])
    for name in ("user", "turn", "nowhere", 'old Books"; drop table "user'):
        for change in (drop_leftovers, guard_leftovers):
            with pytest.raises(InvalidInput, match="not left over; what is: old Books, old_page"):
                await change(database, [name])
    assert await find_leftovers(database) == BOTH
    await drop_leftovers(database, ["old Books", "old_page"])
    assert await find_leftovers(database) == []
    assert await fetch(url, "select relname from pg_class where relname in ('user', 'turn') order by 1") == [
        ("turn",),
        ("user",),
    ]


async def test_the_command_asks_before_rows_are_lost(url: str) -> None:
    def run(*arguments: str) -> Any:
        done = agent_server("db", *arguments, cwd=ROOT, DATABASE_URL=url, AGENT_SERVER_MODEL="offline")
        return done.returncode, done.stdout, done.stderr

    await execute(url, *MAKE)
    code, out, _ = run("check")
    assert "Left over of tools that are gone: old Books, old_page" in out
    code, out, _ = run("leftovers", "--json")
    assert code == 0
    assert json.loads(out)[0] == {"table": "old Books", "rows": 2, "guarded": False}
    code, _, told = run("leftovers", "--drop", "old Books", "--drop", "old_page")
    assert code == 2
    assert "old Books with 2 rows, old_page with 0 rows would be lost for good; without a terminal" in told
    code, out, _ = run("leftovers", "--drop", "old Books", "--drop", "old_page", "--yes")
    assert code == 0
    assert out == "Dropped old Books with 2 rows, old_page with 0 rows\nNothing is left over\n"
    code, _, told = run("leftovers", "--drop", "turn", "--yes")
    assert (code, told) == (1, "invalid_input: turn: not left over; what is: nothing\n")
