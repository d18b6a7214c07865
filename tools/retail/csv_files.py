"""Tools that export products, customers and orders as CSV and import them, for staff.

An import is one transaction: with one bad row, nothing is imported. What was exported and is imported again changes
nothing. Stock is in none of these files: pieces come and go by the ledger only.
"""

from collections.abc import Sequence
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, Field
from sqlmodel import col, select

from agent_server import AgentServerError, Embedded, NotFound, ToolContext, new_id, tool
from tools.retail.arguments import Minor, Quantity, Text, Which
from tools.retail.csv_rows import MOST_ROWS, Rows, read_rows, write_rows
from tools.retail.customers import Address, Email, Name, Note, Phone
from tools.retail.models import Customer, CustomerOrder, OrderLine, Product
from tools.retail.orders import create_order, set_order_line, update_order
from tools.retail.repository import CustomerRepository, OrderRepository, ProductRepository, require
from tools.retail.stock import Currency, Level, Sku, TaxRate
from tools.retail.stock import Name as ProductTitle

Csv = Annotated[str, Field(min_length=1, max_length=900_000, description="The whole file, with the names of columns.")]
RIGHT = {
    "sku": "2 to 40 letters, digits, dots and hyphens, as in MUG-01",
    "name": "1 to 200 characters",
    "description": "at most 2000 characters",
    "currency": "three letters, as in EUR",
    "price_minor": "a whole number of the smallest unit, as 1250 for 12.50",
    "cost_minor": "a whole number of the smallest unit, as 1250 for 12.50",
    "discount_minor": "a whole number of the smallest unit, as 1250 for 12.50",
    "tax_rate_bp": "a whole number of hundredths of a percent, as 2000 for 20 %",
    "reorder_level": "a whole number of pieces from 0 on",
    "id": "the id of a customer, or nothing for a new one",
    "account_id": "the id of an account, or nothing",
    "email": "an email address, as in ann@example.org, or nothing",
    "phone": "at most 40 characters",
    "address": "at most 500 characters",
    "ship_to": "at most 500 characters",
    "note": "at most 2000 characters",
    "quantity": "a whole number of pieces from 1 on",
    "customer": "a customer's id, email address or whole name",
    "order": "the number of an order, or any word that the rows of a new one have in common",
}


class ProductRow(BaseModel):
    """A row of products.csv."""

    sku: Sku
    name: ProductTitle
    description: Text = ""
    currency: Currency
    price_minor: Minor
    cost_minor: Minor
    tax_rate_bp: TaxRate
    reorder_level: Level = 0


class CustomerRow(BaseModel):
    """A row of customers.csv."""

    id: UUID | None = None
    account_id: UUID | None = None
    name: Name
    email: Email | None = None
    phone: Phone | None = None
    address: Address = ""
    note: Note = ""


class OrderRow(BaseModel):
    """A row of orders.csv: a line of an order."""

    order: Which
    status: str = ""
    customer: Which
    sku: Sku | None = None
    quantity: Quantity | None = None
    discount_minor: Minor = 0
    ship_to: Annotated[str, Field(max_length=500)] = ""
    note: Text = ""


class Imported(BaseModel):
    """What became of the rows of a file; of orders, what became of the orders."""

    rows: int
    added: int = 0
    changed: int = 0
    unchanged: int = 0


IMPORTED = "Imported {{ rows }} rows: {{ added }} added, {{ changed }} changed, {{ unchanged }} as they were."


def _file(name: str, text: str) -> Embedded:
    return Embedded(f"csv://{name}", text=text, mime_type="text/csv")


@tool(scope="stock:read", effect="read", staff=True, title="Export products")
async def export_products(context: ToolContext) -> Embedded:
    """Export the catalogue as CSV, without stock."""
    statement = context.repository(ProductRepository).on_sale().order_by(col(Product.sku))
    rows = (await context.session.execute(statement)).scalars()
    return _file("products.csv", write_rows(list(ProductRow.model_fields), (row.model_dump() for row in rows)))


