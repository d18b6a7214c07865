"""Paying for a report: what the student asks for, and what the provider tells.

Money and database cannot commit together. So each payment has an id that is made of its report, the provider is asked
with a key made of that id, and what it answers is applied by `settle` alone, however often and in whatever order.
"""

from typing import Literal
from uuid import UUID

from pydantic import BaseModel

from agent_server import Conflict, Delivery, Loss, NotFound, ToolContext, WebhookRequest, announce, tool, webhook
from tools.study.arguments import WhichReport
from tools.study.models import PAYMENT_MOVES, Payment, PaymentStatus, Report
from tools.study.provider import CheckoutStatus, Order, Provider
from tools.study.repository import (
    PaymentEventRepository,
    PaymentRepository,
    ReportRepository,
    move_payment,
    move_report,
    status_of,
)
from tools.study.stripe import find_stripe

NOT_SET_UP = "Payment is not set up on this server: reports are free of charge, and there is nothing to pay"
_STATUS: dict[CheckoutStatus, PaymentStatus] = {"paid": "succeeded", "failed": "failed", "refunded": "refunded"}
PAYMENT = """
{% if status == "pending" %}
Pay £{{ pounds }} here: {{ url }}

The report is delivered when the payment has arrived.
{% elif status == "succeeded" %}
The payment of £{{ pounds }} has arrived.
{% elif status == "refunded" %}
£{{ pounds }} are paid back.
{% else %}
The payment of £{{ pounds }}: {{ status }}
{% endif %}
"""
"""How a payment reads."""


class PaymentView(BaseModel):
    """A payment for a report. While it is `pending`, `url` is the page on which it is paid."""

    id: UUID
    report: UUID
    status: PaymentStatus
    pounds: str
    url: str | None


@tool(
    scope="study_payments:write",
    effect="keyed",
    phrases=("pay for my report", "pay [for] [my|the] report {report}"),
    result=PAYMENT,
)
async def pay_report(context: ToolContext, report: WhichReport = None) -> PaymentView:
    """Begin to pay for one of the user's reports, or see where its payment stands. Give the user the address; never ask
    for card data."""
    provider = _provider()
    if context.caller.kind == "guest":
        raise Conflict("Sign in before you pay: what a guest has ends with the session")
    row = await context.repository(ReportRepository).named(report, lock=True)
    payments = context.repository(PaymentRepository)
    payment = await payments.latest(row, lock=True)
    if row.price_pence == 0 or payment is None:
        raise Conflict("This report is free of charge; there is nothing to pay")
    if payment.status in ("succeeded", "refunded"):
        return view_payment(payment)
    if status_of(row) not in ("requested", "drafted"):
        raise Conflict("The time of this report is over; request another one")
    if payment.session is not None:
        # It may have been paid, or have expired, without our having heard of it: only one that failed is begun anew.
        found = await provider.find(payment.session)
        await settle(context, row, payment, found.status, found.pence, found.intent)
        if payment.status != "failed":
            return view_payment(payment)
    if payment.status == "failed":
        payment = await payments.begin(row, payment.number + 1)
    opened = await provider.open(
        Order(payment=payment.id, owner=context.caller.id, title=f"Report: {row.topic}", pence=payment.pence)
    )
    move_payment(payment, "pending")
    payment.session, payment.url = opened.session, opened.url
    # The key is the same for a day, in which the provider gives back what it began: that may be paid by now.
    await settle(context, row, payment, opened.status, opened.pence, opened.intent)
    return view_payment(payment)


async def _money_back(context: ToolContext, report: WhichReport = None) -> list[Loss]:
    row = await context.repository(ReportRepository).named(report, lock=True)
    return [Loss(row.id, row.topic)]


@tool(
    scope="study_payments:write",
    effect="keyed",
    destructive=True,
    losses=_money_back,
    phrases=("refund my report", "refund [my|the] report {report}", "cancel [my|the] report {report}"),
    result=PAYMENT,
)
async def refund_report(context: ToolContext, report: WhichReport = None) -> PaymentView:
    """Give up a report that is paid and not delivered yet, and have its money paid back."""
    provider = _provider()
    row = await context.repository(ReportRepository).named(report, lock=True)
    payment = await context.repository(PaymentRepository).latest(row, lock=True)
    if payment is not None and payment.status == "refunded":
        return view_payment(payment)
    if payment is None or payment.status != "succeeded" or payment.intent is None:
        raise Conflict("Nothing was paid for this report; there is nothing to pay back")
    if status_of(row) == "delivered":
        raise Conflict("The report is delivered; what was paid for it is not paid back here: write to the adviser")
    await provider.refund(payment.intent, f"study-refund-{payment.id}")
    await settle(context, row, payment, "refunded", payment.pence, None)
    return view_payment(payment)


def verify_stripe(request: WebhookRequest) -> Delivery | None:
    """Whose payment an event is about."""
    if (stripe := find_stripe()) is None:
        raise NotFound(NOT_SET_UP)
    notice = stripe.read_notice(request.headers.get("stripe-signature", ""), request.body)
    if notice is None:
        return None
    said = {
        "event": notice.event,
        "payment": str(notice.payment),
        "status": notice.status,
        "pence": notice.pence,
        "intent": notice.intent,
    }
    return Delivery(owner=notice.owner, arguments=said, key=notice.event)


@webhook("stripe", scope="study_payments:receive", verify=verify_stripe)
async def hear_payment(
    context: ToolContext,
    event: str,
    payment: UUID,
    status: Literal["paid", "failed", "refunded"],
    pence: int | None = None,
    intent: str | None = None,
) -> None:
    """Note what the provider tells of a payment, once for each event."""
    payments = context.repository(PaymentRepository)
    # The report first, as the tools lock them: two that lock in different orders would wait for each other.
    report_id = await payments.find_report(payment)
    report = await context.repository(ReportRepository).find(report_id, lock=True) if report_id else None
    row = await payments.find(payment, lock=True)
    if row is None or report is None:  # its owner has erased it
        return
    if await context.repository(PaymentEventRepository).is_new(payment, event):
        await settle(context, report, row, status, pence, intent)


async def settle(
    context: ToolContext,
    report: Report,
    payment: Payment,
    status: CheckoutStatus,
    pence: int | None,
    intent: str | None,
) -> None:
    """Apply what the provider says of a payment, whose row and report are locked. What may not follow comes late, and is
    passed over. A payment of another sum than was asked for is none."""
    wanted = _STATUS.get(status)
    if wanted is None or wanted not in PAYMENT_MOVES[payment.status] or (pence != payment.pence and wanted != "failed"):
        return
    move_payment(payment, wanted)
    payment.intent = intent or payment.intent
    if wanted == "refunded" and status_of(report) != "expired":
        move_report(report, "expired")
    await context.session.flush()
    await context.repository(ReportRepository).deliver_if_due(report, payment)
    announce(context, f"reports://{report.id}")


def view_payment(row: Payment) -> PaymentView:
    url = row.url if row.status == "pending" else None
    return PaymentView(id=row.id, report=row.report_id, status=row.status, pounds=f"{row.pence / 100:.2f}", url=url)


def _provider() -> Provider:
    if (stripe := find_stripe()) is None:
        raise Conflict(NOT_SET_UP)
    return stripe
