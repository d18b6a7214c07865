"""Orders and invoices as tools return them."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from pydantic import BaseModel

from tools.retail.models import CustomerOrder, Invoice, OrderLine, Paper, Status
from tools.retail.money import Line, Tax, say_money, say_rate

ORDER = """
**Order {{ number }}**: {{ status }}, {{ total }}{% if carrier %}, sent with {{ carrier }}{% endif %}{% if tracking %} ({{ tracking }}){% endif %}

{% for line in lines %}
- {{ line.quantity }} x {{ line.name }} ({{ line.sku }}) at {{ line.price }}{% if line.returned %}, {{ line.returned }} returned{% endif %}
{% else %}
Nothing is in it yet.
{% endfor %}
"""
ORDERS = """
{% for order in items %}
- **Order {{ order.number }}** of {{ order.created_at | date }}: {{ order.status }}, {{ order.total }}
{% else %}
There is no order.
{% endfor %}
{% if next_cursor %}

There are more.
{% endif %}
"""
INVOICES = """
{% for paper in items %}
- **{{ paper.name }}** ({{ paper.kind | words }}), order {{ paper.order_number }}: {{ paper.total }}{% if paper.corrects %}, corrects {{ paper.corrects }}{% endif %}
{% else %}
There is no invoice.
{% endfor %}
{% if next_cursor %}

There are more.
{% endif %}
"""
INVOICE = """
**{{ kind | words }} {{ name }}** for {{ customer_name }}, order {{ order_number }}{% if corrects %}, corrects {{ corrects }}{% endif %}: {{ total }} ({{ net }} and {{ tax }} tax)
"""
"""How they read."""


class LineView(BaseModel):
    """A line of an order; `net_minor` is quantity x price less the discount, without tax."""

    sku: str
    name: str
    quantity: int
    returned: int
    price_minor: int
    price: str
    discount_minor: int
    tax_rate_bp: int
    net_minor: int


class OrderSummary(BaseModel):
    """An order without its lines. Amounts are in the smallest unit of the currency."""

    number: int
    status: Status
    version: int
    customer_id: UUID
    currency: str
    net_minor: int
    tax_minor: int
    total_minor: int
    total: str
    carrier: str
    tracking: str
    created_at: datetime
    placed_at: datetime | None
    paid_at: datetime | None
    shipped_at: datetime | None
    delivered_at: datetime | None
    closed_at: datetime | None


class OrderView(OrderSummary):
    """An order. `version` says which state of it this is."""

    ship_to: str
    note: str
    lines: list[LineView]


class Orders(BaseModel):
    """Orders, newest first; `next_cursor` is null on the last page."""

    items: list[OrderSummary]
    next_cursor: str | None


class InvoiceView(BaseModel):
    """An invoice or a credit note. Of a credit note the amounts are what is given back."""

    name: str
    kind: Paper
    corrects: str | None
    reason: str
    order_number: int
    customer_name: str
    customer_address: str
    currency: str
    lines: list[Line]
    taxes: list[Tax]
    net_minor: int
    tax_minor: int
    total_minor: int
    net: str
    tax: str
    total: str
    issued_at: datetime


class Invoices(BaseModel):
    """Invoices and credit notes, newest first; `next_cursor` is null on the last page."""

    items: list[InvoiceView]
    next_cursor: str | None


def summarise(order: CustomerOrder) -> OrderSummary:
    total = say_money(order.total_minor, order.currency)
    return OrderSummary(**order.model_dump(include=set(OrderSummary.model_fields)), total=total)


def view_order(order: CustomerOrder, lines: Sequence[OrderLine]) -> OrderView:
    return OrderView(
        **summarise(order).model_dump(),
        ship_to=order.ship_to,
        note=order.note,
        lines=[
            LineView(
                **line.model_dump(include=set(LineView.model_fields)), price=say_money(line.price_minor, order.currency)
            )
            for line in sorted(lines, key=lambda line: line.position)
        ],
    )


def name_invoice(row: Invoice) -> str:
    return f"{row.series}-{row.number:05}"


def view_invoice(row: Invoice) -> InvoiceView:
    return InvoiceView(
        **row.model_dump(include=set(InvoiceView.model_fields) - {"lines", "taxes"}),
        name=name_invoice(row),
        lines=[Line.model_validate(line) for line in row.lines],
        taxes=[Tax.model_validate(tax) for tax in row.taxes],
        net=say_money(row.net_minor, row.currency),
        tax=say_money(row.tax_minor, row.currency),
        total=say_money(row.total_minor, row.currency),
    )


def print_invoice(row: Invoice) -> tuple[str, str]:
    """The title of an invoice or credit note, and what stands below it, in Markdown."""
    paper = view_invoice(row)
    title = "Invoice" if row.kind == "invoice" else "Credit note"
    about = [f"Order {row.order_number}", f"Issued on {row.issued_at:%Y-%m-%d}"]
    about += [f"Corrects invoice {row.corrects}"] if row.corrects else []
    about += [f"Reason: {_cell(row.reason)}"] if row.reason else []
    lines = [
        f"| {_cell(line.name)} ({_cell(line.sku)}) | {line.quantity} | {say_money(line.price_minor, row.currency)} "
        f"| {say_money(line.discount_minor, row.currency)} | {say_rate(line.tax_rate_bp)} "
        f"| {say_money(line.net_minor, row.currency)} |"
        for line in paper.lines
    ]
    taxes = [
        f"| Tax {say_rate(tax.rate_bp)} on {say_money(tax.net_minor, row.currency)} | {say_money(tax.tax_minor, row.currency)} |"
        for tax in paper.taxes
    ]
    return f"{title} {paper.name}", "\n".join(
        [
            f"{_cell(row.customer_name)}\n",
            *([f"{_cell(row.customer_address)}\n"] if row.customer_address else []),
            "\n".join(f"- {fact}" for fact in about),
            "\n| Product | Quantity | Price | Discount | Tax | Net |\n| --- | ---: | ---: | ---: | ---: | ---: |",
            *lines,
            f"\n| Sum | Amount |\n| --- | ---: |\n| Net | {paper.net} |",
            *taxes,
            f"| **Total** | **{paper.total}** |\n",
        ]
    )


def _cell(text: str) -> str:
    """A text of a customer's or a clerk's in one line of Markdown, without what would be markup there."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>#|" else c for c in " ".join(text.split()))
