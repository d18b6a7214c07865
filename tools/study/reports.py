"""Reports for a student: requested, drafted, delivered, and expired after a time.

A report is delivered when it is drafted and, where it costs something, paid: whichever comes last delivers it, in its own
transaction. Its text is read in one place, `ReportTextRepository.read`, which gives that of a delivered report only.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field, StringConstraints

import agent_server
from agent_server import Conflict, Embedded, ToolContext, announce, now, render_pdf, resource, tool
from tools.study import models as stored
from tools.study.arguments import WhichReport
from tools.study.composing import compose, edit
from tools.study.models import PaymentStatus, Report, ReportStatus
from tools.study.profile import view_profile
from tools.study.repository import PaymentRepository, ReportRepository, ReportTextRepository, move_report, status_of
from tools.study.stripe import find_stripe

WAITS = timedelta(days=30)
"""How long a report that was requested waits for its draft and its payment."""
MOST_OPEN = 5
REPORT = """\
**{{ topic }}** ({{ id }}): {{ status }}{% if price_pounds %}, £{{ price_pounds }}{% if payment %}, payment {{ payment }}{% endif %}{% else %}, free of charge{% endif %}, until {{ expires_at | date }}
"""
DRAFTED = f"""{REPORT}
{{% if status == 'delivered' %}}Say: Read my report.{{% else %}}It can be read once it is paid. Say: Pay for my report.{{% endif %}}
"""
REPORTS = """
{% for report in items %}
- **{{ report.topic }}** ({{ report.id }}): {{ report.status }}{% if report.price_pounds %}, £{{ report.price_pounds }}{% if report.payment %}, payment {{ report.payment }}{% endif %}{% else %}, free of charge{% endif %}
{% else %}
You have no reports yet. Say, for example: Request a report about a master's in data science.
{% endfor %}
{% if next_cursor %}

There are more.
{% endif %}
"""
"""How reports read."""


class ReportView(BaseModel):
    """A report. `price_pounds` is null where it is free of charge; `payment` is where its payment stands; it can be read
    once it is `delivered`, until `expires_at`."""

    id: UUID
    topic: str
    status: ReportStatus
    price_pounds: str | None
    payment: PaymentStatus | None
    sources: list[str]
    expires_at: datetime


class Reports(BaseModel):
    """Reports, newest first; `next_cursor` is null on the last page."""

    items: list[ReportView]
    next_cursor: str | None


class ReportText(BaseModel):
    """A report's Markdown."""

    id: UUID
    topic: str
    text: str


@tool(
    scope="study_reports:write",
    effect="stored",
    phrases=(
        "request a report about {topic}",
        "request a report on {topic}",
        "i would like a report about {topic}",
        "i want a report about {topic}",
    ),
    result=f"Requested: {REPORT}\nSay: Draft my report.",
)
async def request_report(
    context: ToolContext,
    topic: Annotated[
        str,
        StringConstraints(strip_whitespace=True, min_length=3, max_length=200, pattern=r"^[^\n]*$"),
        Field(description="What it is about, as in: A master's in data science."),
    ],
) -> ReportView:
    """Request a written report for the user about their study options. It is drafted next, with draft_report."""
    reports = context.repository(ReportRepository)
    if await reports.count_open() >= MOST_OPEN:
        raise Conflict(
            f"There are {MOST_OPEN} reports that are not delivered yet; have one of them drafted or paid first"
        )
    stripe = find_stripe()
    row = await reports.add(
        Report(topic=topic, price_pence=stripe.price_pence if stripe else 0, expires_at=now() + WAITS)
    )
    if row.price_pence:
        await context.repository(PaymentRepository).begin(row, 1)
    return await _view(context, row)


@tool(
    scope="study_reports:write",
    effect="stored",
    long=True,
    phrases=("draft my report", "draft the report {report}", "draft my report {report}", "write my report"),
    result=DRAFTED,
)
async def draft_report(context: ToolContext, report: WhichReport = None) -> ReportView:
    """Draft a report that was requested, once, from the user's profile, the programmes and quotes of the content. Where it
    is free or paid, this delivers it."""
    row = await context.repository(ReportRepository).named(report)
    if status_of(row) == "requested":
        profile = view_profile(await agent_server.read_profile(context.session, context.caller))
        text, sources = await compose(context, row.topic, profile, now().date())
        await _keep(context, row, text, sources)
    return await _view_drafted(context, row)


