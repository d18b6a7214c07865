"""Tables and charts as results: what they may be, and how people and models read them."""

import json
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from agent_server import Chart, Column, Table, ToolContext, tool
from agent_server.charts.telling import list_charts, split_figures, tell_model
from agent_server.errors import ResultTooLarge
from agent_server.results import tell_result
from agent_server.web.render import render_blocks

COLUMNS = [
    Column(name="month", kind="date"),
    Column(name="shop"),
    Column(name="net", label="Net sales", kind="money", currency="EUR"),
    Column(name="change", kind="percent"),
    Column(name="weight", kind="number", unit="kg"),
]
SALES = Table(
    title="Sales by month",
    columns=COLUMNS,
    rows=[
        ["2026-01", "North", 123_450, 12.5, 1_500],
        {"month": date(2026, 2, 1), "shop": "South | [x](https://evil.example)", "net": -5, "weight": Decimal("2.5")},
    ],
)


class Report(BaseModel):
    """Figures with a table and a chart of it."""

    orders: int
    table: Table
    chart: Chart


@tool(scope="sales:read", effect="read")
async def report_sales(context: ToolContext) -> Report:
    """Report sales."""
    raise NotImplementedError


@tool(scope="sales:read", effect="read", result="There were {{ orders }} orders.")
async def report_in_words(context: ToolContext) -> Report:
    """Report sales."""
    raise NotImplementedError


REPORT = Report(orders=7, table=SALES, chart=Chart.bars(SALES, x="month", y="net"))


def test_a_table_reads_with_its_money_dates_and_units_in_words() -> None:
    told = tell_result("report_sales", report_sales, report_sales.dump(REPORT))
    assert told == (
        "- Orders: 7\n\n"
        "**Sales by month**\n\n"
        "| Month | Shop | Net sales (EUR) | Change | Weight (kg) |\n"
        "| :--- | :--- | ---: | ---: | ---: |\n"
        "| January 2026 | North | 1,234.50 | 12.5 % | 1,500 |\n"
        "| 1 February 2026 | South \\| \\[x\\](https\\://evil.example) | -0.05 |  | 2.5 |\n\n"
        "Bar chart “Sales by month”: Net sales (EUR) by Month, 2 rows; lowest -0.05 (1 February 2026), "
        "highest 1,234.50 (January 2026)."
    )
    html = "".join(render_blocks(told))
    assert '<td class="right">1,234.50</td>' in html and "<a" not in html
    assert tell_result("report_in_words", report_in_words, json.dumps(report_in_words.dump(REPORT))).startswith(
        "There were 7 orders.\n\n**Sales by month**"
    )


def test_a_model_reads_the_figures_and_how_many_rows_are_left_out() -> None:
    table = Table(title="Days", columns=COLUMNS[2:4], rows=[[n, n] for n in range(100)])
    output = json.dumps(Chart.bars(table, x="change", y="net").model_dump(mode="json"))
    told = tell_model(output)
    assert told.count("\n| ") == 42 and "And 60 more rows." in told and "spec" not in told
    assert told.endswith("The user is shown the chart itself.") and len(told) < len(output)
    report = tell_model(json.dumps(report_sales.dump(REPORT)))
    assert report.startswith('{"orders": 7}\n\n**Sales by month**\n\n| Month') and report.count("1,234.50 |") == 1
    assert list_charts(report_sales.dump(REPORT)) == [REPORT.chart]


@given(
    st.recursive(
        st.none() | st.text() | st.integers(),
        lambda inside: (
            st.dictionaries(st.sampled_from(["type", "a", "table"]), inside | st.sampled_from(["table", "chart"]))
            | st.lists(inside)
        ),
    )
)
def test_data_that_holds_no_figures_is_left_as_it_is(value: Any) -> None:
    assert split_figures(value) == (value, [])
    assert tell_model(json.dumps(value)) == json.dumps(value)


@pytest.mark.parametrize(
    ("kind", "cell", "said"),
    [
        ("money", 12.5, "whole number of minor units"),
        ("money", True, "whole number of minor units"),
        ("number", float("nan"), "is not a number"),
        ("number", "12", "is not a number"),
        ("date", "2026-13-01", "is not a date"),
        ("text", "x" * 301, "is not a text of at most 300"),
    ],
)
def test_a_cell_that_is_not_of_its_kind_is_refused(kind: Any, cell: Any, said: str) -> None:
    column = Column(name="net", kind=kind, currency="EUR" if kind == "money" else None)
    with pytest.raises(ValidationError, match=f"row 2, net: .*{said}"):
        Table(title="Sales", columns=[column], rows=[[None], [cell]])


def test_a_table_is_bounded_and_says_what_to_ask_for() -> None:
    with pytest.raises(ResultTooLarge, match=r"5 columns may have 1000 rows, and this has 1001; ask for less at once"):
        Table(title="Sales", columns=COLUMNS, rows=[[None] * 5] * 1_001)
    with pytest.raises(ValidationError, match="row 1: give a list with a cell for each of the 5 columns"):
        Table(title="Sales", columns=COLUMNS, rows=[[1]])
    with pytest.raises(ValidationError, match="row 1: there is no column 'prise'"):
        Table(title="Sales", columns=COLUMNS, rows=[{"prise": 1}])
    with pytest.raises(ValidationError, match="several columns 'shop'"):
        Table(title="Sales", columns=[COLUMNS[1], COLUMNS[1]], rows=[])
    with pytest.raises(ValidationError, match="a column of money has a currency"):
        Column(name="net", kind="money")
