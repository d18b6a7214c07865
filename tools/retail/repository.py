"""The shop's tables, as staff may see them, and as a customer does.

`visible()` is what is the caller's own. What staff ask for begins with `of_all()`, which the policies of the database
leave empty for whoever holds no scope of the table's.
"""

from collections.abc import Sequence
from typing import Generic, TypeVar
from uuid import UUID

from sqlalchemy import func, or_, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from agent_server import Conflict, Forbidden, NotFound, Owned, Page, Repository, ToolContext, new_id, now
from tools.retail.models import (
    Customer,
    CustomerOrder,
    Invoice,
    Movement,
    NumberSeries,
    OrderEvent,
    OrderLine,
    Product,
    Status,
    StockMovement,
)

_NAMED = 5
"""Rows of one name that an error tells apart."""

O = TypeVar("O", bound=Owned)  # noqa: E741  # as in `Repository[M]`


def require(context: ToolContext, *scopes: str) -> None:
    """Raises Forbidden unless the caller holds these as well as the scope of the tool."""
    if lacking := [scope for scope in scopes if not context.caller.may(scope)]:
        raise Forbidden(f"This needs {' and '.join(lacking)} as well; ask somebody who manages the shop's accounts")


class ProductRepository(Repository[Product]):
    model = Product

    def on_sale(self) -> SelectOfScalar[Product]:
        return self.visible().where(col(Product.deleted_at).is_(None))

    async def listed(self, text: str | None, *, low: bool, limit: int) -> Sequence[Product]:
        """By SKU: those whose SKU or name has `text`; with `low` those with no more left than their reorder level."""
        statement = self.on_sale().order_by(col(Product.sku)).limit(limit)
        if text is not None:
            has = (field.icontains(text.strip(), autoescape=True) for field in (col(Product.sku), col(Product.name)))
            statement = statement.where(or_(*has))
        if low:
            statement = statement.where(col(Product.on_hand) - col(Product.reserved) <= col(Product.reorder_level))
        return (await self.session.execute(statement)).scalars().all()

    async def named(self, product: str, *, lock: bool = False, deleted: bool = False) -> Product:
        """The product with this SKU or whole name. Raises NotFound and Conflict."""
        text = product.strip().lower()
        for field in (Product.sku, Product.name):
            statement = self.visible() if deleted else self.on_sale()
            statement = statement.where(func.lower(col(field)) == text).order_by(col(Product.sku)).limit(_NAMED)
            statement = statement.execution_options(populate_existing=True)
            found = (await self.session.execute(statement.with_for_update() if lock else statement)).scalars().all()
            if len(found) > 1:
                skus = ", ".join(row.sku for row in found)
                raise Conflict(f"Several products are called {product!r}; give the SKU of one: {skus}")
            if found:
                return found[0]
        raise NotFound(f"There is no product {product!r}; list_products shows which there are")

    async def has(self, sku: str) -> bool:
        """Whether there is or was a product of this SKU."""
        statement = self.visible().where(col(Product.sku) == sku)
        return (await self.session.execute(statement)).scalar_one_or_none() is not None

    async def reserve(self, sku: str, quantity: int) -> None:
        """Keep pieces for an order. Raises Conflict where fewer are left."""
        # One statement that looks and takes: of two at once the second waits, and looks at what the first has left.
        left = col(Product.on_hand) - col(Product.reserved)
        is_done = await self._change(
            sku, left >= quantity, col(Product.deleted_at).is_(None), reserved=col(Product.reserved) + quantity
        )
        if not is_done:
            product = await self.named(sku, deleted=True)
            rest = 0 if product.deleted_at else product.on_hand - product.reserved
            raise Conflict(
                f"{product.name} ({sku}): {quantity} wanted, {rest} left; order fewer, or receive stock first"
            )

    async def release(self, sku: str, quantity: int) -> None:
        """Keep pieces no longer."""
        await self._change(sku, reserved=col(Product.reserved) - quantity)

    async def hand_out(self, sku: str, quantity: int) -> None:
        """Take pieces out that were kept."""
        await self._change(sku, reserved=col(Product.reserved) - quantity, on_hand=col(Product.on_hand) - quantity)

    async def count(self, sku: str, change: int) -> None:
        """Put pieces in, or take out some that are kept for nobody. Raises Conflict where there are not so many."""
        is_done = await self._change(
            sku, col(Product.on_hand) + change >= col(Product.reserved), on_hand=col(Product.on_hand) + change
        )
        if not is_done:
            product = await self.named(sku, deleted=True)
            raise Conflict(
                f"{product.name} ({sku}): there are {product.on_hand}, of which {product.reserved} are reserved for "
                f"orders, so {-change} cannot go; cancel an order first"
            )

    async def _change(self, sku: str, *conditions: object, **values: object) -> bool:
        statement = update(Product).where(
            col(Product.owner_id) == self.owner,
            col(Product.sku) == sku,
            *conditions,  # type: ignore[arg-type]  # comparisons of columns
        )
        done = await self.session.execute(
            statement.values(updated_at=now(), **values).returning(col(Product.id)),
            execution_options={"synchronize_session": False},
        )
        return done.scalar_one_or_none() is not None


