"""Tools for products and their stock, for staff."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from agent_server import Conflict, InvalidInput, Loss, SeedFile, ToolContext, now, tool
from tools.retail.arguments import Cursor, Limit, Minor, ProductName, Quantity, Text, Version
from tools.retail.models import Movement, Product, StockMovement
from tools.retail.money import say_money, say_rate
from tools.retail.repository import MovementRepository, ProductRepository

_DATA = Path(__file__).parent / "data"
seed = SeedFile(Product, _DATA / "products.yaml", key="sku", only_first=True)
opening = SeedFile(StockMovement, _DATA / "opening_stock.yaml", key="sku", only_first=True)

Sku = Annotated[
    str,
    StringConstraints(strip_whitespace=True, to_upper=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]{1,39}$"),
    Field(description="What the shop calls it for short, as in MUG-01."),
]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Currency = Annotated[
    str, StringConstraints(to_upper=True, pattern=r"^[A-Za-z]{3}$"), Field(description="ISO 4217: EUR.")
]
TaxRate = Annotated[int, Field(ge=0, le=10_000, description="In hundredths of a percent: 2000 is 20 %.")]
Level = Annotated[int, Field(ge=0, le=1_000_000, description="With so few left it is low.")]
Reason = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=3, max_length=200),
    Field(description="Why, in a few words."),
]

PRODUCT = "**{{ name }}** ({{ sku }}), {{ price }} plus {{ tax_rate }} tax: {{ left }} left ({{ on_hand }} on hand, {{ reserved }} reserved), reorder at {{ reorder_level }}"
PRODUCTS = """
{% for product in items %}
- **{{ product.name }}** ({{ product.sku }}): {{ product.left }} left, reorder at {{ product.reorder_level }}, {{ product.price }}
{% else %}
There is no such product.
{% endfor %}
"""
LOW = PRODUCTS.replace(
    "There is no such product.", "Nothing is low: there is more of everything than its reorder level."
)
MOVEMENTS = """
{% for movement in items %}
- {{ movement.created_at | date }}: {{ movement.kind }} {{ movement.quantity }}{% if movement.order_number %}, order {{ movement.order_number }}{% endif %}{% if movement.reason %}, {{ movement.reason }}{% endif %}
{% else %}
Nothing came or went.
{% endfor %}
"""
"""How they read."""


class ProductView(BaseModel):
    """A product. `left` is what may still be sold: `on_hand` without what is `reserved` for orders."""

    id: UUID
    sku: str
    name: str
    description: str
    currency: str
    price_minor: int
    price: str
    cost_minor: int
    tax_rate_bp: int
    tax_rate: str
    reorder_level: int
    on_hand: int
    reserved: int
    left: int
    version: int


class Products(BaseModel):
    """Products by their SKU."""

    items: list[ProductView]


class MovementView(BaseModel):
    """Pieces that came or, below zero, went."""

    model_config = ConfigDict(from_attributes=True)

    kind: Movement
    quantity: int
    reason: str
    order_number: int | None
    by_id: UUID | None
    created_at: datetime


class Movements(BaseModel):
    """The ledger of a product's stock, newest first; `next_cursor` is null on the last page."""

    model_config = ConfigDict(from_attributes=True)

    items: list[MovementView]
    next_cursor: str | None


def view(row: Product) -> ProductView:
    return ProductView(
        **row.model_dump(exclude={"owner_id", "created_at", "updated_at", "deleted_at"}),
        price=say_money(row.price_minor, row.currency),
        tax_rate=say_rate(row.tax_rate_bp),
        left=row.on_hand - row.reserved,
    )


