"""Rows of study abroad: programmes, which come from data/, and each student's reports and payments."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, get_args
from uuid import UUID

from sqlalchemy import DateTime, Index, String, UniqueConstraint
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TEXT
from sqlmodel import Field

from agent_server import Owned, Shared, Timestamps

StudyLevel = Literal["bachelor", "integrated master", "master", "doctorate"]
LEVELS: tuple[StudyLevel, ...] = get_args(StudyLevel)

ReportStatus = Literal["requested", "drafted", "delivered", "expired"]
PaymentStatus = Literal["created", "pending", "succeeded", "failed", "refunded"]

REPORT_MOVES: Mapping[ReportStatus, frozenset[ReportStatus]] = {
    "requested": frozenset({"drafted", "expired"}),
    "drafted": frozenset({"delivered", "expired"}),
    "delivered": frozenset({"expired"}),
    "expired": frozenset(),
}
"""What may follow each status of a report."""
PAYMENT_MOVES: Mapping[PaymentStatus, frozenset[PaymentStatus]] = {
    "created": frozenset({"pending", "succeeded", "failed"}),
    "pending": frozenset({"succeeded", "failed"}),
    # What failed at first may be paid all the same, as with a bank that is slow: the provider's last word counts.
    "failed": frozenset({"succeeded"}),
    "succeeded": frozenset({"refunded"}),
    "refunded": frozenset(),
}
"""What may follow each status of a payment."""


class Programme(Shared, table=True):
    """A programme of a university. `source` is the page that was read and `source_date` says how old it is; `tuition`
    (pounds, for whom, which year) and `deposit` are there only where that page states them; `check` is where to look."""

    __tablename__ = "study_programme"
    __table_args__ = (UniqueConstraint("owner_id", "slug"),)

    slug: str
    university: str
    city: str
    nation: str
    name: str
    award: str
    level: StudyLevel = Field(sa_type=String)
    subject: str
    months: int
    mode: str
    start: str
    tuition: dict[str, Any] | None = Field(default=None, sa_type=JSONB(none_as_null=True))
    deposit: int | None = None
    source: str
    source_date: str
    check: str


class Report(Owned, Timestamps, table=True):
    """A report for a student. `price_pence` is what it costs, 0 for nothing; it ends at `expires_at` whatever its status."""

    __tablename__ = "study_report"

    topic: str = Field(max_length=200)
    status: ReportStatus = Field(default="requested", sa_type=String)
    price_pence: int = 0
    sources: list[str] = Field(default_factory=list, sa_type=ARRAY(TEXT))
    expires_at: datetime = Field(sa_type=DateTime(timezone=True))
    delivered_at: datetime | None = Field(default=None, sa_type=DateTime(timezone=True))


class ReportText(Owned, table=True):
    """The Markdown of the report with the same id. It is there from the draft on, and shown from the delivery on."""

    __tablename__ = "study_report_text"
    # Out of an export of what a caller owns, which would show a report that is not paid yet.
    __table_args__ = ({"info": {"derived": True}},)

    text: str


class Payment(Owned, Timestamps, table=True):
    """One try to pay for a report. The id is made of the report and of the `number` of the try, so that the provider is
    asked with the same key however often it is asked."""

    __tablename__ = "study_payment"
    __table_args__ = (Index("ix_study_payment_report", "owner_id", "report_id", "number"),)

    report_id: UUID
    number: int
    status: PaymentStatus = Field(default="created", sa_type=String)
    pence: int
    session: str | None = None
    url: str | None = None
    intent: str | None = None


class PaymentEvent(Owned, table=True):
    """That an event of the provider's was heard. The id is made of the provider's, so that it counts once."""

    __tablename__ = "study_payment_event"

    payment_id: UUID
    event: str
