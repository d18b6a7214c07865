"""What the slice asks of whoever takes payments."""

from dataclasses import dataclass
from typing import Literal, Protocol
from uuid import UUID

CheckoutStatus = Literal["open", "paid", "failed", "refunded"]


@dataclass(frozen=True, kw_only=True)
class Order:
    """A payment that is asked for. `key` is the same however often it is asked for."""

    payment: UUID
    owner: UUID
    title: str
    pence: int

    @property
    def key(self) -> str:
        return f"study-payment-{self.payment}"


@dataclass(frozen=True, kw_only=True)
class Checkout:
    """Where a payment stands with the provider. `url` is where it is paid while it is open; `intent` is what can be
    refunded once it is paid; `pence` is what was asked for."""

    session: str
    status: CheckoutStatus
    pence: int | None
    url: str | None = None
    intent: str | None = None


@dataclass(frozen=True, kw_only=True)
class Notice:
    """What the provider tells of a payment in an event. It has signed all of it."""

    event: str
    owner: UUID
    payment: UUID
    status: CheckoutStatus
    pence: int | None
    intent: str | None


class Provider(Protocol):
    """Takes payments. Each method raises Unavailable where the provider does not answer and Conflict where it refuses."""

    async def open(self, order: Order) -> Checkout:
        """Begin a payment. Asked again with the same order, it is the same payment."""

    async def find(self, session: str) -> Checkout:
        """Where a payment stands that was begun."""

    async def refund(self, intent: str, key: str) -> None:
        """Pay all of it back. Asked again with the same key, it is paid back once."""

    def read_notice(self, signature: str, body: bytes) -> Notice | None:
        """What an event says. None of one that is about nothing of ours. Raises Forbidden for one that is not the
        provider's or too old."""
