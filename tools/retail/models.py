"""Rows of a shop: its products and their stock, customers, orders, invoices.

Money is a whole number of the smallest unit of its currency (`_minor`: cents, pence), without tax where it is a price.
A tax rate is in hundredths of a percent (`_bp`): 2000 is 20 %.

What is the shop's is owned by nobody (`Shared`), and there for staff alone. What is about a customer is the customer's:
whoever has an account in this server sees it, and staff see all of it. A customer without an account is an owner of
their own, whose id is that of their row in `customer`.
"""

from datetime import datetime
from typing import Any, ClassVar, Literal, get_args
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, DateTime, ForeignKeyConstraint, Index, String, UniqueConstraint
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from agent_server import Owned, Shared, Timestamps, now
from agent_server.db import RowPolicy

Movement = Literal["receipt", "sale", "return", "adjustment"]
Status = Literal["draft", "placed", "paid", "shipped", "delivered", "cancelled", "returned"]
STATUSES: tuple[Status, ...] = get_args(Status)
Paper = Literal["invoice", "credit_note"]


class Product(Shared, Timestamps, table=True):
    """`on_hand` is what its movements add up to. `reserved` of it is in orders that are placed and not yet shipped."""

    __tablename__ = "product"
    __table_args__ = (
        UniqueConstraint("owner_id", "sku"),
        CheckConstraint("reserved >= 0 and on_hand >= reserved", name="ck_product_stock"),
    )
    row_policy: ClassVar[RowPolicy] = RowPolicy(read_scope="stock:read", write_scope="stock:write")

    sku: str
    name: str
    description: str = ""
    currency: str
    price_minor: int = Field(sa_type=BigInteger, ge=0)
    cost_minor: int = Field(sa_type=BigInteger, ge=0)
    tax_rate_bp: int = Field(ge=0, le=10_000)
    reorder_level: int = Field(default=0, ge=0)
    on_hand: int = Field(default=0, ge=0)
    reserved: int = Field(default=0, ge=0)
    version: int = 1
    deleted_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))


class StockMovement(Shared, table=True):
    """Pieces of a product that came (above zero) or went. Nobody changes or removes one: another one puts it right.

    `cost_minor` is what a piece cost the shop at that time: here, because a customer gets to see the lines of an order.
    """

    __tablename__ = "stock_movement"
    __table_args__ = (Index("ix_stock_movement_sku", "owner_id", "sku", "id"),)
    row_policy: ClassVar[RowPolicy] = RowPolicy(append_only=True, read_scope="stock:read", write_scope="stock:write")

    sku: str
    kind: Movement = Field(sa_type=String)
    quantity: int
    cost_minor: int = Field(default=0, sa_type=BigInteger)
    reason: str = ""
    order_number: int | None = Field(default=None, sa_type=BigInteger)
    by_id: UUID | None = None
    created_at: datetime = Field(default_factory=now, sa_type=DateTime(timezone=True))


class Customer(Owned, Timestamps, table=True):
    """Who buys. `owner_id` is their account, or without one the `id` of this row."""

    __tablename__ = "customer"
    row_policy: ClassVar[RowPolicy] = RowPolicy(read_scope="customers:read", write_scope="customers:write")

    name: str
    email: str | None = None
    phone: str | None = None
    address: str = ""
    note: str = ""
    version: int = 1
    deleted_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))


class CustomerOrder(Owned, Timestamps, table=True):
    """`version` grows by one with each change, which `OrderEvent` describes."""

    __tablename__ = "customer_order"
    __table_args__ = (
        ForeignKeyConstraint(["owner_id", "customer_id"], ["customer.owner_id", "customer.id"], ondelete="CASCADE"),
        Index("ix_customer_order_number", "number"),
        Index("ix_customer_order_status", "status", "id"),
    )
    row_policy: ClassVar[RowPolicy] = RowPolicy(read_scope="orders:read", write_scope="orders:write")

    number: int = Field(sa_type=BigInteger)
    customer_id: UUID
    status: Status = Field(default="draft", sa_type=String)
    version: int = 1
    currency: str
    net_minor: int = Field(default=0, sa_type=BigInteger)
    tax_minor: int = Field(default=0, sa_type=BigInteger)
    total_minor: int = Field(default=0, sa_type=BigInteger)
    ship_to: str = ""
    note: str = ""
    carrier: str = ""
    tracking: str = ""
    placed_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))
    paid_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))
    shipped_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))
    delivered_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))
    closed_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))


