"""Reports for the shop's staff: sales with their margin, the turnover of stock, what runs out, and what is owed.

A sale is a line of an order that was shipped, on the day that it was (UTC), without what came back of it and without tax.
Its cost is what its pieces cost the shop when they left. Amounts of several currencies are never added up.
"""

from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from agent_server import Chart, Column, InvalidInput, Table, ToolContext, now, tool
from tools.retail.figures import FiguresRepository, Sale, Shelf
from tools.retail.money import say_money
from tools.retail.repository import require

By = Literal["day", "product", "customer"]
MOST_ROWS = 100
"""Products or customers that a report names; its totals are of all."""
AGES = ((30, "0 to 30 days"), (60, "31 to 60 days"), (90, "61 to 90 days"), (10**6, "over 90 days"))

Since = Annotated[date | None, Field(description="The first day; without it, all of last month.")]
Until = Annotated[date | None, Field(description="The last day; without it, today.")]
Currency = Annotated[str | None, Field(pattern=r"^[A-Z]{3}$", description="Needed where there are several: EUR.")]
Days = Annotated[int, Field(ge=7, le=366, description="Of so many days, until today.")]


class SalesReport(BaseModel):
    """Sales of a time and what is left of them. `chart.table` has a row for each day, product or customer."""

    currency: str
    pieces: int
    net_minor: int
    net: str
    cost_minor: int
    margin_minor: int
    margin: str
    margin_percent: float | None
    chart: Chart


class TurnoverReport(BaseModel):
    """How often the stock was sold in a year at the pace of these days. `chart.table` has it for each product."""

    days: int
    currency: str
    sold_minor: int
    stock_minor: int
    turns_per_year: float | None
    chart: Chart


class ReorderReport(BaseModel):
    """Products that are low or will be. `chart.table` says when each reaches its reorder level and when it is gone."""

    days: int
    low: int
    soon: int
    chart: Chart


class ReceivablesReport(BaseModel):
    """Invoices that are not paid, less what was credited. `chart.table` has their sums by age."""

    currency: str
    papers: int
    open_minor: int
    open: str
    chart: Chart
    by_customer: Table


SALES = """
Sales: {{ net }} for {{ pieces }} pieces, margin {{ margin }}{% if margin_percent is not none %} ({{ margin_percent }} %){% endif %}.

{{ chart }}
"""
TURNOVER = """
{% if turns_per_year is none %}
There was no stock in these {{ days }} days.
{% else %}
The stock is sold {{ turns_per_year }} times a year.
{% endif %}

{{ chart }}
"""
REORDER = """
{{ low }} products are low, {{ soon }} more will be soon, at the pace of the last {{ days }} days.

{{ chart }}
"""
RECEIVABLES = """
Open: {{ open }} on {{ papers }} invoices.

{{ chart }}

{{ by_customer }}
"""


def percent(part: int, whole: int) -> float | None:
    return round(100 * part / whole, 1) if whole else None


def choose_currency(given: str | None, there: set[str]) -> str:
    """The currency of a report. Raises InvalidInput where there are several and none was given."""
    if given is not None:
        return given
    if len(there) > 1:
        raise InvalidInput(f"currency: there are amounts in {', '.join(sorted(there))}; give one of them")
    return next(iter(there), "EUR")


@tool(
    scope="orders:read",
    effect="read",
    staff=True,
    title="Sales and margin",
    phrases=(
        "show [me] [the] sales by {by} since {since}",
        "sales by {by} since {since}",
        "[show|show me] [the] sales [of] last month",
        "[show|show me] [the] sales by {by} last month",
    ),
)
async def report_sales(
    context: ToolContext,
    since: Since = None,
    until: Until = None,
    by: Annotated[By, Field(description="What each row is.")] = "day",
    currency: Currency = None,
) -> SalesReport:
    """Report what was sold in a time by day, product or customer, with its cost and margin."""
    require(context, "stock:read", "customers:read")
    today = now().date()
    last = until or (today if since else today.replace(day=1) - timedelta(days=1))
    since = since or last.replace(day=1)
    if not timedelta() <= last - since <= timedelta(days=366):
        raise InvalidInput("until: give a day from `since` on, at most 366 days later")
    begin = datetime(since.year, since.month, since.day, tzinfo=UTC)
    end = datetime(last.year, last.month, last.day, tzinfo=UTC) + timedelta(days=1)
    found = await context.repository(FiguresRepository).sales(by, begin, end)
    chosen = choose_currency(currency, {sale.currency for sale in found})
    sales = [sale for sale in found if sale.currency == chosen]
    net, cost = sum(sale.net_minor for sale in sales), sum(sale.cost_minor for sale in sales)
    return SalesReport(
        currency=chosen,
        pieces=sum(sale.pieces for sale in sales),
        net_minor=net,
        net=say_money(net, chosen),
        cost_minor=cost,
        margin_minor=net - cost,
        margin=say_money(net - cost, chosen),
        margin_percent=percent(net - cost, net),
        chart=_draw_sales(by, chosen, sales),
    )


