"""Tools for orders, for staff: to draft one, to change it, to find it.

A change locks its order, raises its version by one, and says in an event what it was: whoever gives the version that
they have read is told what was changed since, and changes nothing. Lines are changed in a draft only.
"""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from agent_server import Conflict, InvalidInput, ToolContext, tool
from tools.retail.arguments import Cursor, CustomerName, Item, Limit, Minor, OrderNumber, ProductName, Text, Version
from tools.retail.models import CustomerOrder, OrderLine, Product, Status
from tools.retail.money import Line, add_up, say_money
from tools.retail.repository import (
    CustomerRepository,
    OrderRepository,
    ProductRepository,
    SeriesRepository,
    require,
)
from tools.retail.views import ORDER, ORDERS, Orders, OrderView, summarise, view_order

FIRST_NUMBER = 1001
THEN: Mapping[Status, frozenset[Status]] = {
    "draft": frozenset({"placed", "cancelled"}),
    "placed": frozenset({"paid", "cancelled"}),
    "paid": frozenset({"shipped", "cancelled"}),
    "shipped": frozenset({"delivered", "returned"}),
    "delivered": frozenset({"returned"}),
    "cancelled": frozenset(),
    "returned": frozenset(),
}
"""What an order of each status may become."""
MOST_LINES = 100

Address = Annotated[str, Field(max_length=500, description="If not the customer's address.")]


async def lock_order(context: ToolContext, number: int, version: int | None = None) -> CustomerOrder:
    """The order, kept for a change. Raises NotFound, and Conflict that says what was changed after `version`."""
    orders = context.repository(OrderRepository)
    order = await orders.numbered(number, lock=True)
    if version is not None and version != order.version:
        since = "; ".join(
            f"version {event.version}, {event.created_at:%Y-%m-%d %H:%M} UTC: {event.text}"
            for event in await orders.events(order, after=version)
        )
        raise Conflict(
            f"Order {number} was changed since version {version} ({since or 'it never had a later one'}); read it again, "
            f"and give version {order.version} if your change is still right"
        )
    return order


async def record_change(context: ToolContext, order: CustomerOrder, text: str) -> None:
    """Store the changes of a locked order as its next version."""
    order.version += 1
    await context.session.flush()
    await context.repository(OrderRepository).note(order, text)


async def show_order(context: ToolContext, order: CustomerOrder) -> OrderView:
    return view_order(order, await context.repository(OrderRepository).lines(order))


def check_step(order: CustomerOrder, to: Status) -> None:
    """Raises Conflict where an order of this status cannot become that."""
    if to not in THEN[order.status]:
        may = " or ".join(sorted(THEN[order.status])) or "nothing else"
        raise Conflict(f"Order {order.number} is {order.status}, so it cannot become {to}; it can become {may}")


async def _recount(context: ToolContext, order: CustomerOrder) -> None:
    totals = add_up([Line.model_validate(line) for line in await context.repository(OrderRepository).lines(order)])
    order.net_minor, order.tax_minor, order.total_minor = totals.net_minor, totals.tax_minor, totals.total_minor


@tool(
    scope="orders:write",
    effect="stored",
    staff=True,
    title="New order",
    phrases=(
        "new order for {customer}",
        "create [an|a] [new] order for {customer}",
        "start [an|a] [new] order for {customer}",
    ),
    result=f"Drafted. {ORDER}",
)
async def create_order(
    context: ToolContext,
    customer: CustomerName,
    items: Annotated[list[Item], Field(max_length=MOST_LINES, description="What is ordered.")] = [],  # noqa: B006  # the schema's default; never changed
    ship_to: Address = "",
    note: Annotated[Text, Field(description="A remark, which the customer may read.")] = "",
) -> OrderView:
    """Draft an order for a customer, at the prices of now. Nothing is reserved before it is placed."""
    require(context, "customers:read", *(["stock:read"] if items else []))
    buyer = await context.repository(CustomerRepository).named(customer)
    number = await context.repository(SeriesRepository).next("order", FIRST_NUMBER)
    order = CustomerOrder(number=number, customer_id=buyer.id, currency="", ship_to=ship_to or buyer.address, note=note)
    orders = context.repository(OrderRepository)
    await orders.add_for(buyer.owner_id, order)
    for item in items:
        await _set_line(
            context, order, await context.repository(ProductRepository).named(item.product), item.quantity, 0
        )
    await _recount(context, order)
    await context.session.flush()
    await orders.note(order, f"drafted for {buyer.name}")
    return await show_order(context, order)


