"""The clients that the caller has let in, at /api/clients."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel

from agent_server.api.parameters import ActDep
from agent_server.caller import Caller
from agent_server.http.auth import ServerDep, member_with
from agent_server.oauth.grants import disconnect, list_grants
from agent_server.oauth.redirects import describe_host, parse_redirect

router = APIRouter(tags=["clients"])


class ClientView(BaseModel):
    """A client that signed in through the browser. `answers_at` is where it was answered, `resource` the address that its
    tokens are for. `last_used_at` is when it last got a token."""

    id: UUID
    name: str
    client_id: str
    answers_at: str
    resource: str
    scopes: list[str]
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime


@router.get("/api/clients")
async def read_clients(caller: Annotated[Caller, member_with("keys:read")], server: ServerDep) -> list[ClientView]:
    """The clients that the caller has let in with the newest first."""
    return [_view(row) for row in await list_grants(server.database, caller.id)]


@router.delete("/api/clients/{id}", status_code=204)
async def delete_client(
    id: UUID, caller: Annotated[Caller, member_with("keys:write")], act: ActDep, server: ServerDep
) -> None:
    """Disconnect a client. The next request with its tokens is refused."""
    await disconnect(server.database, act, caller.id, id)


def _view(row: Any) -> ClientView:
    url = parse_redirect(row.redirect_uri)
    return ClientView(
        id=row.id,
        name=row.client_name,
        client_id=row.client_id,
        answers_at=row.redirect_uri if url is None else describe_host(url),
        resource=row.resource,
        scopes=row.scopes,
        created_at=row.created_at,
        last_used_at=row.last_used_at,
        expires_at=row.expires_at,
    )
