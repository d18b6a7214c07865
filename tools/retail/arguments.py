"""What the shop's tools take, and what several of them return."""

from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints

Which = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
ProductName = Annotated[Which, Field(description="A product's SKU, or its whole name.")]
CustomerName = Annotated[Which, Field(description="A customer's id, email address, or whole name.")]
OrderNumber = Annotated[int, Field(ge=1, le=10**15, description="An order's number, as in 1042.")]
InvoiceName = Annotated[Which, Field(description="The number of an invoice or credit note, as in INV-2026-00042.")]
Quantity = Annotated[int, Field(ge=1, le=1_000_000, description="How many pieces.")]
Minor = Annotated[
    int,
    Field(
        ge=0, le=10**12, description="An amount without tax in the smallest unit of its currency: 1250 is 12.50 EUR."
    ),
]
Version = Annotated[
    int, Field(ge=1, description="The version that you have read; what was changed since is told and not overwritten.")
]
Limit = Annotated[int, Field(ge=1, le=100, description="How many, at most.")]
Cursor = Annotated[str | None, Field(max_length=100, description="`next_cursor` of the page before.")]
Text = Annotated[str, Field(max_length=2000)]


class Item(BaseModel):
    """So many pieces of a product."""

    product: ProductName
    quantity: Quantity
