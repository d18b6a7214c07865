"""Bug reports: a table that no migration makes, and two tools over it."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import Field as Column

from agent_server import Owned, Page, Repository, Timestamps, ToolContext, tool

Severity = Literal["low", "high"]


class Bug(Owned, Timestamps, table=True):
    """A report of whoever wrote it."""

    __tablename__ = "bug"

    summary: str = Column(max_length=200)
    severity: str = "low"


class BugRepository(Repository[Bug]):
    model = Bug


class BugView(BaseModel):
    """A report as it is given out."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    summary: str
    severity: Severity
    created_at: datetime


class Bugs(BaseModel):
    """Reports, newest first."""

    model_config = ConfigDict(from_attributes=True)

    items: list[BugView]
    next_cursor: str | None


@tool(scope="bugs:write", effect="stored", phrases=("report [a|the] bug [that] {summary}",))
async def report_bug(
    context: ToolContext,
    summary: Annotated[str, Field(min_length=1, max_length=200, description="What goes wrong, in a sentence.")],
    severity: Annotated[Severity, Field(description="`high` where work is lost.")] = "low",
) -> BugView:
    """Report a bug in Kestrel."""
    return BugView.model_validate(await context.repository(BugRepository).add(Bug(summary=summary, severity=severity)))


@tool(scope="bugs:read", effect="read", phrases=("[show|list] [me] my bug reports", "which bugs have i reported"))
async def list_bugs(context: ToolContext) -> Bugs:
    """List the bugs that the user reported, newest first."""
    page: Page[Bug] = await context.repository(BugRepository).page(50, None)
    return Bugs.model_validate(page)