async def _set_line(context: ToolContext, order: CustomerOrder, product: Product, quantity: int, discount: int) -> str:
    """Make the order's line of this product so; what was changed, in words. Raises Conflict and InvalidInput."""
    orders = context.repository(OrderRepository)
    lines = {line.sku: line for line in await orders.lines(order)}
    line = lines.get(product.sku)
    if quantity == 0:
        if line is None:
            raise InvalidInput(f"quantity: {product.sku} is not in order {order.number}, so it cannot be taken out")
        await context.session.delete(line)
        await context.session.flush()
        return f"{product.sku} taken out, was {line.quantity}"
    if len(lines) >= MOST_LINES and line is None:
        raise Conflict(f"Order {order.number} has {MOST_LINES} lines, which is the most; make a second order")
    if order.currency and lines and order.currency != product.currency:
        raise Conflict(f"{product.sku} is sold in {product.currency}, order {order.number} is in {order.currency}")
    net = product.price_minor * quantity - discount
    if net < 0:
        whole = say_money(product.price_minor * quantity, product.currency)
        raise InvalidInput(f"discount_minor: more than the line comes to, which is {whole}")
    was = f"{product.sku} {line.quantity if line else 0} -> {quantity}"
    if line is None:
        line = OrderLine(
            owner_id=order.owner_id,
            order_id=order.id,
            position=max((other.position for other in lines.values()), default=0) + 1,
            sku=product.sku,
            name=product.name,
            quantity=quantity,
            price_minor=product.price_minor,
            tax_rate_bp=product.tax_rate_bp,
            net_minor=net,
        )
        context.session.add(line)
    order.currency = product.currency
    line.name, line.price_minor, line.tax_rate_bp = product.name, product.price_minor, product.tax_rate_bp
    line.quantity, line.discount_minor, line.net_minor = quantity, discount, net
    await context.session.flush()
    return was + (f" with {say_money(discount, order.currency)} off" if discount else "")


@tool(
    scope="orders:write",
    effect="stored",
    staff=True,
    phrases=(
        "put {quantity} of {product} in order {order}",
        "put {quantity} x {product} in order {order}",
        "take {product} out of order {order}",
    ),
    result=ORDER,
)
async def set_order_line(
    context: ToolContext,
    order: OrderNumber,
    product: ProductName,
    quantity: Annotated[int, Field(ge=0, le=1_000_000, description="How many pieces in all; 0 takes it out.")] = 0,
    discount_minor: Annotated[Minor, Field(description="Off the whole line, in the smallest unit.")] = 0,
    version: Version | None = None,
) -> OrderView:
    """Set how many pieces of a product are in a draft, at the price of now."""
    require(context, "stock:read")
    row = await lock_order(context, order, version)
    if row.status != "draft":
        raise Conflict(f"Order {order} is {row.status}; only a draft can be changed: cancel it and draft another")
    what = await _set_line(
        context, row, await context.repository(ProductRepository).named(product), quantity, discount_minor
    )
    await _recount(context, row)
    await record_change(context, row, what)
    return await show_order(context, row)


@tool(scope="orders:write", effect="stored", staff=True, result=ORDER)
async def update_order(
    context: ToolContext,
    order: OrderNumber,
    version: Version,
    ship_to: Address | None = None,
    note: Annotated[Text | None, Field(description="A remark, which the customer may read.")] = None,
) -> OrderView:
    """Change where an order that has not been shipped goes, or its remark."""
    if ship_to is None and note is None:
        raise InvalidInput("There is nothing to change; give ship_to or note")
    row = await lock_order(context, order, version)
    if row.status not in ("draft", "placed", "paid"):
        raise Conflict(f"Order {order} is {row.status}; it can be changed until it is shipped")
    changed = []
    if ship_to is not None:
        changed.append(f"goes to {ship_to!r}, not {row.ship_to!r}")
        row.ship_to = ship_to
    if note is not None:
        changed.append("another remark")
        row.note = note
    await record_change(context, row, ", ".join(changed))
    return await show_order(context, row)


@tool(
    scope="orders:read",
    effect="read",
    staff=True,
    phrases=(
        "show [me] [the|all] orders",
        "list [the|all] orders",
        "show [me] [the|all] {status} orders",
        "list [the|all] {status} orders",
        "which orders are {status}",
        "show [me] the orders of {customer}",
        "list the orders of {customer}",
    ),
    result=ORDERS,
)
async def list_orders(
    context: ToolContext,
    status: Annotated[Status | None, Field(description="Only those of this status.")] = None,
    customer: CustomerName | None = None,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Orders:
    """List the orders of all customers, or of one, newest first."""
    buyer = None
    if customer is not None:
        require(context, "customers:read")
        buyer = await context.repository(CustomerRepository).named(customer)
    page = await context.repository(OrderRepository).listed(limit, cursor, status=status, customer=buyer)
    return Orders(items=[summarise(order) for order in page.items], next_cursor=page.next_cursor)


@tool(
    scope="orders:read",
    effect="read",
    staff=True,
    phrases=("show [me] [the] order {order}", "what is the status of order {order}"),
    result=ORDER,
)
async def get_order(context: ToolContext, order: OrderNumber) -> OrderView:
    """Read an order of any customer, with its version and lines."""
    return await show_order(context, await context.repository(OrderRepository).numbered(order))
