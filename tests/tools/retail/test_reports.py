"""What a shop sold, earned, has, needs and is owed, by its reports."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from agent_server import Forbidden, InvalidInput, now
from agent_server.testing import AgentCaller, AgentServer
from tests.tools.conftest import everything
from tests.tools.retail.shop import STAFF, add_product, draft, staff

REPORTS: dict[str, dict[str, Any]] = {
    "report_sales": {"since": "2026-01-01"},
    "report_stock_turnover": {},
    "report_low_stock": {},
    "report_receivables": {},
}
TODAY = now().date().isoformat()


async def sell(clerk: AgentCaller, customer: str, *, pay: bool = True, **items: int) -> int:
    """The number of an order that was placed and invoiced; if it is paid, also shipped."""
    number = await draft(clerk, customer, **items)
    await clerk.call("place_order", order=number)
    await clerk.call("issue_invoice", order=number)
    if pay:
        await clerk.call("mark_order_paid", order=number)
        await clerk.call("ship_order", order=number)
    return number


async def date_back(server: AgentServer, number: int, days: int) -> None:
    """Have an order have been shipped, and its invoice issued, so many days ago."""
    ago = now() - timedelta(days=days)
    async with everything(server.database) as session:
        for statement in (
            "update customer_order set shipped_at = :ago where number = :number and shipped_at is not null",
            "update invoice set issued_at = :ago where order_number = :number",
        ):
            await session.execute(text(statement), {"ago": ago, "number": number})


async def rows(clerk: AgentCaller, report: str, **arguments: Any) -> list[list[Any]]:
    found: list[list[Any]] = (await clerk.call(report, **arguments))["chart"]["table"]["rows"]
    return found


async def test_reports_add_up_what_was_sold_and_what_is_left(agent_server: AgentServer) -> None:
    clerk = staff(agent_server)
    since = (now() - timedelta(days=40)).date().isoformat()
    empty = await clerk.call("report_sales", since=since)
    assert (empty["net_minor"], empty["margin_percent"], empty["chart"]["table"]["rows"]) == (0, None, [])
    await add_product(clerk, "R-BOWL", 20, price_minor=1000, cost_minor=400, reorder_level=4)
    await add_product(clerk, "R-CUP", 10, price_minor=333, cost_minor=100)
    for name in ("Ann", "Ben"):
        await clerk.call("add_customer", name=name)
    old = await sell(clerk, "Ann", R_BOWL=4)
    await date_back(agent_server, old, 10)
    # What the shop pays for bowls has changed since: margins are of the cost at the time.
    await clerk.call("update_product", product="R-BOWL", cost_minor=500)
    number = await sell(clerk, "Ann", R_BOWL=8, R_CUP=3)
    await clerk.call("return_order", order=number, items=[{"product": "R-CUP", "quantity": 1}])
    await sell(clerk, "Ben", R_CUP=2)
    await draft(clerk, "Ben", R_BOWL=1)  # not sold yet

    ten_days_ago = (now() - timedelta(days=10)).date().isoformat()
    assert await rows(clerk, "report_sales", since=since) == [
        [ten_days_ago, 4, 4000, 1600, 2400, 60.0],
        [TODAY, 12, 9332, 4400, 4932, 52.9],
    ]
    by_product = await rows(clerk, "report_sales", since=since, by="product")
    assert by_product == [["R-BOWL", 12, 12000, 5600, 6400, 53.3], ["R-CUP", 4, 1332, 400, 932, 70.0]]
    by_customer = await rows(clerk, "report_sales", since=since, by="customer")
    assert by_customer == [["Ann", 14, 12666, 5800, 6866, 54.2], ["Ben", 2, 666, 200, 466, 70.0]]
    report = await clerk.call("report_sales", since=since, until=ten_days_ago)
    assert (report["net"], report["margin"], report["pieces"]) == ("40.00 EUR", "24.00 EUR", 4)

    turnover = {row[0]: row[1:] for row in await rows(clerk, "report_stock_turnover", days=73)}
    # 12 bowls of a mean of (0 + 8) / 2, five times a year.
    assert turnover["Product R-BOWL"] == [12, 8, 4000, 15.0]
    low = {row[0]: row[1:] for row in await rows(clerk, "report_low_stock", days=28, ahead=14)}
    # 8 are left, 3 a week are sold: 4 in 9 days, none in 18.
    assert low["Product R-BOWL"] == [8, 4, 3, 9, 18]
    assert "Product R-CUP" not in low
    assert "Product R-CUP" in {row[0] for row in await rows(clerk, "report_low_stock", days=28, ahead=60)}


async def test_receivables_are_what_is_not_paid_less_what_was_credited_by_age(agent_server: AgentServer) -> None:
    clerk = staff(agent_server)
    await add_product(clerk, "R-POT", 50, price_minor=1000, tax_rate_bp=0)
    for name in ("Ann", "Ben"):
        await clerk.call("add_customer", name=name)
    for name, pieces, days in (("Ann", 1, 0), ("Ann", 2, 30), ("Ben", 3, 31), ("Ann", 4, 91)):
        await date_back(agent_server, await sell(clerk, name, pay=False, R_POT=pieces), days)
    await sell(clerk, "Ben", R_POT=7)  # paid
    credited = await sell(clerk, "Ben", pay=False, R_POT=5)
    (paper,) = (await clerk.call("list_invoices", order=credited))["items"]
    some = [{"product": "R-POT", "quantity": 2}]
    await clerk.call("issue_credit_note", invoice=paper["name"], reason="two were broken", items=some)
    report = await clerk.call("report_receivables")
    assert (report["papers"], report["open"]) == (5, "130.00 EUR")
    ages = [["0 to 30 days", 3, 6000], ["31 to 60 days", 1, 3000], ["61 to 90 days", 0, 0], ["over 90 days", 1, 4000]]
    assert report["chart"]["table"]["rows"] == ages
    assert report["by_customer"]["rows"] == [["Ann", 3000, 0, 0, 4000, 7000], ["Ben", 3000, 3000, 0, 0, 6000]]


async def test_reports_are_for_staff_and_amounts_of_two_currencies_are_not_added(agent_server: AgentServer) -> None:
    customer = agent_server.as_caller("purchases:read")
    for report, arguments in REPORTS.items():
        with pytest.raises(Forbidden):
            await customer.call(report, **arguments)
        # One of the scopes is not enough to see figures of the others.
        for scope in STAFF:
            clerk = agent_server.as_caller(scope)
            try:
                found = await clerk.call(report, **arguments)
            except Forbidden:
                continue
            assert (scope, report) in {("stock:*", "report_stock_turnover"), ("stock:*", "report_low_stock")}, found
    clerk = staff(agent_server)
    for currency in ("EUR", "USD"):
        await add_product(clerk, currency, 5, currency=currency)
        await clerk.call("add_customer", name=currency)
    await sell(clerk, "EUR", EUR=1)
    await sell(clerk, "USD", USD=1)
    with pytest.raises(InvalidInput, match="amounts in EUR, USD; give one"):
        await clerk.call("report_sales", since=TODAY)
    assert (await clerk.call("report_sales", since=TODAY, currency="USD"))["net"] == "10.00 USD"
    for since, until in ((TODAY, "2026-01-01"), ("2020-01-01", TODAY)):
        with pytest.raises(InvalidInput, match="a day from `since` on, at most 366 days later"):
            await clerk.call("report_sales", since=since, until=until)


async def test_sales_without_a_time_are_those_of_last_month(agent_server: AgentServer) -> None:
    clerk = staff(agent_server)
    await add_product(clerk, "R-JUG", 20, price_minor=500, cost_minor=100)
    await clerk.call("add_customer", name="Cora")
    in_last_month = now().date().replace(day=1) - timedelta(days=5)
    for days, pieces in (((now().date() - in_last_month).days, 3), (0, 2)):
        await date_back(agent_server, await sell(clerk, "Cora", R_JUG=pieces), days)
    assert (await clerk.call("report_sales"))["pieces"] == 3
