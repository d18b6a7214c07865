"""Rows of diving: destinations and dive sites, which come from data/, and the leads that callers leave."""

from typing import Any, Literal, get_args
from uuid import UUID

from sqlalchemy import ForeignKeyConstraint, Index, SmallInteger, String, UniqueConstraint
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TEXT
from sqlmodel import Field

from agent_server import Owned, Shared, Submitted, Timestamps, submission_policy

Level = Literal["open_water", "advanced", "experienced", "technical"]
"""What a diver can do, least first: to 18 m; to 30 m; advanced and at home in currents; beyond 40 m."""

LEVELS: tuple[Level, ...] = get_args(Level)

Kind = Literal["reef", "wall", "wreck", "pinnacle", "drift", "shore", "cave", "muck"]
Current = Literal["none", "mild", "moderate", "strong"]


class Destination(Shared, table=True):
    """`level` is the lowest that makes good use of it; `page` is its text under content/; months are 1 to 12."""

    __tablename__ = "destination"
    __table_args__ = (UniqueConstraint("owner_id", "slug"),)

    slug: str
    name: str
    country: str
    region: str
    summary: str
    season_months: list[int] = Field(sa_type=ARRAY(SmallInteger))
    water_min_c: int
    water_max_c: int
    level: Level = Field(sa_type=String)
    known_for: list[str] = Field(sa_type=ARRAY(TEXT))
    page: str


class DiveSite(Shared, table=True):
    """`max_depth_m` is the deepest point that a visitor of its `level` plans to reach; not for navigation."""

    __tablename__ = "dive_site"
    __table_args__ = (
        UniqueConstraint("owner_id", "slug"),
        ForeignKeyConstraint(["owner_id", "destination"], ["destination.owner_id", "destination.slug"]),
    )

    slug: str
    name: str
    destination: str
    kind: Kind = Field(sa_type=String)
    level: Level = Field(sa_type=String)
    max_depth_m: int
    current: Current = Field(sa_type=String)
    latitude: float = Field(ge=-90, le=90)
    longitude: float = Field(ge=-180, le=180)
    summary: str
    hazards: list[str] = Field(sa_type=ARRAY(TEXT))


class Lead(Submitted, Timestamps, table=True):
    """What somebody who wants to be contacted wrote; `source` is the surface it came through. Staff alone read it.

    Within a conversation what is left with one address is one lead: the first row gives it its id, the later ones add
    to it. Outside of one (a form that a website's own key sends) each row is a lead of its own, since the callers of
    such a key are not told apart. What says the same as one before, in the conversation or on the day, is no row.
    """

    __tablename__ = "lead"
    __table_args__ = (Index("ix_lead_owner_conversation_email", "owner_id", "conversation_id", "email"),)
    row_policy = submission_policy(to="leads:read")

    email: str
    name: str | None = None
    phone: str | None = None
    interest: str | None = None
    message: str | None = None
    status: Literal["new"] = Field(default="new", sa_type=String)
    source: str
    conversation_id: UUID | None = None
    details: dict[str, Any] = Field(default_factory=dict, sa_type=JSONB, sa_column_kwargs={"name": "metadata"})


class SentLead(Owned, table=True):
    """That a caller has left `lead_id`. The id is made of its content and of the conversation or day, so that it is left
    once. It says nothing of what was left, which the caller does not get to read."""

    __tablename__ = "sent_lead"

    lead_id: UUID