@tool(scope="stock:write", effect="stored", staff=True, title="Import products", result=IMPORTED)
async def import_products(context: ToolContext, csv: Csv) -> Imported:
    """Import products from CSV, by their SKU: those that are there are changed, others added with nothing in stock. All or nothing."""
    require(context, "stock:read")
    rows = read_rows(csv, ProductRow, RIGHT)
    _refuse_twice(rows, "sku", [(number, row.sku) for number, row in rows.good.items()])
    products = context.repository(ProductRepository)
    wanted = sorted({row.sku for row in rows.good.values()})
    statement = products.visible().where(col(Product.sku).in_(wanted)).order_by(col(Product.sku)).with_for_update()
    there = {row.sku: row for row in (await context.session.execute(statement)).scalars()}
    for number, row in rows.good.items():
        if (product := there.get(row.sku)) is not None and product.deleted_at is not None:
            rows.complain(number, "sku", f"{row.sku} was deleted; restore it first, or choose another")
        elif product is not None and product.currency != row.currency:
            rows.complain(
                number, "currency", f"{row.sku} is sold in {product.currency}; write that, or choose another SKU"
            )
    rows.check()
    done = Imported(rows=len(rows.good))
    for row in rows.good.values():
        if row.sku not in there:
            await products.add(Product.model_validate(row.model_dump()))
            done.added += 1
        else:
            _apply(done, there[row.sku], row.model_dump())
    await context.session.flush()
    return done


@tool(scope="customers:read", effect="read", staff=True, title="Export customers")
async def export_customers(context: ToolContext) -> Embedded:
    """Export the shop's customers as CSV."""
    statement = context.repository(CustomerRepository).of_all().where(col(Customer.deleted_at).is_(None))
    found = (await context.session.execute(statement.order_by(col(Customer.id)))).scalars()
    rows = ({**row.model_dump(), "account_id": _account(row)} for row in found)
    return _file("customers.csv", write_rows(list(CustomerRow.model_fields), rows))


def _account(customer: Customer) -> UUID | None:
    return None if customer.owner_id == customer.id else customer.owner_id


@tool(scope="customers:write", effect="stored", staff=True, title="Import customers", result=IMPORTED)
async def import_customers(context: ToolContext, csv: Csv) -> Imported:
    """Import customers from CSV, by their id: those that are there are changed, others added. All or nothing."""
    require(context, "customers:read")
    rows = read_rows(csv, CustomerRow, RIGHT)
    _refuse_twice(rows, "id", [(number, row.id) for number, row in rows.good.items() if row.id is not None])
    customers = context.repository(CustomerRepository)
    wanted = sorted({row.id for row in rows.good.values() if row.id is not None})
    statement = customers.of_all().where(col(Customer.id).in_(wanted)).order_by(col(Customer.id)).with_for_update()
    there = {row.id: row for row in (await context.session.execute(statement)).scalars()}
    for number, row in rows.good.items():
        if row.id is None or (customer := there.get(row.id)) is None:
            continue
        if customer.deleted_at is not None:
            rows.complain(number, "id", f"{row.id} was deleted; restore the customer first")
        elif row.account_id != _account(customer):
            rows.complain(number, "account_id", f"an account stays; write {_account(customer) or 'nothing'}")
    rows.check()
    done = Imported(rows=len(rows.good))
    for row in rows.good.values():
        values = row.model_dump(exclude={"id", "account_id"})
        values["email"] = values["email"] and values["email"].lower()
        if row.id in there:
            _apply(done, there[row.id], values)
        else:
            id = row.id or new_id()
            await customers.add_for(row.account_id or id, Customer(id=id, **values))
            done.added += 1
    await context.session.flush()
    return done


def _refuse_twice(rows: Rows[Any], column: str, keys: Sequence[tuple[int, object]]) -> None:
    first: dict[object, int] = {}
    for number, key in keys:
        if (before := first.setdefault(key, number)) != number:
            rows.complain(number, column, f"{key} is in row {before} already; write each once")


def _apply(done: Imported, row: Any, values: dict[str, Any]) -> None:
    """Change what is otherwise in a row. A cell cannot tell nothing from an empty text."""
    changes = {name: value for name, value in values.items() if (getattr(row, name) or None) != (value or None)}
    for name, value in changes.items():
        setattr(row, name, value)
    row.version += 1 if changes else 0
    done.changed += bool(changes)
    done.unchanged += not changes


