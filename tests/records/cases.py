"""Deleted rows come back, old versions are refused in words, the audit is true, and staff see what a scope opens.

Run by test_records.py in a process of its own, which has the tables of shop.py.
"""

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select, update

from agent_server import Caller, Conflict, Forbidden, InvalidInput, NotFound, Page
from agent_server.db import Database, new_id, now
from agent_server.db.tables import find_missing_tables, make_tables
from agent_server.housekeeping import purge_deleted
from tests.conftest import everything
from tests.records.shop import (
    READ,
    WRITE,
    Order,
    OrderRepository,
    Plain,
    PlainRepository,
    Receipt,
    ReceiptRepository,
)

ANN, BEN = (Caller(id=new_id(), kind="user", scopes=frozenset({"orders:own"})) for _ in range(2))
CLERK = Caller(id=new_id(), kind="user", scopes=frozenset({READ, WRITE}))
AUDITOR = Caller(id=new_id(), kind="user", scopes=frozenset({READ}))


@pytest.fixture
async def shop(database: Database) -> Database:
    await make_tables(database, await find_missing_tables(database))
    return database


async def add(shop: Database, caller: Caller, code: str = "A-1", **values: Any) -> UUID:
    async with shop.transaction(caller.id, scopes=caller.scopes) as session:
        return (await OrderRepository(session, caller).add(Order(code=code, **values))).id


async def change(shop: Database, caller: Caller, id: UUID, version: int | None = None, **values: Any) -> Order:
    async with shop.transaction(caller.id, scopes=caller.scopes) as session:
        return await OrderRepository(session, caller).change(id, values, version=version)


async def remove(shop: Database, caller: Caller, id: UUID) -> None:
    async with shop.transaction(caller.id, scopes=caller.scopes) as session:
        orders = OrderRepository(session, caller)
        await orders.remove(await orders.get(id, lock=True))


async def restore(shop: Database, caller: Caller, id: UUID) -> Order:
    async with shop.transaction(caller.id, scopes=caller.scopes) as session:
        return await OrderRepository(session, caller).restore(id)


async def seen(shop: Database, caller: Caller) -> list[str]:
    """The codes that a caller gets, which are the same by pages, by the count and one at a time."""
    async with shop.transaction(caller.id, scopes=caller.scopes) as session:
        orders = OrderRepository(session, caller)
        found: list[Order] = []
        cursor = None
        while True:
            page: Page[Order] = await orders.page(1, cursor)
            found += page.items
            if (cursor := page.next_cursor) is None:
                break
        assert await orders.count_rows() == len(found)
        assert [await orders.get(row.id) for row in found] == found
        return sorted(row.code for row in found)


async def test_what_is_deleted_is_nowhere_until_it_is_restored(shop: Database) -> None:
    kept, gone = await add(shop, ANN, "kept"), await add(shop, ANN, "gone")
    await remove(shop, ANN, gone)
    assert await seen(shop, ANN) == ["kept"]
    for act in (change(shop, ANN, gone, note="x"), remove(shop, ANN, gone), restore(shop, ANN, kept)):
        with pytest.raises(NotFound):
            await act
    for stranger in (BEN, AUDITOR):
        with pytest.raises(NotFound, match="no deleted order"):
            await restore(shop, stranger, gone)
    assert (await restore(shop, ANN, gone)).deleted_at is None
    assert await seen(shop, ANN) == ["gone", "kept"]


async def test_a_row_whose_place_was_taken_is_not_restored_and_nothing_else_is_lost(shop: Database) -> None:
    gone = await add(shop, ANN, "A-1")
    await remove(shop, ANN, gone)
    await add(shop, ANN, "A-1")
    with pytest.raises(Conflict, match=f"Another order has taken the place of {gone}"):
        await restore(shop, ANN, gone)
    assert await seen(shop, ANN) == ["A-1"]


