"""Tools for what becomes of an order, for staff.

    draft ── placed ── paid ── shipped ── delivered ── returned
      └────────┴────────┴── cancelled       └────────────┘

To place an order reserves its pieces, to ship it takes them out of the stock, to cancel it sets them free. Stock is taken
in the order of the SKUs, so that of two orders for the same products one waits for the other and none for both.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field

from agent_server import Conflict, InvalidInput, Loss, ToolContext, now, tool
from tools.retail.arguments import Item, OrderNumber, Version
from tools.retail.money import say_money
from tools.retail.orders import MOST_LINES, THEN, check_step, lock_order, record_change, show_order
from tools.retail.repository import MovementRepository, OrderRepository, ProductRepository, require
from tools.retail.views import ORDER, OrderView, view_order

_STOCK = ("stock:read", "stock:write")


@tool(
    scope="orders:write",
    effect="stored",
    staff=True,
    phrases=("place order {order}", "place the order {order}"),
    result=ORDER,
)
async def place_order(context: ToolContext, order: OrderNumber, version: Version | None = None) -> OrderView:
    """Place a draft: its pieces are reserved, all of them or none."""
    require(context, *_STOCK)
    row = await lock_order(context, order, version)
    check_step(row, "placed")
    row.status = "placed"
    lines = await context.repository(OrderRepository).lines(row)
    if not lines:
        raise Conflict(f"Order {order} is empty; put something in it with set_order_line first")
    for line in lines:
        await context.repository(ProductRepository).reserve(line.sku, line.quantity)
    row.placed_at = now()
    await record_change(context, row, "placed")
    return view_order(row, lines)


@tool(
    scope="orders:write",
    effect="stored",
    staff=True,
    phrases=("mark order {order} as paid", "order {order} is paid", "order {order} has been paid"),
    result=ORDER,
)
async def mark_order_paid(context: ToolContext, order: OrderNumber, version: Version | None = None) -> OrderView:
    """Record that an order that was placed has been paid. It takes no money."""
    row = await lock_order(context, order, version)
    check_step(row, "paid")
    row.status = "paid"
    row.paid_at = now()
    await record_change(context, row, "paid")
    return await show_order(context, row)


@tool(
    scope="orders:write",
    effect="stored",
    staff=True,
    phrases=("ship order {order}", "ship order {order} with {carrier}", "order {order} has been shipped"),
    result=ORDER,
)
async def ship_order(
    context: ToolContext,
    order: OrderNumber,
    carrier: Annotated[str, Field(max_length=100)] = "",
    tracking: Annotated[str, Field(max_length=100, description="The number by which the parcel is followed.")] = "",
    version: Version | None = None,
) -> OrderView:
    """Record that a paid order left the house: its pieces go out of the stock."""
    require(context, *_STOCK)
    row = await lock_order(context, order, version)
    check_step(row, "shipped")
    row.status = "shipped"
    row.carrier, row.tracking, row.shipped_at = carrier, tracking, now()
    lines, products = await context.repository(OrderRepository).lines(row), context.repository(ProductRepository)
    for line in lines:
        await products.hand_out(line.sku, line.quantity)
        product = await products.named(line.sku, deleted=True)
        await context.repository(MovementRepository).record(product, "sale", -line.quantity, order_number=row.number)
    await record_change(context, row, f"shipped{f' with {carrier}' if carrier else ''}")
    return view_order(row, lines)


@tool(
    scope="orders:write",
    effect="stored",
    staff=True,
    phrases=("mark order {order} as delivered", "order {order} has been delivered", "order {order} is delivered"),
    result=ORDER,
)
async def mark_order_delivered(context: ToolContext, order: OrderNumber, version: Version | None = None) -> OrderView:
    """Record that an order has reached its customer."""
    row = await lock_order(context, order, version)
    check_step(row, "delivered")
    row.status = "delivered"
    row.delivered_at = now()
    await record_change(context, row, "delivered")
    return await show_order(context, row)


async def _order_lost(context: ToolContext, order: OrderNumber, version: Version | None = None) -> list[Loss]:
    row = await lock_order(context, order, version)
    check_step(row, "cancelled")
    return [Loss(row.id, f"Order {order}, {say_money(row.total_minor, row.currency or 'EUR')}")]


@tool(
    scope="orders:write",
    effect="stored",
    staff=True,
    destructive=True,
    losses=_order_lost,
    phrases=("cancel order {order}", "cancel the order {order}"),
    result=ORDER,
)
async def cancel_order(context: ToolContext, order: OrderNumber, version: Version | None = None) -> OrderView:
    """Cancel an order that has not been shipped: what it reserved is free again."""
    row = await lock_order(context, order, version)
    was = row.status
    check_step(row, "cancelled")
    row.status = "cancelled"
    lines = await context.repository(OrderRepository).lines(row)
    if was != "draft":
        require(context, *_STOCK)
        for line in lines:
            await context.repository(ProductRepository).release(line.sku, line.quantity)
    row.closed_at = now()
    await record_change(context, row, f"cancelled, was {was}")
    return view_order(row, lines)


@tool(
    scope="orders:write",
    effect="stored",
    staff=True,
    phrases=("order {order} came back", "order {order} has come back", "take back order {order}"),
    result=ORDER,
)
async def return_order(
    context: ToolContext,
    order: OrderNumber,
    items: Annotated[list[Item] | None, Field(max_length=MOST_LINES, description="What came back, if not all.")] = None,
    damaged: Annotated[bool, Field(description="It cannot be sold again.")] = False,
    version: Version | None = None,
) -> OrderView:
    """Record that an order, or a part of it, came back. When all of it is back it is returned."""
    require(context, *_STOCK)
    row = await lock_order(context, order, version)
    if "returned" not in THEN[row.status]:
        raise Conflict(f"Order {order} is {row.status}; only what was shipped can come back")
    lines, products = await context.repository(OrderRepository).lines(row), context.repository(ProductRepository)
    back = {line.sku: line.quantity - line.returned for line in lines}
    if items is not None:
        back = await _chosen(products, items, back)
    movements = context.repository(MovementRepository)
    for line in lines:
        if not (quantity := back.get(line.sku, 0)):
            continue
        line.returned += quantity
        product = await products.named(line.sku, deleted=True, lock=True)
        await movements.record(product, "return", quantity, order_number=row.number)
        if damaged:
            await movements.record(
                product, "adjustment", -quantity, reason="came back damaged", order_number=row.number
            )
        else:
            await products.count(line.sku, quantity)
    if all(line.returned == line.quantity for line in lines):
        row.status, row.closed_at = "returned", now()
    said = ", ".join(f"{quantity} {sku}" for sku, quantity in back.items() if quantity)
    await record_change(context, row, f"came back: {said}{' (damaged)' if damaged else ''}")
    return view_order(row, lines)


async def _chosen(products: ProductRepository, items: Sequence[Item], left: Mapping[str, int]) -> dict[str, int]:
    """The quantities of `items` by SKU. Raises InvalidInput where there are more than are left."""
    chosen: dict[str, int] = {}
    for item in items:
        sku = (await products.named(item.product, deleted=True)).sku
        chosen[sku] = chosen.get(sku, 0) + item.quantity
        if chosen[sku] > left.get(sku, 0):
            raise InvalidInput(
                f"items: {chosen[sku]} {sku} are given, at most {left.get(sku, 0)} are left in the order"
            )
    return chosen
