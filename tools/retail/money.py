"""What an order comes to.

All amounts are whole numbers of the smallest unit of a currency. The net of a line is quantity x price less its discount.
Tax is worked out once for each rate, on the sum of the nets that have it, and rounded to the nearest unit, halves away
from zero. The total is the sum of all nets and all taxes, so nothing is rounded twice and nothing is left over.
"""

from collections.abc import Sequence
from itertools import groupby

from pydantic import BaseModel, ConfigDict

_DIGITS = {"BHD": 3, "JOD": 3, "KWD": 3, "OMR": 3, "TND": 3}
_WHOLE = frozenset({"CLP", "ISK", "JPY", "KRW", "PYG", "UGX", "VND", "XAF", "XOF"})
"""Currencies with another number of decimals than two (ISO 4217)."""


class Line(BaseModel):
    """A line of an order, an invoice or a credit note."""

    model_config = ConfigDict(from_attributes=True, frozen=True)

    sku: str
    name: str
    quantity: int
    price_minor: int
    discount_minor: int = 0
    tax_rate_bp: int
    net_minor: int


class Tax(BaseModel):
    """The tax of one rate, and the net that it is on."""

    model_config = ConfigDict(frozen=True)

    rate_bp: int
    net_minor: int
    tax_minor: int


class Totals(BaseModel):
    """What lines come to."""

    model_config = ConfigDict(frozen=True)

    taxes: list[Tax]
    net_minor: int
    tax_minor: int
    total_minor: int


def divide(amount: int, by: int) -> int:
    """`amount / by` to the nearest whole number, halves away from zero. `by` is above zero."""
    nearest = (2 * abs(amount) + by) // (2 * by)
    return nearest if amount >= 0 else -nearest


def add_up(lines: Sequence[Line]) -> Totals:
    """What lines come to, with their taxes by rate."""
    by_rate = sorted(lines, key=lambda line: line.tax_rate_bp)
    nets = [
        (rate, sum(line.net_minor for line in of_rate))
        for rate, of_rate in groupby(by_rate, key=lambda line: line.tax_rate_bp)
    ]
    return _together([Tax(rate_bp=rate, net_minor=net, tax_minor=divide(net * rate, 10_000)) for rate, net in nets])


def subtract(before: Totals, after: Totals) -> Totals:
    """What is in `before` and no more in `after`."""
    left = {tax.rate_bp: tax for tax in after.taxes}
    none = Tax(rate_bp=0, net_minor=0, tax_minor=0)
    less = [(tax, left.get(tax.rate_bp, none)) for tax in before.taxes]
    taxes = [
        Tax(rate_bp=was.rate_bp, net_minor=was.net_minor - now.net_minor, tax_minor=was.tax_minor - now.tax_minor)
        for was, now in less
    ]
    return _together([tax for tax in taxes if tax.net_minor or tax.tax_minor])


def _together(taxes: list[Tax]) -> Totals:
    net, tax = sum(t.net_minor for t in taxes), sum(t.tax_minor for t in taxes)
    return Totals(taxes=taxes, net_minor=net, tax_minor=tax, total_minor=net + tax)


def keep(line: Line, quantity: int) -> Line:
    """The part of a line that `quantity` of its pieces are, with their part of the discount."""
    net = divide(line.net_minor * quantity, line.quantity)
    discount = line.price_minor * quantity - net
    return line.model_copy(update={"quantity": quantity, "discount_minor": discount, "net_minor": net})


def credit(lines: Sequence[Line], credited: dict[str, int], now: dict[str, int]) -> tuple[list[Line], Totals]:
    """The lines and totals of a credit note for the quantities `now`, after notes for `credited`, by SKU.

    It is what the invoice comes to before less what it comes to after, so that the notes for all of an invoice add up
    to the invoice, however many they are.
    """
    # Both of the line as it was invoiced, so that what is left after one note is what there is before the next.
    left = {line.sku: line.quantity - credited.get(line.sku, 0) for line in lines}
    before = [keep(line, left[line.sku]) for line in lines]
    after = [keep(line, left[line.sku] - now.get(line.sku, 0)) for line in lines]
    noted = [
        was.model_copy(
            update={
                "quantity": was.quantity - rest.quantity,
                "discount_minor": was.discount_minor - rest.discount_minor,
                "net_minor": was.net_minor - rest.net_minor,
            }
        )
        for was, rest in zip(before, after, strict=True)
        if was.quantity > rest.quantity
    ]
    return noted, subtract(add_up(before), add_up(after))


def say_money(minor: int, currency: str) -> str:
    """An amount as people read it: "12.50 EUR"."""
    digits = 0 if currency in _WHOLE else _DIGITS.get(currency, 2)
    sign, whole = "-" if minor < 0 else "", str(abs(minor)).rjust(digits + 1, "0")
    return f"{sign}{whole[:-digits]}.{whole[-digits:]} {currency}" if digits else f"{sign}{whole} {currency}"


def say_rate(rate_bp: int) -> str:
    """A rate as people read it: "20 %", "5.5 %"."""
    return f"{rate_bp / 100:g} %"
