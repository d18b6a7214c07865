"""Orders: what they may become, who was faster, and what they do to the stock."""

import asyncio
from typing import Any

import pytest

from agent_server import Conflict, InvalidInput, NotFound
from agent_server.testing import AgentServer
from tests.tools.retail.shop import add_product, draft, ledger, staff
from tools.retail.orders import THEN

STEPS = {
    "placed": "place_order",
    "paid": "mark_order_paid",
    "shipped": "ship_order",
    "delivered": "mark_order_delivered",
    "cancelled": "cancel_order",
    "returned": "return_order",
}
WAYS: dict[str, list[str]] = {
    "draft": [],
    "placed": ["placed"],
    "paid": ["placed", "paid"],
    "shipped": ["placed", "paid", "shipped"],
    "delivered": ["placed", "paid", "shipped", "delivered"],
    "cancelled": ["cancelled"],
    "returned": ["placed", "paid", "shipped", "returned"],
}


async def test_an_order_takes_the_steps_that_there_are_and_no_others(agent_server: AgentServer) -> None:
    clerk = staff(agent_server)
    await clerk.call("add_customer", name="Anna")
    await add_product(clerk, "CUP", 1000)

    async def order_that_is(status: str) -> int:
        number = await draft(clerk, "Anna", CUP=2)
        for step in WAYS[status]:
            await clerk.call(STEPS[step], order=number)
        return number

    for status, then in THEN.items():
        number = await order_that_is(status)
        before = await clerk.call("get_order", order=number)
        for to in STEPS.keys() - then:
            with pytest.raises(Conflict, match=f"is {status}"):
                await clerk.call(STEPS[to], order=number)
        assert await clerk.call("get_order", order=number) == before
        for to in then:
            assert (await clerk.call(STEPS[to], order=await order_that_is(status)))["status"] == to
    product = await clerk.call("get_product", product="CUP")
    waiting = [o for o in await _all(clerk) if o["status"] in ("placed", "paid")]
    assert product["reserved"] == 2 * len(waiting)
    assert product["on_hand"] == sum(quantity for _, quantity in await ledger(clerk, "CUP"))


async def _all(clerk: Any) -> list[dict[str, Any]]:
    orders, cursor = [], None
    while True:
        page = await clerk.call("list_orders", limit=20, **({"cursor": cursor} if cursor else {}))
        orders += page["items"]
        if (cursor := page["next_cursor"]) is None:
            return orders