class MovementRepository(Repository[StockMovement]):
    model = StockMovement

    async def record(
        self, product: Product, kind: Movement, quantity: int, *, reason: str = "", order_number: int | None = None
    ) -> None:
        """Add to the ledger what came or went."""
        movement = StockMovement(
            sku=product.sku,
            kind=kind,
            quantity=quantity,
            cost_minor=product.cost_minor,
            reason=reason,
            order_number=order_number,
            by_id=self.caller.id,
        )
        await self.add(movement)

    async def of(self, sku: str, limit: int, cursor: str | None) -> Page[StockMovement]:
        return await self.page(limit, cursor, self.visible().where(col(StockMovement.sku) == sku))


class _OfCustomers(Repository[O], Generic[O]):
    """Rows that are customers', and that staff see all of."""

    def of_all(self) -> SelectOfScalar[O]:
        return select(self.model)

    async def add_for(self, owner: UUID, row: O) -> O:
        """Add a row that is a customer's."""
        row.owner_id = owner
        self.session.add(row)
        await self.session.flush()
        return row


class CustomerRepository(_OfCustomers[Customer]):
    model = Customer

    async def listed(self, text: str | None, limit: int, cursor: str | None, *, deleted: bool) -> Page[Customer]:
        """Newest first, those whose name, email or phone has `text`."""
        gone = col(Customer.deleted_at)
        statement = self.of_all().where(gone.is_not(None) if deleted else gone.is_(None))
        if text is not None:
            fields = (col(Customer.name), col(Customer.email), col(Customer.phone))
            statement = statement.where(or_(*(f.icontains(text.strip(), autoescape=True) for f in fields)))
        return await self.page(limit, cursor, statement)

    async def of_order(self, order: CustomerOrder) -> Customer:
        """Whose order it is, also where the customer was deleted since. Raises NotFound."""
        statement = self.of_all().where(col(Customer.owner_id) == order.owner_id, col(Customer.id) == order.customer_id)
        if (found := (await self.session.execute(statement)).scalar_one_or_none()) is None:
            raise NotFound(f"The customer of order {order.number} is not there any more")
        return found

    async def named(self, customer: str, *, deleted: bool = False, lock: bool = False) -> Customer:
        """The customer with this id, email address or whole name. Raises NotFound and Conflict."""
        text, gone = customer.strip().lower(), col(Customer.deleted_at)
        said = or_(func.lower(col(Customer.email)) == text, func.lower(col(Customer.name)) == text)
        if (id := _id(customer)) is not None:
            said = col(Customer.id) == id
        statement = self.of_all().where(said, gone.is_not(None) if deleted else gone.is_(None))
        statement = statement.order_by(col(Customer.id)).limit(_NAMED)
        found = (await self.session.execute(statement.with_for_update() if lock else statement)).scalars().all()
        if not found:
            kind = "deleted customer" if deleted else "customer"
            raise NotFound(f"There is no {kind} {customer!r}; list_customers shows which there are")
        if len(found) > 1:
            ids = ", ".join(f"{row.id} ({row.email or 'no email'})" for row in found)
            raise Conflict(f"Several customers are called {customer!r}; give the id of one: {ids}")
        return found[0]


