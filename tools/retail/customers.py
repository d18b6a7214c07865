"""Tools for the shop's customers, for staff."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, EmailStr, Field, StringConstraints

from agent_server import Conflict, InvalidInput, Loss, ToolContext, new_id, now, tool
from tools.retail.arguments import Cursor, CustomerName, Limit, Text, Version
from tools.retail.models import Customer
from tools.retail.repository import CustomerRepository

Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=200),
    Field(description="Of a person or a company."),
]
Email = Annotated[EmailStr, Field(max_length=254)]
Phone = Annotated[str, Field(max_length=40)]
Address = Annotated[str, Field(max_length=500, description="Where invoices and parcels go.")]
Note = Annotated[Text, Field(description="Whatever else matters. The customer may read it.")]

CUSTOMER = "**{{ name }}**{% if email %}, {{ email }}{% endif %}{% if phone %}, {{ phone }}{% endif %}{% if address %}, {{ address }}{% endif %}"
CUSTOMERS = """
{% for customer in items %}
- **{{ customer.name }}**{% if customer.email %}, {{ customer.email }}{% endif %}{% if customer.phone %}, {{ customer.phone }}{% endif %}
{% else %}
There is no such customer.
{% endfor %}
{% if next_cursor %}

There are more.
{% endif %}
"""
"""How customers read."""


class CustomerView(BaseModel):
    """A customer. `owner_id` is their account in this server, or the same as `id` where they have none."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    owner_id: UUID
    name: str
    email: str | None
    phone: str | None
    address: str
    note: str
    version: int
    created_at: datetime
    deleted_at: datetime | None


class Customers(BaseModel):
    """Customers, newest first; `next_cursor` is null on the last page."""

    model_config = ConfigDict(from_attributes=True)

    items: list[CustomerView]
    next_cursor: str | None


@tool(
    scope="customers:write",
    effect="stored",
    staff=True,
    title="Add a customer",
    phrases=("add [a] [new] customer {name}", "create [a] [new] customer {name}", "new customer {name}"),
    result=f"Added: {CUSTOMER}",
)
async def add_customer(
    context: ToolContext,
    name: Name,
    email: Email | None = None,
    phone: Phone | None = None,
    address: Address = "",
    note: Note = "",
    account_id: Annotated[
        UUID | None, Field(description="Their account here, by which they see their orders. It stays.")
    ] = None,
) -> CustomerView:
    """Add a customer."""
    row = Customer(id=new_id(), name=name, email=email and email.lower(), phone=phone, address=address, note=note)
    return CustomerView.model_validate(await context.repository(CustomerRepository).add_for(account_id or row.id, row))


@tool(
    scope="customers:write",
    effect="stored",
    staff=True,
    phrases=("change the address of {customer} to {address}", "change the email of {customer}"),
    result=f"Changed: {CUSTOMER}",
)
async def update_customer(
    context: ToolContext,
    customer: CustomerName,
    version: Version | None = None,
    name: Name | None = None,
    email: Email | None = None,
    phone: Phone | None = None,
    address: Address | None = None,
    note: Note | None = None,
) -> CustomerView:
    """Change a customer; what is not given stays, and so do invoices that were issued."""
    row = await context.repository(CustomerRepository).named(customer, lock=True)
    if version is not None and version != row.version:
        raise Conflict(
            f"{row.name} has changed since version {version}; it is now version {row.version}: {row.email}, {row.phone}, "
            f"{row.address}"
        )
    changes = {
        "name": name,
        "email": email and email.lower(),
        "phone": phone,
        "address": address,
        "note": note,
    }
    given = {field: value for field, value in changes.items() if value is not None}
    if not given:
        raise InvalidInput(f"There is nothing to change; give one of {', '.join(changes)}")
    for field, value in given.items():
        setattr(row, field, value)
    row.version += 1
    await context.session.flush()
    return CustomerView.model_validate(row)


@tool(
    scope="customers:read",
    effect="read",
    staff=True,
    phrases=(
        "show [me] [all|the|our] customers",
        "list [all|the|our] customers",
        "find [the] customers [called|named] {text}",
    ),
    result=CUSTOMERS,
)
async def list_customers(
    context: ToolContext,
    text: Annotated[str | None, Field(max_length=100, description="A part of the name, email or phone.")] = None,
    deleted: Annotated[bool, Field(description="True lists those that were deleted.")] = False,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Customers:
    """List the shop's customers, newest first."""
    page = await context.repository(CustomerRepository).listed(text, limit, cursor, deleted=deleted)
    return Customers.model_validate(page)


@tool(
    scope="customers:read",
    effect="read",
    staff=True,
    phrases=("show [me] [the] customer {customer}",),
    result=CUSTOMER,
)
async def get_customer(context: ToolContext, customer: CustomerName) -> CustomerView:
    """Read one customer."""
    return CustomerView.model_validate(await context.repository(CustomerRepository).named(customer))


async def _customer_lost(context: ToolContext, customer: CustomerName) -> list[Loss]:
    row = await context.repository(CustomerRepository).named(customer, lock=True)
    return [Loss(row.id, row.name)]


@tool(
    scope="customers:write",
    effect="stored",
    staff=True,
    destructive=True,
    losses=_customer_lost,
    phrases=("delete [the] customer {customer}", "remove [the] customer {customer}"),
    result="Deleted: **{{ name }}**",
)
async def delete_customer(context: ToolContext, customer: CustomerName) -> CustomerView:
    """Delete a customer. Orders and invoices stay, and the customer can be restored."""
    row = await context.repository(CustomerRepository).named(customer, lock=True)
    row.deleted_at = now()
    await context.session.flush()
    return CustomerView.model_validate(row)


@tool(
    scope="customers:write",
    effect="stored",
    staff=True,
    phrases=("restore [the] customer {customer}",),
    result=f"Restored: {CUSTOMER}",
)
async def restore_customer(context: ToolContext, customer: CustomerName) -> CustomerView:
    """Bring back a customer who was deleted."""
    row = await context.repository(CustomerRepository).named(customer, deleted=True, lock=True)
    row.deleted_at = None
    await context.session.flush()
    return CustomerView.model_validate(row)
