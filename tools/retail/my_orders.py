"""Tools by which a customer sees their own orders and invoices.

Whose they are is the caller: no argument says it, and another's order is one that is not there.
"""

from agent_server import Embedded, ToolContext, tool
from tools.retail.arguments import Cursor, InvoiceName, Limit, OrderNumber
from tools.retail.invoices import make_document
from tools.retail.repository import InvoiceRepository, OrderRepository
from tools.retail.views import INVOICES, ORDER, ORDERS, Invoices, Orders, OrderView, summarise, view_invoice, view_order


@tool(
    scope="purchases:read",
    effect="read",
    phrases=(
        "show [me] [all|all of] my orders",
        "list [all|all of] my orders",
        "what have i ordered",
        "what did i order",
        "which orders do i have",
    ),
    result=ORDERS.replace("There is no order.", "You have no orders here."),
)
async def list_my_orders(context: ToolContext, limit: Limit = 20, cursor: Cursor = None) -> Orders:
    """List the caller's own orders in the shop, newest first."""
    page = await context.repository(OrderRepository).listed(limit, cursor, own=True)
    return Orders(items=[summarise(order) for order in page.items], next_cursor=page.next_cursor)


@tool(
    scope="purchases:read",
    effect="read",
    phrases=(
        "show [me] my order {order}",
        "where is my order {order}",
        "what is the status of my order {order}",
        "has my order {order} been shipped",
    ),
    result=ORDER,
)
async def get_my_order(context: ToolContext, order: OrderNumber) -> OrderView:
    """Read one of the caller's own orders: its status, what is in it, how it was sent."""
    orders = context.repository(OrderRepository)
    row = await orders.numbered(order, own=True)
    return view_order(row, await orders.lines(row))


@tool(
    scope="purchases:read",
    effect="read",
    phrases=("show [me] [all|all of] my invoices", "list [all|all of] my invoices"),
    result=INVOICES.replace("There is no invoice.", "You have no invoices here."),
)
async def list_my_invoices(context: ToolContext, limit: Limit = 20, cursor: Cursor = None) -> Invoices:
    """List the caller's own invoices and credit notes, newest first."""
    page = await context.repository(InvoiceRepository).listed(limit, cursor, own=True)
    return Invoices(items=[view_invoice(row) for row in page.items], next_cursor=page.next_cursor)


@tool(scope="purchases:read", effect="read", phrases=("show [me] my invoice {invoice}", "print my invoice {invoice}"))
async def get_my_invoice(context: ToolContext, invoice: InvoiceName) -> Embedded:
    """Read one of the caller's own invoices or credit notes, as a PDF."""
    return await make_document(await context.repository(InvoiceRepository).numbered(invoice, own=True))
