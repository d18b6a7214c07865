"""What is on record of a caller at /api/audit."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from agent_server.api.parameters import Cursor, Limit
from agent_server.audit import AuditRepository
from agent_server.caller import Caller
from agent_server.http.auth import ServerDep, member_with

router = APIRouter(tags=["audit"])


class AuditView(BaseModel):
    """One act. `action` is a tool's name or an act of identity such as `auth.login`."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    owner_id: UUID
    at: datetime
    caller_kind: str
    surface: str
    action: str
    outcome: str
    latency_ms: float
    conversation_id: UUID | None
    turn_id: UUID | None
    request_id: str | None


class AuditPage(BaseModel):
    """Acts with the latest first."""

    items: list[AuditView]
    next_cursor: str | None


@router.get("/api/audit")
async def read_audit(
    caller: Annotated[Caller, member_with("audit:read")],
    server: ServerDep,
    subject: UUID,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> AuditPage:
    """What is on record of one caller. This is for staff, also of one who was erased."""
    async with server.database.transaction(caller.id, scopes=("audit:read",)) as session:
        # The repository filters by its owner. That staff may read another's rows is the scope of the transaction.
        page = await AuditRepository(session, Caller(id=subject, kind="user")).page(limit, cursor)
    return AuditPage.model_validate(page, from_attributes=True)
