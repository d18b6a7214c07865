"""What the shop's tools take, and what several of them return."""

from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints

Which = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
ProductName = Annotated[Which, Field(description="SKU or whole name.")]
CustomerName = Annotated[Which, Field(description="Id, email address or whole name.")]
OrderNumber = Annotated[int, Field(ge=1, le=10**9, description="As in 1042.")]
InvoiceName = Annotated[Which, Field(description="As in INV-2026-00042.")]
Quantity = Annotated[int, Field(ge=1, le=1_000_000, description="How many pieces.")]
Minor = Annotated[
    int,
    Field(ge=0, le=10**12, description="In the smallest unit, without tax: 1250 is 12.50 EUR."),
]
Version = Annotated[int, Field(ge=1, description="The one that you have read.")]
Limit = Annotated[int, Field(ge=1, le=100, description="How many, at most.")]
Cursor = Annotated[str | None, Field(max_length=100, description="`next_cursor` of the page before.")]
Text = Annotated[str, Field(max_length=2000)]


class Item(BaseModel):
    """Pieces of a product."""

    product: ProductName
    quantity: Quantity
