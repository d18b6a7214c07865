"""A guest whose time is over leaves nothing in any table, whoever else is there at that moment."""

import asyncio
from collections.abc import Sequence
from uuid import UUID

import pytest
from sqlalchemy import text

from agent_server.db import SYSTEM, Database, new_id
from agent_server.housekeeping import AT_ONCE, expire_guests
from tests.conftest import everything, execute, fetch
from tests.identity.test_own_data import _mentions
from tests.rows import insert_row_of_everything, owned_tables
from tests.server import Client, Start
from tests.turns.ledger import until

pytestmark = pytest.mark.names_no_owner

GONE, PRESENT, USER = new_id(), new_id(), new_id()


async def _fill(database: Database, *owners: UUID, said: str = "canary") -> None:
    for owner in owners:
        async with everything(database) as session:
            await insert_row_of_everything(session, owner, f"{said}-{owner}")
            await session.execute(text("update turn set status = 'done', owner = null"))


async def _end(database: Database, *guests: UUID) -> None:
    ids = ",".join(f"'{guest}'" for guest in guests)
    await execute(
        database.url,
        "update guest set expires_at = now() + interval '1 day'",
        f"update guest set expires_at = now() - interval '3 days' where id in ({ids})",
    )


async def test_no_row_of_any_table_names_a_guest_whose_time_is_over_but_the_audit(database: Database) -> None:
    await _fill(database, GONE, PRESENT, USER)
    await _end(database, GONE)
    names = {table.name for table in owned_tables()}
    assert set(await _mentions(database, str(GONE))) == names
    assert await expire_guests(database) == 1
    assert set(await _mentions(database, str(GONE))) == {
        *("audit", "invoice", "stock_movement"),  # where nothing is ever removed
        "lead",  # the words of this test
    }
    for other in (PRESENT, USER):
        assert set(await _mentions(database, str(other))) == names
    owners = await fetch(database.url, "select owner_id, email from lead order by email")
    assert {owner for owner, email in owners if str(GONE) in email} == {SYSTEM}
    assert await expire_guests(database) == 0


async def test_what_a_guests_agents_stored_goes_and_what_was_handed_in_for_staff_is_read_by_staff(
    start: Start,
) -> None:
    """By the surfaces: the guest's tools, the hourly job, the staff's list."""
    async with start() as client:
        token, id = await _guest(client)
        guest = {"Authorization": f"Bearer {token}"}
        body = {"message": "add a task to buy canary", "stream": False}
        answered = await client.http.post("/api/chat", json=body, headers=guest)
        assert answered.status_code == 200, answered.text
        left = await client.http.post("/api/lead", json={"email": "ann@example.com"}, headers=guest)
        assert left.status_code == 200, left.text
        database = client.server.database
        url = database.url
        assert await fetch(url, f"select count(*) from task where owner_id = '{id}'") == [(1,)]
        changed = await fetch(url, "select updated_at from lead")
        await execute(url, f"update guest set expires_at = now() - interval '3 days' where id = '{id}'")
        assert await expire_guests(database) == 1
        assert set(await _mentions(database, id)) == {"audit"}
        assert set(await _mentions(database, "canary")) == set()
        assert await fetch(url, "select updated_at from lead") == changed
        listed = await client.http.post("/api/tools/list_leads", json={}, headers=client.auth)
        assert [lead["email"] for lead in listed.json()["items"]] == ["ann@example.com"], listed.text


async def _guest(client: Client) -> tuple[str, str]:
    made = (await client.http.post("/api/session")).json()
    return made["token"], made["id"]


async def test_many_guests_go_and_one_that_cannot_keeps_no_other_here(database: Database) -> None:
    """A row of another table refers to one guest's task, and not so that it would go with it."""
    guests = [new_id() for _ in range(AT_ONCE + 3)]
    await _fill(database, *guests)
    stuck = guests[1]
    await execute(
        database.url,
        "create table pin (owner_id uuid, task_id uuid, foreign key (owner_id, task_id) references task)",
        f"insert into pin select owner_id, id from task where owner_id = '{stuck}'",
    )
    await _end(database, *guests)
    assert await expire_guests(database) == len(guests) - 1
    assert await fetch(database.url, "select id from guest") == [(stuck,)]
    assert await fetch(database.url, "select distinct owner_id from conversation") == [
        (stuck,)
    ]  # all of it, or nothing
    await execute(database.url, "drop table pin")
    assert await expire_guests(database) == 1


@pytest.mark.parametrize(
    ("rule", "left"),
    [
        ("create unique index on lead (owner_id, source)", 1),
        (
            "alter table lead add foreign key (owner_id, conversation_id) references conversation on delete cascade",
            0,
        ),
    ],
    ids=["one like it", "hangs on another row"],
)
async def test_a_handed_in_row_that_cannot_stand_by_itself_goes_with_the_guest(
    database: Database, rule: str, left: int
) -> None:
    guests = [new_id() for _ in range(3)]
    await _fill(database, *guests)
    await execute(
        database.url,
        "update lead set source = 'page'",
        "update lead set conversation_id = (select id from conversation c where c.owner_id = lead.owner_id)",
        rule,
    )
    await _end(database, *guests)
    assert await expire_guests(database) == 3
    assert await fetch(database.url, "select owner_id from lead") == [(SYSTEM,)] * left
    assert await fetch(database.url, "select count(*) from guest") == [(0,)]


async def test_a_guest_who_is_being_taken_over_is_left_to_the_user(database: Database) -> None:
    await _fill(database, GONE)
    await _end(database, GONE)
    async with everything(database) as claim:
        await claim.execute(text("select 1 from guest where id = :id for update"), {"id": GONE})
        assert await expire_guests(database) == 0
    assert await expire_guests(database) == 1


async def test_replicas_that_look_at_the_same_time_remove_each_guest_once(database: Database) -> None:
    guests = [new_id() for _ in range(30)]
    await _fill(database, *guests)
    await _end(database, *guests)
    others = [Database(database.url) for _ in range(2)]
    removed: Sequence[int] = await asyncio.gather(*(expire_guests(each) for each in (database, *others)))
    assert sum(removed) + await expire_guests(database) == len(guests)
    assert await fetch(database.url, "select count(*) from task") == [(0,)]
    for other in others:
        await other.close()


async def test_a_tool_that_stores_while_its_guest_expires_leaves_nothing(database: Database) -> None:
    """A transaction of a running turn: it has the turn locked, and a row that nobody sees yet."""
    await _fill(database, GONE)
    await _end(database, GONE)
    async with everything(database) as tool:
        await tool.execute(text("update turn set epoch = epoch where owner_id = :id"), {"id": GONE})
        await tool.execute(
            text("""
                insert into task (owner_id, id, title, description, status, created_at, updated_at)
                values (:id, gen_random_uuid(), 'late', '', 'open', now(), now())"""),
            {"id": GONE},
        )
        expiring = asyncio.create_task(expire_guests(database))

        async def it_waits() -> bool:
            return bool(await fetch(database.url, "select 1 from pg_locks where not granted"))

        await until(it_waits)
    assert await expiring == 1
    assert await fetch(database.url, "select count(*) from task") == [(0,)]
