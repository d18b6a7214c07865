"""Programmes, which everybody may see, and reports and payments, as their student may see them."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID, uuid5

from sqlalchemy import func
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from agent_server import Conflict, NotFound, Repository, now
from tools.study.models import (
    PAYMENT_MOVES,
    REPORT_MOVES,
    Payment,
    PaymentEvent,
    PaymentStatus,
    Programme,
    Report,
    ReportStatus,
    ReportText,
)

KEPT = timedelta(days=180)
"""How long a report that was delivered may be read: fees and rules change with each year of entry."""


class ProgrammeRepository(Repository[Programme]):
    model = Programme

    def wanted(
        self,
        subject: str | None = None,
        level: str | None = None,
        city: str | None = None,
        university: str | None = None,
    ) -> SelectOfScalar[Programme]:
        """Those with each word of `subject` in their name or subject, of this level, city and university."""
        statement = self.visible()
        about = func.concat_ws(" ", col(Programme.name), col(Programme.subject), col(Programme.award))
        for word in (subject or "").split():
            statement = statement.where(about.icontains(word, autoescape=True))
        if level is not None:
            statement = statement.where(col(Programme.level) == level)
        if city is not None:
            place = func.concat_ws(" ", col(Programme.city), col(Programme.nation))
            statement = statement.where(place.icontains(city.strip(), autoescape=True))
        if university is not None:
            statement = statement.where(col(Programme.university).icontains(university.strip(), autoescape=True))
        return statement

    async def first(self, statement: SelectOfScalar[Programme], limit: int) -> tuple[Sequence[Programme], int]:
        """The first `limit` rows of `statement` by university and name, and how many it has."""
        ordered = statement.order_by(col(Programme.university), col(Programme.name), col(Programme.slug)).limit(limit)
        rows = (await self.session.execute(ordered)).scalars().all()
        total = await self.session.execute(select(func.count()).select_from(statement.subquery()))
        return rows, total.scalar_one()

    async def named(self, programme: str) -> Sequence[Programme]:
        """The one with this slug, else all whose name, university and award have each word of it."""
        one = self.visible().where(col(Programme.slug) == programme.strip().lower())
        if rows := (await self.session.execute(one)).scalars().all():
            return rows
        statement = self.visible().order_by(col(Programme.slug))
        whole = func.concat_ws(
            " ", col(Programme.name), col(Programme.award), col(Programme.university), col(Programme.city)
        )
        for word in programme.split():
            statement = statement.where(whole.icontains(word, autoescape=True))
        return (await self.session.execute(statement)).scalars().all()


class ReportRepository(Repository[Report]):
    model = Report

    async def named(self, report: str | None, *, lock: bool = False) -> Report:
        """The report with this id or topic, or the newest. Raises NotFound, and Conflict where it could be several."""
        try:
            id = UUID(report) if report else None
        except ValueError:
            id = None
        if id is not None:
            return await self.get(id, lock=lock)
        # Ids alone: a row that was read before it is locked would keep the values that it had then.
        statement = self.visible().with_only_columns(col(Report.id))
        statement = statement.order_by(col(Report.created_at).desc(), col(Report.id).desc())
        if report:
            statement = statement.where(func.lower(col(Report.topic)) == report.strip().lower())
        found = (await self.session.execute(statement.limit(2))).scalars().all()
        if not found:
            which = f"called {report!r}" if report else "yet"
            raise NotFound(
                f"There is no report {which}; list_reports shows those there are, request_report asks for one"
            )
        if report and len(found) > 1:
            raise Conflict(f"Several reports are called {report!r}; give the id of one, as list_reports has it")
        return await self.get(found[0], lock=lock)

    async def count_open(self) -> int:
        """How many reports wait for a draft or a payment."""
        waiting = self.visible().where(col(Report.status).in_(("requested", "drafted")), col(Report.expires_at) > now())
        return (await self.session.execute(select(func.count()).select_from(waiting.subquery()))).scalar_one()

    async def deliver_if_due(self, report: Report, payment: Payment | None) -> bool:
        """Deliver a draft that costs nothing or is paid; whether it was delivered by this. The row is locked."""
        paid = report.price_pence == 0 or (payment is not None and payment.status == "succeeded")
        if not paid or status_of(report) != "drafted":
            return False
        move_report(report, "delivered")
        report.delivered_at, report.expires_at = now(), now() + KEPT
        await self.session.flush()
        return True


class ReportTextRepository(Repository[ReportText]):
    model = ReportText

    async def read(self, report: Report) -> str:
        """The text of a report. Raises Conflict, which says what it waits for, unless it is delivered."""
        match status_of(report):
            case "delivered":
                return (await self.get(report.id)).text
            case "requested":
                raise Conflict("The report is requested and not drafted yet; draft_report drafts it")
            case "drafted":
                raise Conflict("The report is drafted and not paid yet; pay_report gives the page on which it is paid")
            case "expired":
                raise Conflict("The time of this report is over; request another one")


class PaymentRepository(Repository[Payment]):
    model = Payment

    async def latest(self, report: Report, *, lock: bool = False) -> Payment | None:
        """The try by which a report was paid, else the last one."""
        statement = (
            self.visible()
            .where(col(Payment.report_id) == report.id)
            .order_by((col(Payment.status) == "succeeded").desc(), col(Payment.number).desc())
            .limit(1)
        )
        return (await self.session.execute(statement.with_for_update() if lock else statement)).scalar_one_or_none()

    async def find_report(self, payment: UUID) -> UUID | None:
        """The report that a payment is for."""
        statement = self.visible().with_only_columns(col(Payment.report_id)).where(col(Payment.id) == payment)
        return (await self.session.execute(statement)).scalar_one_or_none()

    async def begin(self, report: Report, number: int) -> Payment:
        """Note a try to pay for a report, whose row is locked."""
        id = uuid5(report.id, f"payment {number}")
        return await self.add(Payment(id=id, report_id=report.id, number=number, pence=report.price_pence))


class PaymentEventRepository(Repository[PaymentEvent]):
    model = PaymentEvent

    async def is_new(self, payment: UUID, event: str) -> bool:
        """Note an event of the provider's; whether it was not heard before."""
        row = {"owner_id": self.owner, "id": uuid5(payment, event), "payment_id": payment, "event": event}
        # One statement, so that of two deliveries at once one is first.
        statement = insert(PaymentEvent).values(**row).on_conflict_do_nothing().returning(col(PaymentEvent.id))
        return (await self.session.execute(statement)).first() is not None


def status_of(report: Report) -> ReportStatus:
    """The status of a report now: one whose time is over has expired, whatever was noted last."""
    return "expired" if report.expires_at <= now() else report.status


def move_report(report: Report, status: ReportStatus) -> None:
    """Give a report its next status. Raises Conflict for one that may not follow."""
    before = status_of(report)
    if status not in REPORT_MOVES[before]:
        raise Conflict(f"The report is {before}, and cannot become {status}")
    report.status = status


def move_payment(payment: Payment, status: PaymentStatus) -> None:
    """Give a payment its next status. Raises Conflict for one that may not follow."""
    if status not in PAYMENT_MOVES[payment.status]:
        raise Conflict(f"The payment is {payment.status}, and cannot become {status}")
    payment.status = status
