"""All that a caller owns at /api/me."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from pydantic_core import to_json

from agent_server.api.audit import AuditPage
from agent_server.api.parameters import AccountsDep, ActDep, Body, Cursor, Given, Limit
from agent_server.audit import AuditRepository
from agent_server.caller import Caller
from agent_server.db import now
from agent_server.http.auth import SelfReaderDep, ServerDep, caller_with
from agent_server.identity.own_data import export_rows
from agent_server.server import Server

router = APIRouter(tags=["me"])


class Export(BaseModel):
    """All that a caller owns. These are the rows of each table, without hashes of secrets."""

    id: UUID
    exported_at: datetime
    tables: dict[str, list[dict[str, Any]]]


class Erasure(Body):
    """The password of a user who has one."""

    password: Given | None = None


@router.get("/api/me/audit")
async def read_own_audit(
    caller: SelfReaderDep,
    server: ServerDep,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> AuditPage:
    """What is on record of the caller."""
    async with server.database.transaction(caller.id) as session:
        page = await AuditRepository(session, caller).page(limit, cursor)
    return AuditPage.model_validate(page, from_attributes=True)


@router.get("/api/me/export", response_model=Export)
async def export(
    caller: Annotated[Caller, caller_with("account:export")], act: ActDep, server: ServerDep
) -> StreamingResponse:
    """All that the caller owns as one JSON document."""
    # On record before the first byte: a client that leaves in the middle has read what came by then.
    async with server.database.transaction(caller.id) as session:
        await act.record(session, caller.id, "account.exported", kind=caller.kind)
    return StreamingResponse(
        # As it is read: what a caller owns need not fit into memory.
        _write_document(server, caller),
        media_type="application/json",
        headers={"Content-Disposition": 'attachment; filename="export.json"'},
    )


async def _write_document(server: Server, caller: Caller) -> AsyncIterator[bytes]:
    """The export as it is read."""
    yield b'{"id": %s, "exported_at": %s, "tables": {' % (to_json(caller.id), to_json(now()))
    open_table = None
    async for table, rows in export_rows(server.database, caller.id):
        if table != open_table:
            yield (b"" if open_table is None else b"], ") + to_json(table) + b": ["
            first, open_table = True, table
        for row in rows:
            # Postgres has NaN, in vectors and numbers; JSON has not.
            yield (b"" if first else b", ") + to_json(row, inf_nan_mode="null", fallback=_encode_value)
            first = False
    yield b"" if open_table is None else b"]"
    yield b"}}"


def _encode_value(value: Any) -> Any:
    """A vector as a list and what else JSON has no word for as text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


@router.delete("/api/me", status_code=204)
async def erase(
    caller: Annotated[Caller, caller_with("account:erase")],
    act: ActDep,
    accounts: AccountsDep,
    server: ServerDep,
    body: Erasure | None = None,
) -> None:
    """Remove the caller and all that it owns for good. Its credentials end; of its audit an id is left."""
    await accounts.erase(act, caller, None if body is None else body.password, server.runner.stop_all)