def _draw_sales(by: By, currency: str, sales: list[Sale]) -> Chart:
    # Days in their order; of the others those that bring most first.
    shown = sales if by == "day" else sorted(sales, key=lambda sale: (-sale.net_minor, sale.name))[:MOST_ROWS]
    money = {name: Column(name=name, kind="money", currency=currency) for name in ("net", "cost", "margin")}
    table = Table(
        title=f"Sales by {by}",
        columns=[
            Column(name=by, kind="date" if by == "day" else "text"),
            Column(name="pieces", kind="number"),
            *money.values(),
            Column(name="margin_percent", label="Margin", kind="percent"),
        ],
        rows=[
            [s.name, s.pieces, s.net_minor, s.cost_minor, s.margin_minor, percent(s.margin_minor, s.net_minor)]
            for s in shown
        ],
    )
    return Chart.bars(table, x=by, y="net", horizontal=by != "day")


@tool(
    scope="stock:read",
    effect="read",
    staff=True,
    title="Stock turnover",
    phrases=("show [me] [the] stock turnover", "how fast does [the|our] stock turn over"),
)
async def report_stock_turnover(context: ToolContext, days: Days = 90, currency: Currency = None) -> TurnoverReport:
    """Report how often a year the stock is sold, by product: what was sold in these days at cost, by the mean stock."""
    found = await context.repository(FiguresRepository).shelves(now() - timedelta(days=days))
    chosen = choose_currency(currency, {shelf.currency for shelf in found})
    shelves = [shelf for shelf in found if shelf.currency == chosen]
    sold = sum(shelf.sold * shelf.cost_minor for shelf in shelves)
    stock = sum((shelf.on_hand + shelf.on_hand_before) * shelf.cost_minor for shelf in shelves)
    table = Table(
        title=f"Stock turnover of {days} days",
        columns=[
            Column(name="product"),
            Column(name="sold", kind="number"),
            Column(name="on_hand", kind="number"),
            Column(name="value", kind="money", currency=chosen),
            Column(name="turns", label="Turns a year", kind="number"),
        ],
        rows=[
            [s.name, s.sold, s.on_hand, s.on_hand * s.cost_minor, turns(s.sold, s.on_hand + s.on_hand_before, days)]
            for s in shelves[:MOST_ROWS]
        ],
    )
    return TurnoverReport(
        days=days,
        currency=chosen,
        sold_minor=sold,
        stock_minor=sum(shelf.on_hand * shelf.cost_minor for shelf in shelves),
        turns_per_year=turns(sold, stock, days),
        chart=Chart.bars(table, x="product", y="turns", horizontal=True),
    )


def turns(sold: int, stock_twice: int, days: int) -> float | None:
    """How often in a year, of the sum of the stock before and after."""
    return round(sold / (stock_twice / 2) * 365 / days, 2) if stock_twice else None