@tool(scope="stock:write", effect="stored", staff=True, result=f"In the catalogue: {PRODUCT}")
async def add_product(
    context: ToolContext,
    sku: Sku,
    name: Name,
    currency: Currency,
    price_minor: Minor,
    cost_minor: Minor,
    tax_rate_bp: TaxRate,
    reorder_level: Level = 0,
    description: Text = "",
) -> ProductView:
    """Add a product to the catalogue, with nothing in stock."""
    products = context.repository(ProductRepository)
    if await products.has(sku):
        raise Conflict(f"There is a product {sku} already; choose another SKU, or restore it if it was deleted")
    given = {"currency": currency, "price_minor": price_minor, "cost_minor": cost_minor, "tax_rate_bp": tax_rate_bp}
    row = Product.model_validate(
        {"sku": sku, "name": name, "description": description, "reorder_level": reorder_level, **given}
    )
    return view(await products.add(row))


@tool(
    scope="stock:write",
    effect="stored",
    staff=True,
    phrases=(
        "set the reorder level of {product} to {reorder_level}",
        "rename [the] product {product} to {name}",
    ),
    result=f"Changed: {PRODUCT}",
)
async def update_product(
    context: ToolContext,
    product: ProductName,
    version: Version | None = None,
    name: Name | None = None,
    description: Text | None = None,
    price_minor: Minor | None = None,
    cost_minor: Minor | None = None,
    tax_rate_bp: TaxRate | None = None,
    reorder_level: Level | None = None,
) -> ProductView:
    """Change a product; what is not given stays, and orders that have it keep their prices."""
    row = await context.repository(ProductRepository).named(product, lock=True)
    if version is not None and version != row.version:
        raise Conflict(
            f"{row.name} has changed since version {version}; it is now version {row.version}: {row.name}, "
            f"{say_money(row.price_minor, row.currency)}, {say_rate(row.tax_rate_bp)} tax, reorder at {row.reorder_level}"
        )
    changes = {
        "name": name,
        "description": description,
        "price_minor": price_minor,
        "cost_minor": cost_minor,
        "tax_rate_bp": tax_rate_bp,
        "reorder_level": reorder_level,
    }
    given = {field: value for field, value in changes.items() if value is not None}
    if not given:
        raise InvalidInput(f"There is nothing to change; give one of {', '.join(changes)}")
    for field, value in given.items():
        setattr(row, field, value)
    row.version += 1
    await context.session.flush()
    return view(row)


@tool(
    scope="stock:read",
    effect="read",
    staff=True,
    phrases=(
        "show [me] [all|the|our] products",
        "list [all|the|our] products",
        "show [me] the catalogue",
        "show [me] [the] [current] stock",
        "what do we have in stock",
        "find products with {text}",
    ),
    result=PRODUCTS,
)
async def list_products(
    context: ToolContext,
    text: Annotated[str | None, Field(max_length=100, description="A part of the SKU or the name.")] = None,
    limit: Limit = 50,
) -> Products:
    """List the products of the catalogue with their stock."""
    rows = await context.repository(ProductRepository).listed(text, low=False, limit=limit)
    return Products(items=[view(row) for row in rows])


@tool(
    scope="stock:read",
    effect="read",
    staff=True,
    phrases=(
        "show [me] [the|all] low stock",
        "show [me] [the] products that are low",
        "list [the] low stock",
        "what is low [on|in] [stock]",
        "what is running low",
        "what's running low",
        "what must we reorder",
        "what do we have to reorder",
        "what should we reorder",
        "which products [do we have to|must we|should we] reorder",
        "which products are low [on|in] [stock]",
    ),
    result=LOW,
)
async def list_low_stock(context: ToolContext, limit: Limit = 50) -> Products:
    """List the products of which no more are left than their reorder level."""
    rows = await context.repository(ProductRepository).listed(None, low=True, limit=limit)
    return Products(items=[view(row) for row in rows])


@tool(
    scope="stock:read",
    effect="read",
    staff=True,
    phrases=(
        "show [me] [the] product {product}",
        "show [me] the stock of {product}",
        "how many {product} are in stock",
        "how many {product} do we have",
        "how many {product} are left",
        "how many of {product} do we have",
    ),
    result=PRODUCT,
)
async def get_product(context: ToolContext, product: ProductName) -> ProductView:
    """Read a product with its stock."""
    return view(await context.repository(ProductRepository).named(product))