async def test_of_two_clerks_who_change_an_order_the_second_is_told_what_the_first_did(
    agent_server: AgentServer,
) -> None:
    anna, ben = staff(agent_server), staff(agent_server)
    await anna.call("add_customer", name="Carol")
    number = await draft(anna, "Carol", MUG_01=1)
    read = (await anna.call("get_order", order=number))["version"]
    await anna.call("set_order_line", order=number, product="MUG-01", quantity=3, version=read)
    await anna.call("update_order", order=number, ship_to="2 New Street", version=read + 1)
    with pytest.raises(Conflict) as refused:
        await ben.call("update_order", order=number, note="Ring twice", version=read)
    assert "MUG-01 1 -> 3" in refused.value.message
    assert "'2 New Street'" in refused.value.message
    assert f"give version {read + 2}" in refused.value.message
    after = await ben.call("update_order", order=number, note="Ring twice", version=read + 2)
    assert (after["lines"][0]["quantity"], after["ship_to"], after["note"]) == (3, "2 New Street", "Ring twice")
    # At the same instant one of them is first.
    both = [clerk.call("update_order", order=number, note="x", version=after["version"]) for clerk in (anna, ben)]
    outcomes = await asyncio.gather(*both, return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Conflict", "dict"]
    with pytest.raises(Conflict, match="never had a later one"):
        await ben.call("place_order", order=number, version=99)


async def test_lines_are_changed_in_a_draft_at_the_price_of_the_day(agent_server: AgentServer) -> None:
    clerk = staff(agent_server)
    await clerk.call("add_customer", name="Anna")
    await add_product(clerk, "CUP", 5, price_minor=999, tax_rate_bp=700)
    await add_product(clerk, "PAN", 5, currency="CHF")
    number = await draft(clerk, "Anna", CUP=3)
    await clerk.call("update_product", product="CUP", price_minor=1500)
    assert (await clerk.call("get_order", order=number))["net_minor"] == 2997
    changed = await clerk.call("set_order_line", order=number, product="Product CUP", quantity=3, discount_minor=500)
    assert (changed["net_minor"], changed["tax_minor"], changed["total"]) == (4000, 280, "42.80 EUR")
    for wrong, why, error in (
        ({"product": "PAN", "quantity": 1}, "CHF", Conflict),
        ({"product": "CUP", "quantity": 1, "discount_minor": 1501}, "15.00 EUR", InvalidInput),
        ({"product": "MUG-01", "quantity": 0}, "not in order", InvalidInput),
        ({"product": "no such", "quantity": 1}, "no product", NotFound),
    ):
        with pytest.raises(error, match=why):
            await clerk.call("set_order_line", order=number, **wrong)
    assert (await clerk.call("set_order_line", order=number, product="CUP", quantity=0))["lines"] == []
    with pytest.raises(Conflict, match="is empty"):
        await clerk.call("place_order", order=number)


async def test_a_part_comes_back_and_what_is_damaged_does_not_go_into_the_stock(agent_server: AgentServer) -> None:
    clerk = staff(agent_server)
    await clerk.call("add_customer", name="Anna")
    await add_product(clerk, "CUP", 10)
    number = await draft(clerk, "Anna", CUP=4)
    for tool in ("place_order", "mark_order_paid", "ship_order"):
        await clerk.call(tool, order=number)
    one = [{"product": "CUP", "quantity": 1}]
    assert (await clerk.call("return_order", order=number, items=one))["status"] == "shipped"
    assert (await clerk.call("return_order", order=number, items=one, damaged=True))["lines"][0]["returned"] == 2
    with pytest.raises(InvalidInput, match="at most 2"):
        await clerk.call("return_order", order=number, items=[{"product": "CUP", "quantity": 3}])
    assert (await clerk.call("return_order", order=number))["status"] == "returned"
    assert (await clerk.call("get_product", product="CUP"))["on_hand"] == 9
    moves = [("receipt", 10), ("sale", -4), ("return", 1), ("return", 1), ("adjustment", -1), ("return", 2)]
    assert await ledger(clerk, "CUP") == moves


async def test_what_is_deleted_is_gone_from_lists_and_can_be_restored(agent_server: AgentServer) -> None:
    clerk = staff(agent_server)
    await clerk.call("add_customer", name="Anna", email="Anna@Example.org")
    number = await draft(clerk, "Anna", MUG_01=1)
    await clerk.call("delete_customer", customer="anna@example.org")
    assert (await clerk.call("list_customers"))["items"] == []
    with pytest.raises(NotFound):
        await clerk.call("create_order", customer="Anna")
    # Her order goes on, and its invoice has her name.
    await clerk.call("place_order", order=number)
    assert (await clerk.call("issue_invoice", order=number))["customer_name"] == "Anna"
    with pytest.raises(Conflict, match="reserved for orders"):
        await clerk.call("delete_product", product="MUG-01")
    await clerk.call("delete_product", product="MUG-02")
    with pytest.raises(Conflict, match="MUG-02 already"):
        await add_product(clerk, "MUG-02", 0)
    with pytest.raises(NotFound):
        await clerk.call("receive_stock", product="MUG-02", quantity=1)
    await clerk.call("restore_product", product="MUG-02")
    await clerk.call("receive_stock", product="MUG-02", quantity=1)
    await clerk.call("restore_customer", customer="Anna")
    assert [c["name"] for c in (await clerk.call("list_customers", text="example"))["items"]] == ["Anna"]