class OrderRepository(_OfCustomers[CustomerOrder]):
    model = CustomerOrder

    async def numbered(self, number: int, *, own: bool = False, lock: bool = False) -> CustomerOrder:
        """The order with this number: of anybody's, or of the caller's `own`. Raises NotFound."""
        statement = (self.visible() if own else self.of_all()).where(col(CustomerOrder.number) == number)
        found = (await self.session.execute(statement.with_for_update() if lock else statement)).scalar_one_or_none()
        if found is None:
            raise NotFound(
                f"There is no order {number}; {'list_my_orders' if own else 'list_orders'} shows which there are"
            )
        return found

    async def listed(
        self, limit: int, cursor: str | None, *, own: bool = False, status: Status | None = None,
        customer: Customer | None = None,
    ) -> Page[CustomerOrder]:  # fmt: skip
        """Orders, newest first."""
        statement = self.visible() if own else self.of_all()
        if status is not None:
            statement = statement.where(col(CustomerOrder.status) == status)
        if customer is not None:
            statement = statement.where(col(CustomerOrder.customer_id) == customer.id)
        return await self.page(limit, cursor, statement)

    async def lines(self, order: CustomerOrder) -> Sequence[OrderLine]:
        """The lines of an order that the caller was given, in the order of their SKU, in which their stock is taken."""
        statement = select(OrderLine).where(
            col(OrderLine.owner_id) == order.owner_id, col(OrderLine.order_id) == order.id
        )
        return (await self.session.execute(statement.order_by(col(OrderLine.sku)))).scalars().all()

    async def events(self, order: CustomerOrder, after: int = 0) -> Sequence[OrderEvent]:
        """What happened to an order after it was of this version, oldest first."""
        statement = select(OrderEvent).where(
            col(OrderEvent.owner_id) == order.owner_id,
            col(OrderEvent.order_id) == order.id,
            col(OrderEvent.version) > after,
        )
        return (await self.session.execute(statement.order_by(col(OrderEvent.version)))).scalars().all()

    async def note(self, order: CustomerOrder, text: str) -> None:
        """Record a change that is being made to a locked order."""
        self.session.add(
            OrderEvent(
                owner_id=order.owner_id, order_id=order.id, version=order.version, text=text, by_id=self.caller.id
            )
        )
        await self.session.flush()


class InvoiceRepository(_OfCustomers[Invoice]):
    model = Invoice

    async def listed(
        self, limit: int, cursor: str | None, *, own: bool = False, order: int | None = None
    ) -> Page[Invoice]:
        """Invoices and credit notes, newest first."""
        statement = self.visible() if own else self.of_all()
        if order is not None:
            statement = statement.where(col(Invoice.order_number) == order)
        return await self.page(limit, cursor, statement)

    async def of_order(self, order: CustomerOrder) -> Sequence[Invoice]:
        """The invoice of an order and its credit notes, oldest first."""
        statement = self.of_all().where(
            col(Invoice.owner_id) == order.owner_id, col(Invoice.order_number) == order.number
        )
        return (await self.session.execute(statement.order_by(col(Invoice.id)))).scalars().all()

    async def numbered(self, name: str, *, own: bool = False) -> Invoice:
        """The invoice or credit note of this name, as in INV-2026-00001. Raises NotFound."""
        series, _, number = name.strip().upper().rpartition("-")
        statement = self.visible() if own else self.of_all()
        if number.isascii() and number.isdigit() and len(number) < 16:
            statement = statement.where(col(Invoice.series) == series, col(Invoice.number) == int(number))
            if (found := (await self.session.execute(statement)).scalar_one_or_none()) is not None:
                return found
        listing = "list_my_invoices" if own else "list_invoices"
        raise NotFound(f"There is no invoice {name!r}; {listing} shows which there are, as in INV-2026-00001")


class SeriesRepository(Repository[NumberSeries]):
    model = NumberSeries

    async def next(self, name: str, first: int = 1) -> int:
        """The next number of a series. It is given only if the transaction commits, and another waits until then: so
        there is no gap, and none twice."""
        # Not a sequence of Postgres, which keeps the numbers of transactions that were rolled back.
        row = {"owner_id": self.owner, "id": new_id(), "name": name, "last": first}
        statement = insert(NumberSeries).values(row)
        statement = statement.on_conflict_do_update(
            index_elements=["owner_id", "name"], set_={"last": col(NumberSeries.last) + 1}
        )
        given: int = (await self.session.execute(statement.returning(col(NumberSeries.last)))).scalar_one()
        return given


def _id(text: str) -> UUID | None:
    try:
        return UUID(text.strip())
    except ValueError:
        return None