@tool(
    scope="stock:read",
    effect="read",
    staff=True,
    phrases=(
        "show [me] the movements of {product}",
        "show [me] the stock movements of {product}",
        "show [me] the ledger of {product}",
    ),
    result=MOVEMENTS,
)
async def list_stock_movements(
    context: ToolContext, product: ProductName, limit: Limit = 20, cursor: Cursor = None
) -> Movements:
    """List what came and went of a product, newest first: receipts, sales, returns and adjustments."""
    row = await context.repository(ProductRepository).named(product, deleted=True)
    return Movements.model_validate(await context.repository(MovementRepository).of(row.sku, limit, cursor))


@tool(
    scope="stock:write",
    effect="stored",
    staff=True,
    title="Receive stock",
    phrases=(
        "receive {quantity} of {product}",
        "receive {quantity} x {product}",
        "receive {quantity} pieces of {product}",
        "we received {quantity} of {product}",
        "{quantity} pieces of {product} have arrived",
    ),
    result=f"Received. {PRODUCT}",
)
async def receive_stock(
    context: ToolContext,
    product: ProductName,
    quantity: Quantity,
    reason: Annotated[str, Field(max_length=200, description="The delivery note, as in DN 4711.")] = "",
) -> ProductView:
    """Book a delivery of a product into the stock."""
    return await _move(context, product, "receipt", quantity, reason)


@tool(
    scope="stock:write",
    effect="stored",
    staff=True,
    phrases=("adjust [the] [stock of] {product} by {change} because {reason}",),
    result=f"Adjusted. {PRODUCT}",
)
async def adjust_stock(
    context: ToolContext,
    product: ProductName,
    change: Annotated[
        int, Field(ge=-1_000_000, le=1_000_000, description="Pieces found, or below zero pieces missing.")
    ],
    reason: Reason,
) -> ProductView:
    """Put the stock of a product right, with the reason: after a stocktaking, or for what is broken or lost."""
    if change == 0:
        raise InvalidInput("change: give the difference, above or below zero; for none nothing need be booked")
    return await _move(context, product, "adjustment", change, reason)


async def _move(
    context: ToolContext, product: str, kind: Literal["receipt", "adjustment"], change: int, reason: str
) -> ProductView:
    products = context.repository(ProductRepository)
    row = await products.named(product, lock=True)
    await products.count(row.sku, change)
    await context.repository(MovementRepository).record(row, kind, change, reason=reason)
    return view(await products.named(row.sku))


async def _product_lost(context: ToolContext, product: ProductName) -> list[Loss]:
    row = await context.repository(ProductRepository).named(product, lock=True)
    return [Loss(row.id, f"{row.name} ({row.sku})")]


@tool(
    scope="stock:write",
    effect="stored",
    staff=True,
    destructive=True,
    losses=_product_lost,
    phrases=("delete [the] product {product}", "remove [the] product {product}"),
    result="No longer in the catalogue: **{{ name }}** ({{ sku }})",
)
async def delete_product(context: ToolContext, product: ProductName) -> ProductView:
    """Take a product out of the catalogue. Orders and the stock ledger keep it, and it can be restored."""
    row = await context.repository(ProductRepository).named(product, lock=True)
    if row.reserved:
        raise Conflict(f"{row.name} ({row.sku}) is reserved for orders; ship or cancel these first")
    row.deleted_at = now()
    await context.session.flush()
    return view(row)


@tool(
    scope="stock:write",
    effect="stored",
    staff=True,
    phrases=("restore [the] product {product}",),
    result=f"Back in the catalogue: {PRODUCT}",
)
async def restore_product(context: ToolContext, product: ProductName) -> ProductView:
    """Put a product that was deleted back into the catalogue."""
    row = await context.repository(ProductRepository).named(product, lock=True, deleted=True)
    row.deleted_at = None
    await context.session.flush()
    return view(row)
