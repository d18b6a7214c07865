"""Tools for leads: people who want to be contacted by a person."""

import json
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID, uuid5

from pydantic import BaseModel, ConfigDict, EmailStr, Field

from agent_server import ToolContext, now, tool
from tools.diving.models import Lead
from tools.diving.repository import LeadRepository, SentLeadRepository

LEADS = """
{% for lead in items %}
- **{{ lead.name or lead.email }}**, {{ lead.created_at | date }}: {{ lead.email }}{% if lead.phone %}, {{ lead.phone }}{% endif %}{% if lead.interest %}, about {{ lead.interest }}{% endif %}
{% if lead.message %}

  {{ lead.message | short }}
{% endif %}
{% else %}
Nobody has left an address yet.
{% endfor %}
{% if next_cursor %}

There are more.
{% endif %}
"""
"""How leads read."""


# It repeats what this call gave and nothing that was known before: a website may send every visitor's form with one
# key, and whoever types an address must not be shown what its owner wrote.
class LeadReceipt(BaseModel):
    """What was passed on."""

    id: UUID
    email: str
    name: str | None
    phone: str | None
    interest: str | None
    message: str | None
    status: Literal["new"]


class LeadView(BaseModel):
    """A lead: who wants to be contacted, about what, and where they said so."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    email: str
    name: str | None
    phone: str | None
    interest: str | None
    message: str | None
    status: Literal["new"]
    source: str
    conversation_id: UUID | None
    created_at: datetime
    updated_at: datetime


class Leads(BaseModel):
    """Leads, newest first; `next_cursor` is null on the last page."""

    model_config = ConfigDict(from_attributes=True)

    items: list[LeadView]
    next_cursor: str | None


@tool(
    scope="leads:write",
    effect="stored",
    title="Get in touch",
    form="Leave your address, and a person will get in touch with you.",
    route="/api/lead",
    per_hour=20,
    phrases=(
        "have [someone|somebody|a person] [write to|contact|call|phone|email|e-mail] me [about {interest}]",
        "can [someone|somebody|a person] [write to|contact|call|phone|email|e-mail] me [about {interest}]",
        "could [someone|somebody|a person] [write to|contact|call|phone|email|e-mail] me [about {interest}]",
        "have [someone|somebody|a person] get back to me [about {interest}]",
        "can [someone|somebody|a person] get back to me [about {interest}]",
        "could [someone|somebody|a person] get back to me [about {interest}]",
        "contact me [about {interest}]",
        "call me [about {interest}]",
        "write to me about {interest}",
        "get back to me about {interest}",
        "be contacted [about {interest}]",
        "i would like to be contacted [about {interest}]",
        "i want to be contacted [about {interest}]",
        "i would like to talk to [someone|somebody|a person] about {interest}",
        "i want to talk to [someone|somebody|a person] about {interest}",
    ),
    result="Thank you. A person will get in touch with you at {{ email }}{% if interest %} about {{ interest }}{% endif %}.",
)
async def capture_lead(
    context: ToolContext,
    email: Annotated[
        EmailStr, Field(max_length=254, description="The address the user gave in this conversation; never a guess.")
    ],
    name: Annotated[str | None, Field(max_length=200, description="The user's name.")] = None,
    phone: Annotated[str | None, Field(max_length=40, description="The user's telephone number.")] = None,
    interest: Annotated[str | None, Field(max_length=200, description="What it is about, in a few words.")] = None,
    message: Annotated[str | None, Field(max_length=2000, description="Anything else to pass on.")] = None,
) -> LeadReceipt:
    """Pass the user's address on to a person who will get in touch.

    Only for a user who asks for it and has given the address. A second call for the same address in a conversation
    adds to the first, unless it says the same.
    """
    name, phone, interest, message = (_stripped(text) for text in (name, phone, interest, message))
    lead = Lead(
        email=email.lower(),
        name=name,
        phone=phone,
        interest=interest,
        message=message,
        source=context.surface,
        conversation_id=context.conversation_id,
        details={"caller": context.caller.kind, "turn": str(context.turn_id) if context.turn_id else None},
    )
    id = await context.repository(SentLeadRepository).once(_key(context, lead), lead.id)
    if id == lead.id:
        await context.repository(LeadRepository).add(lead)
    return LeadReceipt(
        id=id,
        email=lead.email,
        name=name,
        phone=phone,
        interest=interest,
        message=message,
        status=lead.status,
    )


def _key(context: ToolContext, lead: Lead) -> UUID:
    """The same for the same content of a caller in a conversation, or outside of one on a day (UTC)."""
    within = str(context.conversation_id or now().date())
    said = [within, lead.email, lead.name, lead.phone, lead.interest, lead.message]
    return uuid5(context.caller.id, json.dumps(said))


def _stripped(text: str | None) -> str | None:
    """A form sends the fields that were left empty as empty text."""
    return text.strip() or None if text else None


@tool(scope="leads:read", effect="read", staff=True, result=LEADS)
async def list_leads(
    context: ToolContext,
    limit: Annotated[int, Field(ge=1, le=100, description="How many, at most.")] = 20,
    cursor: Annotated[str | None, Field(max_length=200, description="`next_cursor` of the page before.")] = None,
) -> Leads:
    """List the leads that all callers left, newest first. For staff."""
    return Leads.model_validate(await context.repository(LeadRepository).of_all_callers(limit, cursor))
