"""What the chat page needs to know before it asks."""

from fastapi import APIRouter, Request
from pydantic import BaseModel

from agent_server.api.health import ModelView, describe_model
from agent_server.api.local import is_local
from agent_server.http.auth import ServerDep

router = APIRouter(tags=["health"])

SUGGESTIONS = 5


class PageView(BaseModel):
    """What the chat page shows before the first message. `development`: this is a developer's own server; `developer`:
    the developer page is there for who asks; `clients`: users see their connected clients at /oauth/clients."""

    name: str
    development: bool
    developer: bool
    clients: bool
    model: ModelView
    message_limit: int
    suggestions: list[str]


@router.get("/api/page")
async def page(request: Request, server: ServerDep) -> PageView:
    """What the chat page shows before the first message."""
    return PageView(
        name=server.settings.title,
        development=not server.settings.deployed,
        developer=is_local(request.scope, server.settings),
        clients=server.settings.oauth,
        model=describe_model(server),
        message_limit=server.settings.message_limit,
        suggestions=list(server.workspace.suggestions[:SUGGESTIONS]),
    )
