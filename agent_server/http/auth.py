"""Who is calling: a credential in `Authorization: Bearer`; nowhere else."""

from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

import structlog
from fastapi import Depends, Request

from agent_server.caller import Caller
from agent_server.db import new_id
from agent_server.errors import Forbidden, Unauthorized
from agent_server.identity.credentials import IssuedGuest, issue_guest
from agent_server.identity.profiles import update_profile
from agent_server.server import Server, ServerDep


def address_of(request: Request) -> str | None:
    """Where a request comes from, as the server that took it says; None where that is no network."""
    return None if request.client is None else request.client.host


async def _find_caller(request: Request, server: Server) -> Caller | None:
    header = request.headers.get("authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthorized("Send the credential as `Authorization: Bearer <API key>`")
    caller = await server.resolver.resolve(token.strip(), address=address_of(request))
    structlog.contextvars.bind_contextvars(caller=str(caller.id))
    return caller


async def count_address(request: Request, server: ServerDep) -> None:
    """Count a request without a credential. Raises TooMany."""
    async with server.database.transaction() as session:
        await server.resolver.count_address(session, address_of(request))


async def get_caller(request: Request, server: ServerDep) -> Caller:
    """The caller, guest or not. Raises Unauthorized and TooMany."""
    caller = await _find_caller(request, server)
    if caller is None:
        raise Unauthorized("This needs a credential: send `Authorization: Bearer <API key>`")
    return caller


async def get_member(request: Request, server: ServerDep) -> Caller:
    """The caller, if it is no guest. Raises Unauthorized, Forbidden and TooMany."""
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
    guest = Caller(id=new_id(), kind="guest", scopes=server.resolver.guest_scopes)
    request.state.guest_token = (await new_guest(request, server, guest.id)).token
    return guest


async def new_guest(
    request: Request, server: Server, id: UUID, profile: Mapping[str, Any] | None = None
) -> IssuedGuest:
    """A guest with this id, and what it says of itself. Raises TooMany, and InvalidInput as `update_profile`."""
    await server.resolver.secret.get()
    async with server.database.transaction(id) as session:
        await server.resolver.count_guest(session, address_of(request))
        issued = await issue_guest(session, id, server.settings.guest_hours)
        if profile:
            await update_profile(session, Caller(id=id, kind="guest"), profile)
    return issued


CallerDep = Annotated[Caller, Depends(get_caller)]
MemberDep = Annotated[Caller, Depends(get_member)]
ChatterDep = Annotated[Caller, Depends(get_caller_or_new_guest)]
