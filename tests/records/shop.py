"""A table with everything that the engine keeps of records. Imported by tests in a process of their own: a model is
there for all tests of its process."""

from decimal import Decimal
from uuid import UUID

from sqlalchemy import ForeignKeyConstraint, Index, UniqueConstraint, text
from sqlmodel import Field

from agent_server import (
    Audited,
    Owned,
    Repository,
    SoftDeleted,
    Supervised,
    Timestamps,
    Versioned,
    supervision_policy,
)

READ, WRITE = "orders:all", "orders:edit"


class Order(Supervised, SoftDeleted, Versioned, Audited, table=True):
    __tablename__ = "shop_order"
    __table_args__ = (
        Index("ux_shop_order", "owner_id", "code", unique=True, postgresql_where=text("deleted_at is null")),
        UniqueConstraint("owner_id", "id"),
    )
    row_policy = supervision_policy(read=READ, write=WRITE)

    code: str
    note: str = ""
    total: Decimal = Decimal("0.00")


class Receipt(Owned, Timestamps, table=True):
    """What keeps an order from being purged."""

    __tablename__ = "shop_receipt"
    __table_args__ = (ForeignKeyConstraint(["owner_id", "order_id"], ["shop_order.owner_id", "shop_order.id"]),)

    order_id: UUID


class Plain(Owned, Versioned, table=True):
    """Versions without an audit."""

    __tablename__ = "shop_plain"

    title: str = Field(max_length=10)


class OrderRepository(Repository[Order]):
    model = Order


class ReceiptRepository(Repository[Receipt]):
    model = Receipt


class PlainRepository(Repository[Plain]):
    model = Plain
