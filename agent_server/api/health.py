"""The state of the process at /health and /readyz."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Literal, cast

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy import func
from sqlmodel import select

from agent_server.db.revisions import Pending
from agent_server.errors import AgentServerError, Unavailable
from agent_server.http.auth import ServerDep
from agent_server.knowledge.models import Chunk
from agent_server.models.choice import full_name
from agent_server.server import Server
from agent_server.version import VERSION

router = APIRouter(tags=["health"])

PROBES = frozenset({"/health", "/readyz"})
"""What a load balancer asks for, by any name and all the time."""
RECENT_SECONDS = 1.0
"""What the database said so long ago is still told."""


class ModelView(BaseModel):
    """The model that answers. It is `offline` where none is asked over a network.

    A server at OPENAI_BASE_URL is asked for the name after the start; until it answers, `name` says that it is not known.
    `fallback` is the model that takes over while the provider of the first one is failing."""

    name: str
    offline: bool
    fallback: str | None


class Health(BaseModel):
    """A process that serves."""

    status: Literal["ok"] = "ok"
    timestamp: datetime
    version: str
    model: ModelView


class Readiness(BaseModel):
    """Whether requests can be answered. The rest is what is known of it."""

    status: Literal["ok", "stopping", "unavailable", "migrations pending"]
    database_ok: bool | None = None
    pool_status: dict[str, int] | None = None
    pending_migrations: list[str] | None = None
    passages: int | None = None
    detail: str | None = None

    def response(self) -> JSONResponse:
        headers = {} if self.status == "ok" else {"Retry-After": str(Unavailable.retry_after)}
        return JSONResponse(self.model_dump(exclude_none=True), 200 if self.status == "ok" else 503, headers)


@router.get("/health")
async def health(server: ServerDep) -> Health:
    """Whether this process serves. It asks nothing of the database."""
    return Health(timestamp=datetime.now(UTC), version=VERSION, model=describe_model(server))


@router.get("/readyz", response_model=Readiness, responses={503: {"model": Readiness}})
async def ready(request: Request, server: ServerDep) -> JSONResponse:
    """Whether requests can be answered. The database answers, no migration is pending, the process is not stopping.

    What the database says is as of the last second; of a server that leaves its database alone
    (`AGENT_SERVER_DATABASE_SLEEP`) it is as of when it began to.
    """
    # A load balancer that is told at once sends nothing more to a process that is about to end.
    if server.runner.closing:
        return Readiness(status="stopping").response()
    state = request.app.state
    if not hasattr(state, "readiness"):
        state.readiness = _RecentReadiness(server)
    return (await cast(_RecentReadiness, state.readiness).get()).response()


class _RecentReadiness:
    """The readiness of a process, which is looked up at most once a second, however many ask."""

    # Anybody may ask, by no credential and no limit.
    def __init__(self, server: Server) -> None:
        self._server, self._lock = server, asyncio.Lock()
        self._found: tuple[float, Readiness] | None = None
        self._pending: Pending | None = None

    async def get(self) -> Readiness:
        if self._server.sleep.is_asleep:
            # Who asks again and again would keep the database awake.
            return self._found[1] if self._found else Readiness(status="ok")
        async with self._lock:
            if self._found is None or time.monotonic() - self._found[0] > RECENT_SECONDS:
                # Once: the files of a process that runs do not change.
                if self._pending is None:
                    self._pending = await asyncio.to_thread(Pending, self._server.workspace.root)
                self._found = (time.monotonic(), await _look_up(self._server, self._pending))
            return self._found[1]


async def _look_up(server: Server, pending: Pending) -> Readiness:
    # Before the transaction below, which would count itself, and which a full pool refuses.
    pool = server.database.pool_status()
    try:
        async with server.database.transaction() as session:
            missing = await session.run_sync(lambda s: pending.find(s.connection()))
            count = select(func.count()).select_from(Chunk)
            # Before its migration the table may not be there.
            passages = 0 if missing else (await session.execute(count)).scalar_one()
    except AgentServerError as error:
        return Readiness(status="unavailable", database_ok=False, pool_status=pool, detail=error.message)
    return Readiness(
        status="migrations pending" if missing else "ok",
        database_ok=True,
        pool_status=pool,
        pending_migrations=list(missing),
        passages=passages,
    )


def describe_model(server: Server) -> ModelView:
    """The model that this server asks."""
    chosen, fallback = server.model, server.settings.model_fallback
    name = full_name(fallback, server.settings) if fallback else None
    return ModelView(name=server.served.title, offline=chosen.offline, fallback=name if name != chosen.name else None)