async def test_rows_whose_time_is_over_are_purged_but_for_those_that_others_refer_to(shop: Database) -> None:
    ids = [await add(shop, ANN, code) for code in ("old", "new", "billed", "there")]
    async with shop.transaction(ANN.id) as session:
        await ReceiptRepository(session, ANN).add(Receipt(order_id=ids[2]))
    for id in ids[:3]:
        await remove(shop, ANN, id)
    assert await purge_deleted(shop, 30) == 0
    async with everything(shop) as session:
        old = update(Order).where(Order.id.in_([ids[0], ids[2]]))  # type: ignore[attr-defined]
        await session.execute(old.values(deleted_at=now() - timedelta(days=31)))
    assert await purge_deleted(shop, 30) == 1
    async with everything(shop) as session:
        left = (await session.execute(select(Order.id))).scalars().all()  # type: ignore[call-overload]
    assert sorted(left) == sorted(ids[1:])
    # The scope that finds them opens nothing that is not deleted, and is not part of `*`.
    for scopes, number in ((("deleted:purge",), 2), ((READ,), 3), (("deleted:*",), 0), ((), 0)):
        async with shop.transaction(BEN.id, scopes=scopes) as session:
            counted = select(func.count(Order.owner_id))  # type: ignore[arg-type]
            assert (await session.execute(counted)).scalar_one() == number


async def test_an_old_version_is_refused_with_what_changed_since_by_whom_and_when(shop: Database) -> None:
    id = await add(shop, ANN, note="first", total=Decimal("9.90"))
    assert (await change(shop, ANN, id, 1, note="second")).version == 2
    await change(shop, CLERK, id, 2, note="third", total=Decimal("12.50"))
    await change(shop, CLERK, id, code="B-1")
    last = await change(shop, CLERK, id, code="A-1")
    when = r"at \d{4}-\d\d-\d\dT\d\d:\d\d UTC"
    with pytest.raises(Conflict) as refused:
        await change(shop, ANN, id, 1, note="mine")
    assert refused.match(
        "The order has changed since version 1 and is at version 5 now; look whether your change still fits and send it "
        rf'again with version 5. What changed: note from "first" to "third", by {CLERK.id} {when}; '
        rf'total from "9.90" to "12.50", by {CLERK.id} {when}$'
    )
    own = await add(shop, ANN, "own", note="first")
    await change(shop, ANN, own, note="second")
    with pytest.raises(Conflict, match=rf'What changed: note from "first" to "second", by you {when}$'):
        await change(shop, ANN, own, 1, note="mine")
    with pytest.raises(InvalidInput, match="there is no version 6; the order is at version 5"):
        await change(shop, ANN, id, 6, note="mine")
    assert (last.created_by, last.updated_by) == (ANN.id, CLERK.id)
    for n in range(25):
        await change(shop, ANN, id, note=str(n) * 300)
    with pytest.raises(Conflict, match=r"\(changes before these are not kept\)$"):
        await change(shop, ANN, id, 1, note="mine")
    async with shop.transaction(ANN.id) as session:
        plains = PlainRepository(session, ANN)
        plain = await plains.add(Plain(title="a"))
        await plains.change(plain.id, {"title": "b"})
        with pytest.raises(Conflict, match=r'What changed: title from "a" to "b"$'):
            await plains.change(plain.id, {"title": "c"}, version=1)


async def test_of_two_who_change_a_row_at_once_without_a_lock_one_is_refused(shop: Database) -> None:
    id, both_read = await add(shop, ANN), asyncio.Barrier(2)

    async def write(note: str) -> None:
        async with shop.transaction(ANN.id) as session:
            row = await OrderRepository(session, ANN).get(id)
            await both_read.wait()
            row.note = note

    outcomes = await asyncio.gather(write("one"), write("two"), return_exceptions=True)
    (lost,) = (outcome for outcome in outcomes if outcome is not None)
    assert isinstance(lost, Conflict)
    assert "no longer as it was read" in lost.message


async def test_a_lock_shows_the_row_as_it_is_and_not_as_it_was_read_before(shop: Database) -> None:
    id = await add(shop, ANN)
    async with shop.transaction(ANN.id) as session:
        orders = OrderRepository(session, ANN)
        assert (await orders.get(id)).version == 1
        await change(shop, ANN, id, note="meanwhile")
        with pytest.raises(Conflict, match="meanwhile"):
            await orders.change(id, {"note": "mine"}, version=1)


