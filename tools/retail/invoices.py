"""Tools for invoices and credit notes, for staff.

An invoice is never changed: a credit note gives back all of it or a part. Numbers of a year's invoices and of its credit
notes have no gaps.
"""

from typing import Annotated, Any

from pydantic import Field

from agent_server import Conflict, Embedded, InvalidInput, Loss, ToolContext, Unavailable, now, render_pdf, tool
from tools.retail.arguments import Cursor, InvoiceName, Item, Limit, OrderNumber
from tools.retail.models import CustomerOrder, Invoice, Paper
from tools.retail.money import Line, Totals, add_up, credit, say_money
from tools.retail.orders import lock_order, record_change
from tools.retail.repository import CustomerRepository, InvoiceRepository, OrderRepository, SeriesRepository, require
from tools.retail.stock import Reason
from tools.retail.views import INVOICE, INVOICES, Invoices, InvoiceView, name_invoice, print_invoice, view_invoice

_SERIES: dict[Paper, str] = {"invoice": "INV", "credit_note": "CN"}
_BILLED = frozenset({"placed", "paid", "shipped", "delivered"})


@tool(
    scope="invoices:write",
    effect="stored",
    staff=True,
    phrases=(
        "issue [an|the] invoice for order {order}",
        "write [an|the] invoice for order {order}",
        "invoice order {order}",
    ),
    result=f"Issued: {INVOICE}",
)
async def issue_invoice(context: ToolContext, order: OrderNumber) -> InvoiceView:
    """Issue the invoice of an order that was placed. It cannot be changed afterwards."""
    require(context, "orders:read", "orders:write", "customers:read", "invoices:read")
    row = await lock_order(context, order)
    if row.status not in _BILLED:
        raise Conflict(f"Order {order} is {row.status}; only an order that is {', '.join(sorted(_BILLED))} is invoiced")
    papers = context.repository(InvoiceRepository)
    if there := await papers.of_order(row):
        raise Conflict(f"Order {order} has the invoice {name_invoice(there[0])}; a credit note puts it right")
    lines = [Line.model_validate(line) for line in await context.repository(OrderRepository).lines(row)]
    customer = await context.repository(CustomerRepository).of_order(row)
    paper = Invoice(
        order_number=row.number,
        customer_id=customer.id,
        customer_name=customer.name,
        customer_address=customer.address,
        **await _stand(context, "invoice", row.currency, lines, add_up(lines)),
    )
    await papers.add_for(row.owner_id, paper)
    await record_change(context, row, f"invoice {name_invoice(paper)} issued")
    return view_invoice(paper)


async def _stand(context: ToolContext, kind: Paper, currency: str, lines: list[Line], totals: Totals) -> dict[str, Any]:
    """What stands on an invoice or credit note, with the next number of its series."""
    issued_at = now()
    series = f"{_SERIES[kind]}-{issued_at.year}"
    return {
        "kind": kind,
        "series": series,
        "number": await context.repository(SeriesRepository).next(series),
        "currency": currency,
        "lines": [line.model_dump() for line in lines],
        **totals.model_dump(),
        "by_id": context.caller.id,
        "issued_at": issued_at,
    }


async def _find_credited(context: ToolContext, invoice: Invoice, order: CustomerOrder) -> dict[str, int]:
    """By SKU, the quantities of an invoice that credit notes have given back."""
    credited: dict[str, int] = {}
    for paper in await context.repository(InvoiceRepository).of_order(order):
        if paper.kind == "credit_note" and paper.corrects == name_invoice(invoice):
            for line in paper.lines:
                credited[line["sku"]] = credited.get(line["sku"], 0) + line["quantity"]
    return credited


async def _prepare(
    context: ToolContext, name: str, items: list[Item] | None
) -> tuple[Invoice, CustomerOrder, list[Line], Totals]:
    """The invoice that is credited with its order, locked, and what stands on the credit note."""
    require(context, "orders:read", "orders:write", "invoices:read")
    invoice = await context.repository(InvoiceRepository).numbered(name)
    if invoice.kind != "invoice":
        raise Conflict(f"{name} is a credit note, which gives nothing back; name the invoice, {invoice.corrects}")
    order = await lock_order(context, invoice.order_number)
    lines = [Line.model_validate(line) for line in invoice.lines]
    credited = await _find_credited(context, invoice, order)
    left = {line.sku: line.quantity - credited.get(line.sku, 0) for line in lines}
    given = left if items is None else _choose(items, lines, left)
    if not any(given.values()):
        raise Conflict(f"All of {name} has been given back already")
    noted, totals = credit(lines, credited, given)
    return invoice, order, noted, totals