@tool(
    scope="stock:read",
    effect="read",
    staff=True,
    title="Low stock and when it runs out",
    phrases=("what will run out soon", "when do we run out [of stock]", "forecast [the] stock"),
)
async def report_low_stock(
    context: ToolContext,
    days: Days = 28,
    ahead: Annotated[int, Field(ge=0, le=366, description="Also what is low so many days from now.")] = 14,
) -> ReorderReport:
    """Report which products are at their reorder level or soon will be, and when they run out, if they sell on as they
    did in the last `days`."""
    shelves = await context.repository(FiguresRepository).shelves(now() - timedelta(days=days))
    low = [shelf for shelf in shelves if shelf.left <= shelf.reorder_level]
    soon = [
        s
        for s in shelves
        if s not in low and (lasts := days_until(s, s.reorder_level, days)) is not None and lasts <= ahead
    ]
    shown = sorted([*low, *soon], key=lambda shelf: _urgency(shelf, days))[:MOST_ROWS]
    table = Table(
        title=f"Low stock, at the pace of {days} days",
        columns=[
            Column(name="product"),
            Column(name="left", kind="number"),
            Column(name="reorder_level", kind="number"),
            Column(name="sold_per_week", kind="number"),
            Column(name="low_in", label="Low in", kind="number", unit="days"),
            Column(name="gone_in", label="Gone in", kind="number", unit="days"),
        ],
        rows=[
            [
                *(shelf.name, shelf.left, shelf.reorder_level, round(shelf.sold * 7 / days, 1)),
                *(days_until(shelf, shelf.reorder_level, days), days_until(shelf, 0, days)),
            ]
            for shelf in shown
        ],
    )
    return ReorderReport(
        days=days, low=len(low), soon=len(soon), chart=Chart.bars(table, x="product", y="left", horizontal=True)
    )


def days_until(shelf: Shelf, level: int, days: int) -> int | None:
    """Whole days until no more than `level` is left; None where nothing is sold."""
    if shelf.left <= level:
        return 0
    return None if shelf.sold <= 0 else (shelf.left - level) * days // shelf.sold


def _urgency(shelf: Shelf, days: int) -> tuple[float, str]:
    gone = days_until(shelf, 0, days)
    return (float("inf") if gone is None else gone, shelf.name)


@tool(
    scope="invoices:read",
    effect="read",
    staff=True,
    title="What customers owe",
    phrases=("who owes us money", "show [me] [the] open invoices by age", "show [me] [the] receivables"),
)
async def report_receivables(context: ToolContext, currency: Currency = None) -> ReceivablesReport:
    """Report invoices of orders that are not paid, less their credit notes, by age and by customer."""
    require(context, "orders:read")
    found = await context.repository(FiguresRepository).debts()
    chosen = choose_currency(currency, {debt.currency for debt in found})
    debts = [debt for debt in found if debt.currency == chosen]
    today, by_age = now(), {label: [0, 0] for _, label in AGES}
    by_customer: dict[str, list[int]] = {}
    for debt in debts:
        sums = by_customer.setdefault(debt.customer, [0] * len(AGES))
        at = find_age((today - debt.issued_at).days)
        sums[at] += debt.open_minor
        of_age = by_age[AGES[at][1]]
        of_age[0], of_age[1] = of_age[0] + 1, of_age[1] + debt.open_minor
    total = sum(debt.open_minor for debt in debts)
    money = Column(name="open", kind="money", currency=chosen)
    ages = Table(
        title="Open invoices by age",
        columns=[Column(name="age"), Column(name="invoices", kind="number"), money],
        rows=[[label, papers, amount] for label, (papers, amount) in by_age.items()],
    )
    return ReceivablesReport(
        currency=chosen,
        papers=len(debts),
        open_minor=total,
        open=say_money(total, chosen),
        chart=Chart.bars(ages, x="age", y="open"),
        by_customer=_list_customers(by_customer, chosen),
    )


def _list_customers(by_customer: dict[str, list[int]], currency: str) -> Table:
    most_first = sorted(by_customer.items(), key=lambda item: (-sum(item[1]), item[0]))[:MOST_ROWS]
    columns = [
        Column(name=f"age_{n}", label=label, kind="money", currency=currency) for n, (_, label) in enumerate(AGES)
    ]
    return Table(
        title="Open invoices by customer",
        columns=[Column(name="customer"), *columns, Column(name="all", kind="money", currency=currency)],
        rows=[[customer, *sums, sum(sums)] for customer, sums in most_first],
    )


def find_age(days: int) -> int:
    """Which of `AGES` so many days are."""
    return next(n for n, (most, _) in enumerate(AGES) if days <= most)