class OrderLine(Owned, table=True):
    """A product in an order, with its name, price and tax rate as they were then. `net_minor` is quantity x price less
    the discount of the line; `returned` of the quantity came back."""

    __tablename__ = "order_line"
    __table_args__ = (
        ForeignKeyConstraint(
            ["owner_id", "order_id"],
            ["customer_order.owner_id", "customer_order.id"],
            ondelete="CASCADE",
        ),
        UniqueConstraint("owner_id", "order_id", "sku"),
    )
    row_policy: ClassVar[RowPolicy] = RowPolicy(read_scope="orders:read", write_scope="orders:write")

    order_id: UUID
    position: int
    sku: str
    name: str
    quantity: int
    returned: int = 0
    price_minor: int = Field(sa_type=BigInteger)
    discount_minor: int = Field(default=0, sa_type=BigInteger)
    tax_rate_bp: int
    net_minor: int = Field(sa_type=BigInteger)


class OrderEvent(Owned, table=True):
    """What the change of an order that made it this `version` was, in words. `by_id` is who made it."""

    __tablename__ = "order_event"
    __table_args__ = (
        ForeignKeyConstraint(
            ["owner_id", "order_id"],
            ["customer_order.owner_id", "customer_order.id"],
            ondelete="CASCADE",
        ),
        UniqueConstraint("owner_id", "order_id", "version"),
    )
    row_policy: ClassVar[RowPolicy] = RowPolicy(read_scope="orders:read", write_scope="orders:write")

    order_id: UUID
    version: int
    text: str
    by_id: UUID
    created_at: datetime = Field(default_factory=now, sa_type=DateTime(timezone=True))


class Invoice(Owned, table=True):
    """An invoice or a credit note, as it was issued. Nobody changes or removes one, not even with the account of whom
    it is about: a credit note puts it right. So it refers to no other row, and holds all that stands on it.

    `lines` are `tools.retail.money.Line`s and `taxes` its `Tax`es, as JSON.
    """

    __tablename__ = "invoice"
    __table_args__ = (
        UniqueConstraint("owner_id", "series", "number"),
        Index("ix_invoice_number", "series", "number"),
        Index("ix_invoice_order", "order_number"),
    )
    row_policy: ClassVar[RowPolicy] = RowPolicy(
        append_only=True, read_scope="invoices:read", write_scope="invoices:write"
    )

    kind: Paper = Field(default="invoice", sa_type=String)
    series: str
    number: int = Field(sa_type=BigInteger)
    corrects: str | None = None
    reason: str = ""
    order_number: int = Field(sa_type=BigInteger)
    customer_id: UUID
    customer_name: str
    customer_address: str
    currency: str
    lines: list[dict[str, Any]] = Field(sa_type=JSONB)
    taxes: list[dict[str, Any]] = Field(sa_type=JSONB)
    net_minor: int = Field(sa_type=BigInteger)
    tax_minor: int = Field(sa_type=BigInteger)
    total_minor: int = Field(sa_type=BigInteger)
    by_id: UUID
    issued_at: datetime = Field(default_factory=now, sa_type=DateTime(timezone=True))


class NumberSeries(Shared, table=True):
    """The last number that was given in a series: of orders, of the invoices of a year, of its credit notes."""

    __tablename__ = "number_series"
    __table_args__ = (UniqueConstraint("owner_id", "name"),)
    row_policy: ClassVar[RowPolicy] = RowPolicy(read_scope="orders:read", write_scope="orders:write")

    name: str
    last: int = Field(sa_type=BigInteger)
