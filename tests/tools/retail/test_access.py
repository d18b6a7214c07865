"""Whose orders a caller sees: a customer their own, staff all, anybody else none."""

from uuid import UUID

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.exc import DBAPIError
from sqlmodel import SQLModel

from agent_server import Forbidden, NotFound, new_id
from agent_server.testing import AgentCaller, AgentServer
from tests.tools.retail.shop import CUSTOMER, STAFF, draft, staff

OF_CUSTOMERS = ("customer", "customer_order", "order_line", "order_event", "invoice")
OF_THE_SHOP = ("product", "stock_movement", "number_series")
OWN = {"list_my_orders", "get_my_order", "list_my_invoices", "get_my_invoice"}
SCOPES = {"stock", "orders", "customers", "invoices", "purchases"}


async def _buy(clerk: AgentCaller, name: str, account: UUID | None = None) -> tuple[int, str]:
    """An order that has an invoice, of a new customer: the numbers of both."""
    given = {"account_id": str(account)} if account else {}
    await clerk.call("add_customer", name=name, address=f"1 {name} Street", **given)
    number = await draft(clerk, name, MUG_01=1)
    await clerk.call("place_order", order=number)
    return number, (await clerk.call("issue_invoice", order=number))["name"]


async def test_a_customer_sees_their_own_orders_and_no_other(agent_server: AgentServer) -> None:
    clerk, alice, bob = staff(agent_server), agent_server.as_caller(*CUSTOMER), agent_server.as_caller(*CUSTOMER)
    hers, her_invoice = await _buy(clerk, "Alice", alice.id)
    his, his_invoice = await _buy(clerk, "Bob", bob.id)
    nobodys, _ = await _buy(clerk, "Carol")
    for caller, number, invoice, others in ((alice, hers, her_invoice, his), (bob, his, his_invoice, hers)):
        assert [order["number"] for order in (await caller.call("list_my_orders"))["items"]] == [number]
        assert [paper["name"] for paper in (await caller.call("list_my_invoices"))["items"]] == [invoice]
        assert (await caller.call("get_my_order", order=number))["lines"][0]["sku"] == "MUG-01"
        for missing in (others, nobodys, 999_999):
            with pytest.raises(NotFound, match=f"no order {missing}"):
                await caller.call("get_my_order", order=missing)
    assert her_invoice in (await alice.call("get_my_invoice", invoice=her_invoice))["uri"]
    with pytest.raises(NotFound, match="no invoice"):
        await alice.call("get_my_invoice", invoice=his_invoice)
    # Staff who buy nothing have no orders of their own, and see everybody's.
    assert (await agent_server.as_caller("*").call("list_my_orders"))["items"] == []
    assert {order["number"] for order in (await clerk.call("list_orders"))["items"]} == {hers, his, nobodys}


async def test_every_tool_of_the_shop_is_refused_to_who_lacks_its_scope(agent_server: AgentServer) -> None:
    tools = [tool for tool in agent_server.workspace.tools.values() if tool.scope.partition(":")[0] in SCOPES]
    assert {tool.name for tool in tools if not tool.staff} == OWN
    assert len(tools) > 30
    roles = agent_server.server.resolver.roles.scopes
    for tool in tools:
        # Nobody is staff by default: neither users nor guests.
        assert (tool.scope in roles["user"]) == (not tool.staff), tool.name
        assert tool.scope in roles["staff"], tool.name
        others = [
            scope
            for scope in (*STAFF, *CUSTOMER, "knowledge:*")
            if scope.partition(":")[0] != tool.scope.partition(":")[0]
        ]
        for scopes in (others, ["nothing:read"], [f"{tool.scope.partition(':')[0]}:nothing"]):
            with pytest.raises(Forbidden, match=tool.scope):
                await agent_server.as_caller(*scopes).call(tool.name)


async def test_the_database_keeps_customers_apart_and_what_is_the_shops_from_all_of_them(
    agent_server: AgentServer,
) -> None:
    clerk, alice, bob = staff(agent_server), agent_server.as_caller(*CUSTOMER), agent_server.as_caller(*CUSTOMER)
    for name, account in (("Alice", alice.id), ("Bob", bob.id), ("Carol", None)):
        await _buy(clerk, name, account)
    database, tables = agent_server.database, SQLModel.metadata.tables
    for name in OF_CUSTOMERS:
        table = tables[name]
        async with database.transaction(alice.id, scopes=CUSTOMER) as session:
            assert set((await session.execute(select(table.c.owner_id))).scalars()) == {alice.id}, name
        async with database.transaction(clerk.id, scopes=STAFF) as session:
            assert (await session.execute(select(func.count(table.c.owner_id.distinct())))).scalar_one() == 3, name
        async with database.transaction(new_id(), scopes=("purchases:*", "tasks:*", "leads:read")) as session:
            assert (await session.execute(select(table))).all() == [], name
    for name in OF_THE_SHOP:
        async with database.transaction(alice.id, scopes=CUSTOMER) as session:
            assert (await session.execute(select(tables[name]))).all() == [], name
    async with database.transaction(bob.id, scopes=CUSTOMER) as session:
        order = tables["customer_order"]
        changed = await session.execute(
            update(order).values(note="mine").where(order.c.owner_id == alice.id).returning(order.c.id)
        )
        assert changed.all() == []


@pytest.mark.parametrize("table", ["invoice", "stock_movement"])
async def test_nobody_changes_an_invoice_or_the_ledger_not_even_who_may_do_everything(
    agent_server: AgentServer, table: str
) -> None:
    clerk = staff(agent_server)
    await _buy(clerk, "Alice")
    columns = SQLModel.metadata.tables[table]
    for statement in (update(columns).values(reason="another"), columns.delete()):
        with pytest.raises(DBAPIError, match="permission denied"):
            async with agent_server.database.transaction(clerk.id, scopes=("*",)) as session:
                await session.execute(statement)


async def test_a_clerk_without_a_scope_that_a_step_needs_is_told_which_and_nothing_happens(
    agent_server: AgentServer,
) -> None:
    clerk = staff(agent_server)
    await clerk.call("add_customer", name="Alice")
    number = await draft(clerk, "Alice", MUG_01=1)
    before = await clerk.call("get_order", order=number)
    with pytest.raises(Forbidden, match="stock:write"):
        await agent_server.as_caller("orders:*", "stock:read").call("place_order", order=number)
    with pytest.raises(Forbidden, match="customers:read"):
        await agent_server.as_caller("orders:*", "stock:*").call("create_order", customer="Alice")
    with pytest.raises(Forbidden, match="orders:write"):
        await agent_server.as_caller("invoices:*", "orders:read", "customers:read").call("issue_invoice", order=number)
    assert await clerk.call("get_order", order=number) == before
