"""What reports are made of, added up by the database."""

from datetime import datetime
from typing import Any, Literal, NamedTuple

from sqlalchemy import Date, Numeric, and_, case, cast, func, literal_column, select
from sqlmodel import col

from agent_server import Repository
from tools.retail.models import Customer, CustomerOrder, Invoice, OrderLine, Product, StockMovement


class Sale(NamedTuple):
    """What was sold on a day, of a product or to a customer."""

    name: str
    currency: str
    pieces: int
    net_minor: int
    cost_minor: int

    @property
    def margin_minor(self) -> int:
        return self.net_minor - self.cost_minor


class Shelf(NamedTuple):
    """A product, how many pieces of it there are and were, and how many were sold since, less what came back."""

    name: str
    currency: str
    cost_minor: int
    reorder_level: int
    on_hand: int
    left: int
    on_hand_before: int
    sold: int


class Debt(NamedTuple):
    """An invoice that is not paid."""

    customer: str
    currency: str
    issued_at: datetime
    open_minor: int


class FiguresRepository(Repository[Product]):
    """Sums for staff. The policies of the database leave them empty for whoever lacks the scopes of the tables."""

    model = Product

    async def sales(self, by: Literal["day", "product", "customer"], since: datetime, before: datetime) -> list[Sale]:
        """Sales of orders that were shipped in a time, by their day, product or customer."""
        kept = col(OrderLine.quantity) - col(OrderLine.returned)
        # As `money.keep` rounds it: Postgres rounds halves of numerics away from zero.
        net = func.round(cast(col(OrderLine.net_minor), Numeric) * kept / col(OrderLine.quantity))
        cost = (
            select(
                col(StockMovement.order_number),
                col(StockMovement.sku),
                func.sum(-col(StockMovement.quantity) * col(StockMovement.cost_minor)).label("cost_minor"),
            )
            .where(col(StockMovement.kind).in_(("sale", "return")), col(StockMovement.order_number).is_not(None))
            .group_by(col(StockMovement.order_number), col(StockMovement.sku))
            .subquery()
        )
        key = self._key(by)
        statement = (
            select(
                key,
                col(CustomerOrder.currency),
                func.sum(kept),
                func.sum(net),
                func.coalesce(func.sum(cost.c.cost_minor), 0),
            )
            .select_from(OrderLine)
            .join(
                CustomerOrder,
                and_(
                    col(CustomerOrder.owner_id) == col(OrderLine.owner_id),
                    col(CustomerOrder.id) == col(OrderLine.order_id),
                ),
            )
            .join(
                Customer,
                and_(
                    col(Customer.owner_id) == col(CustomerOrder.owner_id),
                    col(Customer.id) == col(CustomerOrder.customer_id),
                ),
            )
            .outerjoin(
                cost,
                and_(cost.c.order_number == col(CustomerOrder.number), cost.c.sku == col(OrderLine.sku)),
            )
            .where(col(CustomerOrder.shipped_at) >= since, col(CustomerOrder.shipped_at) < before, kept > 0)
            .group_by(*self._grouped(by), col(CustomerOrder.currency))
            .order_by(key)
        )
        rows = (await self.session.execute(statement)).all()
        return [Sale(str(row[0]), row[1], *map(int, row[2:])) for row in rows]

    def _key(self, by: str) -> Any:
        match by:
            case "day":
                return cast(func.timezone(literal_column("'UTC'"), col(CustomerOrder.shipped_at)), Date)
            case "product":
                return col(OrderLine.sku)
            case _:
                return func.max(col(Customer.name))

    def _grouped(self, by: str) -> list[Any]:
        # Two customers of one name are two.
        return [col(CustomerOrder.customer_id)] if by == "customer" else [self._key(by)]

    async def shelves(self, since: datetime) -> list[Shelf]:
        """Products that are not deleted, with what moved since then, by their names."""
        is_sale = col(StockMovement.kind).in_(("sale", "return"))
        moved = (
            select(
                col(StockMovement.sku),
                func.sum(col(StockMovement.quantity)).label("moved"),
                func.sum(case((is_sale, -col(StockMovement.quantity)), else_=0)).label("sold"),
            )
            .where(col(StockMovement.owner_id) == self.owner, col(StockMovement.created_at) >= since)
            .group_by(col(StockMovement.sku))
            .subquery()
        )
        left = col(Product.on_hand) - col(Product.reserved)
        before = col(Product.on_hand) - func.coalesce(moved.c.moved, 0)
        statement = (
            select(
                col(Product.name),
                col(Product.currency),
                col(Product.cost_minor),
                col(Product.reorder_level),
                col(Product.on_hand),
                left,
                before,
                func.coalesce(moved.c.sold, 0),
            )
            .outerjoin(moved, moved.c.sku == col(Product.sku))
            .where(col(Product.owner_id) == self.owner, col(Product.deleted_at).is_(None))
            .order_by(col(Product.name), col(Product.sku))
        )
        rows = (await self.session.execute(statement)).all()
        return [Shelf(row[0], row[1], *map(int, row[2:])) for row in rows]

    async def debts(self) -> list[Debt]:
        """Invoices of orders that are not paid, less what credit notes give back, oldest first; none that is settled."""
        amount = case((col(Invoice.kind) == "invoice", col(Invoice.total_minor)), else_=-col(Invoice.total_minor))
        issued = func.min(col(Invoice.issued_at)).filter(col(Invoice.kind) == "invoice")
        statement = (
            select(func.max(col(Invoice.customer_name)), col(Invoice.currency), issued, func.sum(amount))
            .join(
                CustomerOrder,
                and_(
                    col(CustomerOrder.owner_id) == col(Invoice.owner_id),
                    col(CustomerOrder.number) == col(Invoice.order_number),
                ),
            )
            .where(col(CustomerOrder.paid_at).is_(None))
            .group_by(col(Invoice.owner_id), col(Invoice.order_number), col(Invoice.currency))
            .having(func.sum(amount) != 0)
            .order_by(issued)
        )
        rows = (await self.session.execute(statement)).all()
        return [Debt(row[0], row[1], row[2], int(row[3])) for row in rows]
