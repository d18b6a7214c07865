"""Who is calling: an API key or a guest's token in `Authorization: Bearer`; nowhere else."""

from typing import Annotated

import structlog
from fastapi import Depends, Request

from agent_server.db import new_id
from agent_server.errors import Forbidden, Unauthorized
from agent_server.http.server import Server, ServerDep
from agent_server.identity import Caller
from agent_server.identity.credentials import issue_guest, resolve_caller


async def _find_caller(request: Request, server: Server) -> Caller | None:
    header = request.headers.get("authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthorized("Send the credential as `Authorization: Bearer <API key>`")
    caller = await resolve_caller(server.database, token.strip(), guest_scopes=server.guest_scopes)
    structlog.contextvars.bind_contextvars(caller=str(caller.id))
    return caller


async def get_caller(request: Request, server: ServerDep) -> Caller:
    """The caller, guest or not. Raises Unauthorized."""
    caller = await _find_caller(request, server)
    if caller is None:
        raise Unauthorized("This needs a credential: send `Authorization: Bearer <API key>`")
    return caller


async def get_member(request: Request, server: ServerDep) -> Caller:
    """The caller, if it is no guest. Raises Unauthorized and Forbidden."""
    caller = await get_caller(request, server)
    if caller.kind == "guest":
        raise Forbidden("A guest may chat; this needs an API key (`agent-server key create` makes one)")
    return caller


async def get_caller_or_new_guest(request: Request, server: ServerDep) -> Caller:
    """The caller; without any credential a new guest, whose token the answer carries as `X-Guest-Token`, whatever the
    answer is (see `middleware`)."""
    caller = await _find_caller(request, server)
    if caller is not None:
        return caller
    guest = Caller(id=new_id(), kind="guest", scopes=server.guest_scopes)
    async with server.database.transaction(guest.id) as session:
        issued = await issue_guest(session, guest.id, server.settings.guest_hours)
    request.state.guest_token = issued.token
    return guest


CallerDep = Annotated[Caller, Depends(get_caller)]
MemberDep = Annotated[Caller, Depends(get_member)]
ChatterDep = Annotated[Caller, Depends(get_caller_or_new_guest)]