@tool(scope="orders:read", effect="read", staff=True, title="Export orders")
async def export_orders(
    context: ToolContext, after: Annotated[int, Field(ge=0, description="The last number of the file before.")] = 0
) -> Embedded:
    """Export orders as CSV, a row for each of their lines, oldest first: as many as an import takes."""
    orders, rows = context.repository(OrderRepository), list[dict[str, Any]]()
    statement = orders.of_all().where(col(CustomerOrder.number) > after).order_by(col(CustomerOrder.number))
    for order in (await context.session.execute(statement.limit(MOST_ROWS // 4))).scalars():
        of_order = _write_order(order, await orders.lines(order))
        if len(rows) + len(of_order) > MOST_ROWS:
            break
        rows += of_order
    return _file("orders.csv", write_rows(list(OrderRow.model_fields), rows))


def _write_order(order: CustomerOrder, lines: Sequence[OrderLine]) -> list[dict[str, Any]]:
    about: dict[str, Any] = {"order": order.number, "customer": order.customer_id}
    about |= order.model_dump(include={"status", "ship_to", "note"})
    empty = {"sku": None, "quantity": None, "discount_minor": 0}
    return [{**about, **line.model_dump(include=set(empty))} for line in lines] or [{**about, **empty}]


@tool(scope="orders:write", effect="stored", staff=True, title="Import orders", result=IMPORTED)
async def import_orders(context: ToolContext, csv: Csv) -> Imported:
    """Import orders from CSV, a row for each line. Rows with one word in `order` are a new draft, at the prices of now; a
    draft that is there becomes as the file has it, and other orders have to be as they are. All or nothing."""
    require(context, "orders:read", "customers:read", "stock:read")
    rows = read_rows(csv, OrderRow, RIGHT)
    _refuse_twice(rows, "sku", [(number, (row.order, row.sku)) for number, row in rows.good.items()])
    orders: dict[str, list[tuple[int, OrderRow]]] = {}
    for number, row in rows.good.items():
        first = orders.setdefault(row.order, [(number, row)])[0][1]
        if row is not first:
            orders[row.order].append((number, row))
        for column in ("status", "customer", "ship_to", "note"):
            if getattr(row, column) != getattr(first, column):
                rows.complain(number, column, f"is not as in the first row of order {row.order}; write the same")
        if (row.sku is None) != (row.quantity is None):
            rows.complain(number, "quantity", "write a SKU and a quantity, or neither for an order with nothing in it")
    rows.check()
    done = Imported(rows=len(rows.good))
    for lines in orders.values():
        await _import_order(context, rows, done, lines)
    rows.check()
    return done


async def _import_order(
    context: ToolContext, rows: Rows[OrderRow], done: Imported, lines: list[tuple[int, OrderRow]]
) -> None:
    number, first = lines[0]
    try:
        there = await _find_order(context, first)
    except NotFound as error:
        rows.complain(number, "order", error.message)
        return
    try:
        if there is None:
            if first.status not in ("", "draft"):
                rows.complain(number, "status", "a new order is a draft; write draft or nothing")
                return
            given = (await create_order(context, first.customer, ship_to=first.ship_to, note=first.note)).number
            done.added += 1
        else:
            given = there.number
    except AgentServerError as error:
        rows.complain(number, "customer", error.message)
        return
    was = {line.sku: line for line in await _lines(context, given)}
    wanted = {row.sku: (at, row) for at, row in lines if row.sku is not None and row.quantity is not None}
    changes = [
        (at, row.sku, row.quantity, row.discount_minor)
        for at, row in wanted.values()
        if (old := was.get(row.sku or "")) is None
        or (old.quantity, old.discount_minor) != (row.quantity, row.discount_minor)
    ]
    changes += [(number, sku, 0, 0) for sku in was if sku not in wanted]
    for at, sku, quantity, discount in changes:
        try:
            await set_order_line(context, given, sku or "", quantity or 0, discount)
        except AgentServerError as error:
            rows.complain(at, "sku", error.message)
    if there is not None:
        is_other = await _change_about(context, rows, number, there, first)
        done.changed += bool(changes) or is_other
        done.unchanged += not changes and not is_other


async def _change_about(
    context: ToolContext, rows: Rows[OrderRow], number: int, order: CustomerOrder, row: OrderRow
) -> bool:
    """Make an order's address and remark those of a row. Returns whether they were others."""
    if row.status not in ("", order.status):
        rows.complain(
            number, "status", f"order {order.number} is {order.status}; write that, and change it by its tools"
        )
    if row.customer != str(order.customer_id):
        rows.complain(number, "customer", f"order {order.number} stays its customer's; write {order.customer_id}")
    if (row.ship_to, row.note) == (order.ship_to, order.note):
        return False
    try:
        await update_order(context, order.number, order.version, row.ship_to, row.note)
    except AgentServerError as error:
        rows.complain(number, "ship_to", error.message)
    return True


async def _find_order(context: ToolContext, row: OrderRow) -> CustomerOrder | None:
    if not (row.order.isascii() and row.order.isdigit() and len(row.order) < 16):
        return None
    statement = select(CustomerOrder).where(col(CustomerOrder.number) == int(row.order)).with_for_update()
    found: CustomerOrder | None = (await context.session.execute(statement)).scalar_one_or_none()
    if found is None:
        # A new order of that number would have another one, and be added again by the next import.
        raise NotFound(f"There is no order {row.order}; write a word that is no number for a new one")
    return found


async def _lines(context: ToolContext, number: int) -> Sequence[OrderLine]:
    orders = context.repository(OrderRepository)
    return await orders.lines(await orders.numbered(number))