@tool(scope="study_reports:write", effect="stored", result=DRAFTED)
async def write_report(
    context: ToolContext,
    text: Annotated[
        str,
        Field(
            min_length=1,
            max_length=40_000,
            description="Its Markdown, from the passages that you found, with [1], [2] ... behind what each of sources says.",
        ),
    ],
    sources: Annotated[
        list[str],
        Field(max_length=50, description="The pages it cites, as in study/visa/cas.md, in the order of their numbers."),
    ],
    report: WhichReport = None,
) -> ReportView:
    """Draft a report that was requested, once, with a text of yours, to which profile and programmes are added. For one
    that is free or paid, which this delivers."""
    row = await context.repository(ReportRepository).named(report)
    if status_of(row) == "requested":
        payment = await context.repository(PaymentRepository).latest(row)
        if row.price_pence and (payment is None or payment.status != "succeeded"):
            # What an agent writes stands in the conversation, where it would be read before it is paid.
            raise Conflict("The report is not paid yet; call draft_report, or have it paid first")
        profile = view_profile(await agent_server.read_profile(context.session, context.caller))
        await _keep(context, row, await edit(context, row.topic, profile, text, sources, now().date()), sources)
    return await _view_drafted(context, row)


async def _keep(context: ToolContext, row: Report, text: str, sources: Sequence[str]) -> None:
    """Make a text the draft of a report, unless it has one by now, and deliver it if it is due."""
    # Locked only now: to draft takes a while, and a payment must not wait for it.
    await context.session.refresh(row, with_for_update=True)
    if status_of(row) != "requested":
        return
    move_report(row, "drafted")
    row.sources = list(sources)
    await context.repository(ReportTextRepository).add(stored.ReportText(id=row.id, text=text))
    payment = await context.repository(PaymentRepository).latest(row)
    await context.repository(ReportRepository).deliver_if_due(row, payment)
    announce(context, report_resource.address(id=row.id))


async def _view_drafted(context: ToolContext, row: Report) -> ReportView:
    if status_of(row) == "expired":
        raise Conflict("The time of this report is over; request another one")
    return await _view(context, row)


@tool(
    scope="study_reports:read",
    effect="read",
    phrases=("show [me] [all] my reports", "list [all] my reports", "which reports do i have", "where is my report"),
    result=REPORTS,
)
async def list_reports(
    context: ToolContext,
    limit: Annotated[int, Field(ge=1, le=100, description="How many, at most.")] = 20,
    cursor: Annotated[str | None, Field(max_length=100, description="`next_cursor` of the page before.")] = None,
) -> Reports:
    """List the user's reports with the status of each and of its payment, newest first."""
    page = await context.repository(ReportRepository).page(limit, cursor)
    return Reports(items=[await _view(context, row) for row in page.items], next_cursor=page.next_cursor)


@tool(
    scope="study_reports:read",
    effect="read",
    phrases=(
        "read [me] my report",
        "show [me] my report",
        "read [me] the report {report}",
        "show [me] the report {report}",
    ),
    result="{{ text }}",
)
async def read_report(context: ToolContext, report: WhichReport = None) -> ReportText:
    """Read one of the user's reports that is delivered, as Markdown."""
    row = await context.repository(ReportRepository).named(report)
    return ReportText(id=row.id, topic=row.topic, text=await context.repository(ReportTextRepository).read(row))


@resource("reports://{id}", scope="study_reports:read", title="Study report", mime_type="text/markdown")
async def report_resource(context: ToolContext, id: UUID) -> str:
    """One of the caller's reports that is delivered, as Markdown."""
    row = await context.repository(ReportRepository).get(id)
    return await context.repository(ReportTextRepository).read(row)


@resource("reports://{id}/pdf", scope="study_reports:read", title="Study report as PDF", mime_type="application/pdf")
async def report_pdf(context: ToolContext, id: UUID) -> bytes:
    """One of the caller's reports that is delivered, as a PDF."""
    return await _render(context, await context.repository(ReportRepository).get(id))


@tool(
    scope="study_reports:read",
    effect="read",
    phrases=("give me my report as [a] pdf", "download my report", "show [me] my report as [a] pdf"),
)
async def get_report_pdf(context: ToolContext, report: WhichReport = None) -> list[str | Embedded]:
    """One of the user's reports that is delivered, as a PDF file: for programs and clients that show files."""
    row = await context.repository(ReportRepository).named(report)
    file = Embedded(report_pdf.address(id=row.id), data=await _render(context, row), mime_type="application/pdf")
    return [row.topic, file]


async def _render(context: ToolContext, row: Report) -> bytes:
    text = await context.repository(ReportTextRepository).read(row)
    # The title of the file is the first line of the text.
    body = text.removeprefix(f"# {row.topic}\n")
    return await render_pdf(body, title=row.topic, language="en-GB", footer="Study in the UK", made_at=row.delivered_at)


async def _view(context: ToolContext, row: Report) -> ReportView:
    payment = await context.repository(PaymentRepository).latest(row) if row.price_pence else None
    return ReportView(
        id=row.id,
        topic=row.topic,
        status=status_of(row),
        price_pounds=f"{row.price_pence / 100:.2f}" if row.price_pence else None,
        payment=payment.status if payment else None,
        sources=row.sources,
        expires_at=row.expires_at,
    )
