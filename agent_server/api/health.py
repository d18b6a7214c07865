"""/health, /readyz, /api/page: what state the process is in, and what the page needs to know before it asks."""

from datetime import UTC, datetime
from typing import Literal

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy import func
from sqlmodel import select

from agent_server.db.migrate import pending
from agent_server.errors import AgentServerError, Unavailable
from agent_server.knowledge.models import Chunk
from agent_server.server import Server, ServerDep
from agent_server.version import VERSION

router = APIRouter(tags=["health"])

SUGGESTIONS = 5


class ModelView(BaseModel):
    """The model that answers; `offline` where none is asked over a network."""

    name: str
    offline: bool


class Health(BaseModel):
    """A process that serves."""

    status: Literal["ok"] = "ok"
    timestamp: datetime
    version: str
    model: ModelView


class Readiness(BaseModel):
    """Whether requests can be answered; beside `status`, what is known of it."""

    status: Literal["ok", "stopping", "unavailable", "migrations pending"]
    database_ok: bool | None = None
    pool_status: dict[str, int] | None = None
    pending_migrations: list[str] | None = None
    passages: int | None = None
    detail: str | None = None

    def response(self) -> JSONResponse:
        headers = {} if self.status == "ok" else {"Retry-After": str(Unavailable.retry_after)}
        return JSONResponse(self.model_dump(exclude_none=True), 200 if self.status == "ok" else 503, headers)


class PageView(BaseModel):
    """What the chat page shows before the first message."""

    name: str
    model: ModelView
    message_limit: int
    suggestions: list[str]


@router.get("/health")
async def health(server: ServerDep) -> Health:
    """Whether this process serves; asks nothing of the database."""
    return Health(timestamp=datetime.now(UTC), version=VERSION, model=_model(server))


@router.get("/readyz", response_model=Readiness, responses={503: {"model": Readiness}})
async def ready(server: ServerDep) -> JSONResponse:
    """Whether requests can be answered: the database answers, no migration is pending, the process is not stopping."""
    if server.runner.closing:
        return Readiness(status="stopping").response()
    pool = server.database.pool_status()
    try:
        async with server.database.transaction() as session:
            missing = await session.run_sync(lambda s: pending(s.connection(), server.workspace.root))
            count = select(func.count()).select_from(Chunk)
            passages = 0 if missing else (await session.execute(count)).scalar_one()
    except AgentServerError as error:
        return Readiness(status="unavailable", database_ok=False, pool_status=pool, detail=error.message).response()
    return Readiness(
        status="migrations pending" if missing else "ok",
        database_ok=True,
        pool_status=pool,
        pending_migrations=list(missing),
        passages=passages,
    ).response()


@router.get("/api/page")
async def page(server: ServerDep) -> PageView:
    """What the chat page shows before the first message."""
    examples = [agent.examples[0] for agent in server.workspace.specialists if agent.examples]
    return PageView(
        name=server.settings.title,
        model=_model(server),
        message_limit=server.settings.message_limit,
        suggestions=examples[:SUGGESTIONS],
    )


def _model(server: Server) -> ModelView:
    return ModelView(name=server.model.title, offline=server.model.offline)
