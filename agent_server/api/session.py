"""A guest's session and profile at /api/session."""

from datetime import datetime
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from agent_server.bodies import refuse_unstorable
from agent_server.caller import Caller
from agent_server.conversations.repository import ConversationRepository
from agent_server.errors import NotFound
from agent_server.http.auth import SelfReaderDep, SelfWriterDep, ServerDep, address_of
from agent_server.http.middleware import mark_counted
from agent_server.identity.credentials import keep_credential
from agent_server.identity.models import Guest
from agent_server.identity.profiles import read_profile, update_profile
from agent_server.server import Server

router = APIRouter(tags=["session"])


class NewSession(BaseModel):
    """What a guest may say about itself from the start."""

    model_config = ConfigDict(extra="forbid")

    profile: dict[str, Any] = Field(default_factory=dict, description="Whatever the workspace's agents make use of.")


class SessionView(BaseModel):
    """A guest's session. `token` is given once, when it is made."""

    id: UUID
    token: str | None = None
    conversation_id: UUID | None = Field(description="The conversation with the latest activity.")
    profile: dict[str, Any]
    expires_at: datetime


@router.post("/api/session", status_code=201)
async def create_session(request: Request, server: ServerDep, body: NewSession | None = None) -> SessionView:
    """Begin a guest's session. Send its token as `Authorization: Bearer` from then on."""
    profile = (body or NewSession()).profile
    refuse_unstorable(profile, ("profile",))
    guest = await server.resolver.create_guest(server.settings.guest_hours, address_of(request), profile)
    # Not before: a profile that is refused undoes the count.
    mark_counted(request.scope)
    return (await _view(server, Caller(id=guest.id, kind="guest"), guest.id)).model_copy(update={"token": guest.token})


@router.get("/api/session/{id}")
async def read_session(id: UUID, caller: SelfReaderDep, server: ServerDep) -> SessionView:
    """The caller's own session."""
    return await _view(server, caller, id)


class ProfileChange(BaseModel):
    """Keys to set. Null drops a key; what is not named stays."""

    model_config = ConfigDict(extra="forbid")

    profile: dict[str, Any]


@router.patch("/api/session/{id}")
async def change_session(id: UUID, body: ProfileChange, caller: SelfWriterDep, server: ServerDep) -> SessionView:
    """Change the caller's own profile."""
    refuse_unstorable(body.profile, ("profile",))
    # Refuses another's id before anything is written, and a caller who is no guest.
    await _view(server, caller, id)
    async with server.database.transaction(caller.id) as session:
        await keep_credential(session, caller)
        await update_profile(session, caller, body.profile)
    return await _view(server, caller, id)


async def _view(server: Server, caller: Caller, id: UUID) -> SessionView:
    async with server.database.transaction(caller.id) as session:
        # Another's session is answered as one that is not there, so that nobody learns which ids exist.
        guest = await session.get(Guest, id) if id == caller.id else None
        if guest is None:
            raise NotFound(f"There is no session {id} of yours")
        latest = await ConversationRepository(session, caller).page_recent(1)
        profile = await read_profile(session, caller)
    return SessionView(
        id=guest.id,
        conversation_id=latest.items[0].id if latest.items else None,
        profile=profile,
        expires_at=guest.expires_at,
    )