@pytest.mark.parametrize("column", ["created_by", "updated_at", "version", "changes"])
async def test_what_the_repository_keeps_is_set_by_nobody_else(shop: Database, column: str) -> None:
    id = await add(shop, ANN, created_by=BEN.id, version=7)
    value = {"created_by": BEN.id, "updated_at": now(), "version": 9, "changes": [{}]}[column]
    with pytest.raises(ValueError, match=f"{column}: the repository sets this"):
        async with shop.transaction(ANN.id) as session:
            await OrderRepository(session, ANN).change(id, {column: value})
    row = await change(shop, ANN, id, note="x")
    assert (row.version, row.created_by, row.updated_by) == (2, ANN.id, ANN.id)
    async with shop.transaction(ANN.id) as session:
        OrderRepository(session, ANN)
        with pytest.raises(ValueError, match="begin a transaction for each"):
            OrderRepository(session, BEN)


async def test_staff_reach_all_rows_by_a_scope_and_a_customer_only_its_own(shop: Database) -> None:
    mine, theirs = await add(shop, ANN, "ann"), await add(shop, BEN, "ben")
    all_ = ["ann", "ben"]
    assert [await seen(shop, who) for who in (ANN, BEN, AUDITOR, CLERK)] == [["ann"], ["ben"], all_, all_]
    for stranger, id in ((ANN, theirs), (BEN, mine), (AUDITOR, mine)):
        for act in (change(shop, stranger, id, note="x"), remove(shop, stranger, id)):
            with pytest.raises(NotFound, match=f"There is no order {id}"):
                await act
    assert (await change(shop, CLERK, mine, note="by the clerk")).owner_id == ANN.id
    async with shop.transaction(CLERK.id, scopes=CLERK.scopes) as session:
        row = await OrderRepository(session, CLERK).add(Order(code="by phone"), owner=ANN.id)
        assert (row.owner_id, row.created_by) == (ANN.id, CLERK.id)
    for customer in (ANN, AUDITOR):
        with pytest.raises(Forbidden, match="Only staff may add this for somebody else") as refused:
            async with shop.transaction(customer.id, scopes=customer.scopes) as session:
                await OrderRepository(session, customer).add(Order(code="forged"), owner=BEN.id)
        assert refused.value.scope == WRITE
    # A reader who sets a field of a row that it may only read changes nothing.
    with pytest.raises(Conflict, match="not yours to change"):
        async with shop.transaction(AUDITOR.id, scopes=AUDITOR.scopes) as session:
            (await OrderRepository(session, AUDITOR).get(mine)).note = "x"
    assert await seen(shop, ANN) == ["ann", "by phone"]


class Unfiltered(OrderRepository):
    """The wall of the repository is down."""

    def _supervises(self, *, to_write: bool = False) -> bool:
        return True


async def test_the_database_alone_keeps_rows_to_their_owner_and_to_holders_of_the_scope(shop: Database) -> None:
    mine, theirs = await add(shop, ANN, "ann"), await add(shop, BEN, "ben")
    for caller, found in ((ANN, ["ann"]), (AUDITOR, ["ann", "ben"]), (CLERK, ["ann", "ben"])):
        async with shop.transaction(caller.id, scopes=caller.scopes) as session:
            assert sorted(row.code for row in (await Unfiltered(session, caller).page(9)).items) == found
    for stranger, id in ((ANN, theirs), (AUDITOR, mine)):
        async with shop.transaction(stranger.id, scopes=stranger.scopes) as session:
            assert await Unfiltered(session, stranger).find(id, lock=True) is None


async def test_the_repository_alone_keeps_rows_to_their_owner_and_to_holders_of_the_scope(shop: Database) -> None:
    await add(shop, ANN, "ann")
    await add(shop, BEN, "ben")
    for caller, found in ((ANN, ["ann"]), (AUDITOR, ["ann", "ben"])):
        async with everything(shop) as session:  # the wall of the database is down
            assert sorted(row.code for row in (await OrderRepository(session, caller).page(9)).items) == found