def _choose(items: list[Item], lines: list[Line], left: dict[str, int]) -> dict[str, int]:
    named = {text.lower(): line.sku for line in lines for text in (line.name, line.sku)}
    chosen: dict[str, int] = {}
    for item in items:
        sku = named.get(item.product.lower())
        if sku is None:
            raise InvalidInput(f"items: {item.product!r} is not on the invoice; it has {', '.join(left)}")
        chosen[sku] = chosen.get(sku, 0) + item.quantity
        if chosen[sku] > left[sku]:
            raise InvalidInput(f"items: {chosen[sku]} {sku} are given, {left[sku]} are left to give back")
    return chosen


Parts = Annotated[list[Item] | None, Field(max_length=100, description="What is given back, if not all that is left.")]


async def _credit_lost(context: ToolContext, invoice: InvoiceName, reason: Reason, items: Parts = None) -> list[Loss]:
    paper, _, _, totals = await _prepare(context, invoice, items)
    return [Loss(paper.id, f"{say_money(totals.total_minor, paper.currency)} of {name_invoice(paper)}")]


@tool(
    scope="invoices:write",
    effect="stored",
    staff=True,
    destructive=True,
    losses=_credit_lost,
    phrases=(
        "issue [a|the] credit note for [invoice] {invoice} because {reason}",
        "credit [invoice] {invoice} because {reason}",
        "refund [invoice] {invoice} because {reason}",
    ),
    result=f"Issued: {INVOICE}",
)
async def issue_credit_note(
    context: ToolContext, invoice: InvoiceName, reason: Reason, items: Parts = None
) -> InvoiceView:
    """Give back all of an invoice, or a part, by a credit note. It moves no money and no stock."""
    paper, order, lines, totals = await _prepare(context, invoice, items)
    note = Invoice(
        corrects=name_invoice(paper),
        reason=reason,
        order_number=paper.order_number,
        customer_id=paper.customer_id,
        customer_name=paper.customer_name,
        customer_address=paper.customer_address,
        **await _stand(context, "credit_note", paper.currency, lines, totals),
    )
    await context.repository(InvoiceRepository).add_for(paper.owner_id, note)
    await record_change(context, order, f"credit note {name_invoice(note)} issued: {reason}")
    return view_invoice(note)


@tool(
    scope="invoices:read",
    effect="read",
    staff=True,
    phrases=(
        "show [me] [the|all|our] invoices",
        "list [the|all|our] invoices",
        "show [me] the invoices of order {order}",
    ),
    result=INVOICES,
)
async def list_invoices(
    context: ToolContext, order: OrderNumber | None = None, limit: Limit = 20, cursor: Cursor = None
) -> Invoices:
    """List the invoices and credit notes of all customers, or of one order, newest first."""
    page = await context.repository(InvoiceRepository).listed(limit, cursor, order=order)
    return Invoices(items=[view_invoice(row) for row in page.items], next_cursor=page.next_cursor)


@tool(
    scope="invoices:read",
    effect="read",
    staff=True,
    phrases=("show [me] [the] invoice {invoice}", "show [me] [the] credit note {invoice}"),
    result=INVOICE,
)
async def get_invoice(context: ToolContext, invoice: InvoiceName) -> InvoiceView:
    """Read an invoice or credit note of any customer."""
    return view_invoice(await context.repository(InvoiceRepository).numbered(invoice))


@tool(
    scope="invoices:read",
    effect="read",
    staff=True,
    phrases=("print [the] invoice {invoice}", "print [the] credit note {invoice}"),
)
async def print_invoice_document(context: ToolContext, invoice: InvoiceName) -> Embedded:
    """Make the PDF of an invoice or credit note; Markdown where this server makes no PDF files."""
    return await make_document(await context.repository(InvoiceRepository).numbered(invoice))


async def make_document(paper: Invoice) -> Embedded:
    """The PDF of an invoice or credit note, the same each time. A server without the extra `pdf` gives its Markdown."""
    name, (title, text) = name_invoice(paper), print_invoice(paper)
    try:
        data = await render_pdf(text, title=title, footer=name, made_at=paper.issued_at)
    except Unavailable:
        return Embedded(f"invoice://{name}.md", text=f"# {title}\n\n{text}", mime_type="text/markdown")
    return Embedded(f"invoice://{name}.pdf", data=data, mime_type="application/pdf")
