"""/health, /readyz, /api/page: what state the process is in, and what the page needs to know before it asks."""

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from sqlalchemy import func
from sqlmodel import select

from agent_server.db.migrate import pending
from agent_server.errors import AgentServerError
from agent_server.http.server import Server, ServerDep
from agent_server.knowledge.models import Chunk
from agent_server.version import VERSION

router = APIRouter(tags=["health"])

SUGGESTIONS = 5


@router.get("/health")
async def health(server: ServerDep) -> dict[str, Any]:
    """Whether this process serves; asks nothing of the database."""
    return {
        "status": "ok",
        "timestamp": datetime.now(UTC).isoformat(),
        "version": VERSION,
        "model": _model(server),
    }


@router.get("/readyz")
async def ready(server: ServerDep) -> JSONResponse:
    """Whether requests can be answered: the database answers, no migration is pending, the process is not stopping."""
    if server.runner.closing:
        return JSONResponse({"status": "stopping"}, 503)
    pool = server.database.pool_status()
    try:
        async with server.database.transaction() as session:
            missing = await session.run_sync(lambda s: pending(s.connection(), server.workspace.root))
            count = select(func.count()).select_from(Chunk)
            passages = 0 if missing else (await session.execute(count)).scalar_one()
    except AgentServerError as error:
        body = {"status": "unavailable", "database_ok": False, "pool_status": pool, "detail": error.message}
        return JSONResponse(body, 503, {"Retry-After": "2"})
    body = {
        "status": "ok" if not missing else "migrations pending",
        "database_ok": True,
        "pool_status": pool,
        "pending_migrations": missing,
        "passages": passages,
    }
    return JSONResponse(body, 503 if missing else 200)


@router.get("/api/page")
async def page(server: ServerDep) -> dict[str, Any]:
    """What the chat page shows before the first message."""
    examples = [agent.examples[0] for agent in server.workspace.specialists if agent.examples]
    return {
        "name": server.settings.title,
        "model": _model(server),
        "message_limit": server.settings.message_limit,
        "suggestions": examples[:SUGGESTIONS],
    }


def _model(server: Server) -> dict[str, Any]:
    return {"name": server.model.title, "offline": server.model.offline}
