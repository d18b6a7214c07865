"""What holds for all orders: of money, and of a stock that many take from at once."""

import asyncio
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_server import Conflict
from agent_server.testing import AgentCaller
from agent_server.workspace import Workspace
from tests.tools.retail.shop import Pair, add_product, draft, ledger, run_pair, staff
from tools.retail.money import Line, add_up, credit, divide, say_money

untimed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""How long anything takes is nothing that these tests say, in whichever workspace they run."""
RATES = st.sampled_from([0, 550, 700, 1900, 2000, 2550, 10_000])


@st.composite
def lines(draw: st.DrawFn) -> list[Line]:
    made = []
    for number in range(draw(st.integers(1, 6))):
        quantity, price = draw(st.integers(1, 50)), draw(st.integers(0, 99_999))
        discount = draw(st.integers(0, quantity * price))
        about = {
            "sku": f"P{number}",
            "name": "x",
            "quantity": quantity,
            "price_minor": price,
            "discount_minor": discount,
        }
        made.append(Line(**about, tax_rate_bp=draw(RATES), net_minor=quantity * price - discount))
    return made


@untimed
@given(lines())
def test_lines_and_taxes_are_the_total_and_no_tax_is_off_by_more_than_half_a_cent(bought: list[Line]) -> None:
    totals = add_up(bought)
    assert totals.total_minor == sum(line.net_minor for line in bought) + sum(tax.tax_minor for tax in totals.taxes)
    assert totals.net_minor + totals.tax_minor == totals.total_minor
    assert [tax.rate_bp for tax in totals.taxes] == sorted({line.tax_rate_bp for line in bought})
    for tax in totals.taxes:
        assert tax.net_minor == sum(line.net_minor for line in bought if line.tax_rate_bp == tax.rate_bp)
        assert abs(tax.tax_minor * 10_000 - tax.net_minor * tax.rate_bp) <= 5_000


@untimed
@given(st.integers(-(10**9), 10**9), st.integers(1, 10**6))
def test_halves_are_rounded_away_from_zero(amount: int, by: int) -> None:
    assert abs(2 * (divide(amount, by) * by - amount)) <= by
    assert divide(-amount, by) == -divide(amount, by)
    assert divide(by, 2 * by) == 1


@untimed
@given(lines(), st.data())
def test_the_credit_notes_for_all_of_an_invoice_add_up_to_it(bought: list[Line], data: st.DataObject) -> None:
    invoice, credited, notes = add_up(bought), Counter[str](), []
    while any(line.quantity > credited[line.sku] for line in bought):
        now = {
            line.sku: data.draw(st.integers(0, line.quantity - credited[line.sku]), label=line.sku) for line in bought
        }
        if not any(now.values()):
            now = {line.sku: line.quantity - credited[line.sku] for line in bought}
        noted, totals = credit(bought, credited, now)
        assert totals.net_minor == sum(line.net_minor for line in noted)
        assert all(line.price_minor * line.quantity - line.discount_minor == line.net_minor for line in noted)
        notes.append(totals)
        credited.update(now)
    assert sum(note.total_minor for note in notes) == invoice.total_minor
    assert sum(note.tax_minor for note in notes) == invoice.tax_minor
    assert all(note.net_minor >= 0 for note in notes)


@untimed
@given(st.integers(-(10**9), 10**9))
def test_an_amount_is_said_with_the_decimals_of_its_currency(minor: int) -> None:
    assert round(float(say_money(minor, "EUR").removesuffix(" EUR")) * 100) == minor
    assert say_money(minor, "JPY") == f"{minor} JPY"


STEPS = st.sampled_from(["buy", "buy", "buy", "both", "cancel", "ship", "receive", "lose", "return"])
PLANS = st.lists(st.tuples(STEPS, st.integers(1, 4), st.integers(0, 20)), min_size=4, max_size=10)


def test_of_two_who_buy_the_last_one_of_them_gets_it(agent_workspace: Workspace, agent_database: str) -> None:
    with run_pair(agent_workspace, agent_database) as pair:
        pair.run(_race(pair))


async def _race(pair: Pair) -> None:
    clerks = [staff(pair.one), staff(pair.other)]
    await clerks[0].call("add_customer", name="Anna")
    await add_product(clerks[0], "LAST", 1)
    for _ in range(5):
        numbers = [await draft(clerks[0], "Anna", LAST=1) for _ in range(4)]
        placing = [clerks[n % 2].call("place_order", order=number) for n, number in enumerate(numbers)]
        outcomes = await asyncio.gather(*placing, return_exceptions=True)
        (won,) = [outcome for outcome in outcomes if isinstance(outcome, dict)]
        lost = [outcome for outcome in outcomes if isinstance(outcome, Conflict)]
        assert len(lost) == 3, outcomes
        assert all("0 left" in error.message for error in lost)
        await clerks[1].call("cancel_order", order=won["number"])


def test_the_stock_is_never_negative_and_its_movements_add_up_to_it(
    agent_workspace: Workspace, agent_database: str
) -> None:
    with run_pair(agent_workspace, agent_database) as pair:
        pair.run(staff(pair.one).call("add_customer", name="Anna"))
        tried: list[int] = []

        @settings(untimed, max_examples=6)
        @given(PLANS)
        def keeps_its_stock(plan: list[tuple[str, int, int]]) -> None:
            tried.append(1)
            pair.run(_trade(pair, plan, len(tried)))

        keeps_its_stock()


async def _trade(pair: Pair, plan: list[tuple[str, int, int]], example: int) -> None:
    """Do all of a plan at once, half of it at each server, and look at what is left."""
    clerks, skus = [staff(pair.one), staff(pair.other)], [f"A{example}", f"B{example}"]
    for sku in skus:
        await add_product(clerks[0], sku, 3)
    ready = [await draft(clerks[0], "Anna", **{skus[n % 2]: 1}) for n in range(2)]
    for number in ready:
        await clerks[0].call("place_order", order=number)
        await clerks[0].call("mark_order_paid", order=number)
    orders = [*ready]
    work = [_step(clerks[n % 2], skus, orders, *step) for n, step in enumerate(plan)]
    outcomes = await asyncio.gather(*work, return_exceptions=True)
    assert {type(o) for o in outcomes if isinstance(o, BaseException)} <= {Conflict}, outcomes
    shown = [await clerks[1].call("get_order", order=number) for number in orders]
    for sku in skus:
        product = await clerks[0].call("get_product", product=sku)
        moved = await ledger(clerks[0], sku)
        assert product["on_hand"] == sum(quantity for _, quantity in moved)
        assert all(sum(quantity for _, quantity in moved[: n + 1]) >= 0 for n in range(len(moved)))
        wanted = Counter[str]()
        for order in shown:
            for line in order["lines"]:
                if line["sku"] == sku:
                    wanted[order["status"]] += line["quantity"]
        assert product["reserved"] == wanted["placed"] + wanted["paid"]
        assert 0 <= product["reserved"] <= product["on_hand"]
        assert sum(quantity for kind, quantity in moved if kind == "sale") == -sum(
            wanted[status] for status in ("shipped", "delivered", "returned")
        )


async def _step(
    clerk: AgentCaller, skus: list[str], orders: list[int], step: str, quantity: int, which: int
) -> dict[str, Any] | None:
    sku, order = skus[which % 2], orders[which % len(orders)]
    match step:
        case "buy" | "both":
            wanted = {sku: quantity} if step == "buy" else dict.fromkeys(skus, quantity)
            number = await draft(clerk, "Anna", **wanted)
            orders.append(number)
            await clerk.call("place_order", order=number)
            await clerk.call("mark_order_paid", order=number)
        case "cancel":
            await clerk.call("cancel_order", order=order)
        case "ship":
            await clerk.call("ship_order", order=order)
        case "return":
            await clerk.call("return_order", order=order)
        case "receive":
            await clerk.call("receive_stock", product=sku, quantity=quantity)
        case _:
            await clerk.call("adjust_stock", product=sku, change=-quantity, reason="lost")
    return None