@dataclass
class Kept:
    """What a row is to be, as the test counts it."""

    owner: Caller
    note: str
    version: int
    changed_by: UUID
    changed_at: datetime
    is_deleted: bool = False


@dataclass
class Story:
    rows: dict[UUID, Kept] = field(default_factory=dict)


Act = tuple[str, int, int, int]
EDITS = ("edit", "edit stale")
ACTS = st.tuples(st.sampled_from(["add", *EDITS, "delete", "restore"]), *[st.integers(0, 3)] * 3)


@given(acts=st.lists(ACTS, min_size=1, max_size=14))
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
async def test_whatever_two_callers_and_staff_do_nobody_sees_more_and_versions_and_audit_are_true(
    shop: Database, acts: list[Act]
) -> None:
    callers = [Caller(id=new_id(), kind="user", scopes=frozenset({"orders:own"})) for _ in range(2)]
    callers.append(Caller(id=new_id(), kind="user", scopes=frozenset({READ, WRITE})))
    story = Story()
    for n, act in enumerate(acts):
        await _act(shop, story, callers, n, act)
    for caller in callers:
        await _compare(shop, story, caller)


async def _act(shop: Database, story: Story, callers: list[Caller], n: int, act: Act) -> None:
    what, who, which, _ = act
    caller = callers[who % 3]
    if what == "add" or not story.rows:
        id = await add(shop, caller, f"code {n}", note=str(n))
        story.rows[id] = Kept(caller, str(n), 1, caller.id, now())
        return
    id = list(story.rows)[which % len(story.rows)]
    row = story.rows[id]
    may = caller.may(WRITE) or caller == row.owner
    there = may and row.is_deleted == (what == "restore")
    stale = what == "edit stale" and row.version > 1
    if not there:
        with pytest.raises(NotFound):
            await _do(shop, caller, id, act, row, n)
    elif stale:
        with pytest.raises(Conflict, match=f"at version {row.version} now.*(by {_name(row, caller)} at|nothing that)"):
            await _do(shop, caller, id, act, row, n)
    else:
        await _do(shop, caller, id, act, row, n)
        row.note = f"{n} changed" if what in EDITS else row.note
        row.is_deleted = what == "delete"
        row.version, row.changed_by, row.changed_at = row.version + 1, caller.id, now()


async def _do(shop: Database, caller: Caller, id: UUID, act: Act, row: Kept, n: int) -> None:
    what, _, _, back = act
    match what:
        case "delete":
            await remove(shop, caller, id)
        case "restore":
            await restore(shop, caller, id)
        case _:
            is_old = what == "edit stale" and row.version > 1
            version = max(1, row.version - 1 - back) if is_old else row.version
            await change(shop, caller, id, version, note=f"{n} changed")


def _name(row: Kept, caller: Caller) -> str:
    return "you" if row.changed_by == caller.id else str(row.changed_by)


async def _compare(shop: Database, story: Story, caller: Caller) -> None:
    """A caller sees what is its own, staff all, and each row is what was done to it."""
    async with shop.transaction(caller.id, scopes=caller.scopes) as session:
        orders = OrderRepository(session, caller)
        found = {row.id: row for row in (await orders.page(100)).items}
        deleted = {row.id for row in (await session.execute(orders.deleted())).scalars()}
    mine = {id for id, row in story.rows.items() if row.owner == caller or caller.may(READ)}
    if not caller.may(READ):  # whose rows are all of the database, of other stories, too
        assert found.keys() | deleted == mine
    assert {id for id in mine if story.rows[id].is_deleted} == deleted & mine
    for id in mine - deleted:
        row, kept = found[id], story.rows[id]
        assert (row.note, row.version, row.owner_id) == (kept.note, kept.version, kept.owner.id)
        assert (row.created_by, row.updated_by) == (kept.owner.id, kept.changed_by)
        assert row.created_at <= row.updated_at <= kept.changed_at
        assert [made["version"] for made in row.changes] == list(range(2, kept.version + 1))
