"""Who is calling and what a route asks them to hold.

A credential counts in `Authorization: Bearer` and nowhere else.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, cast

import structlog
from fastapi import Depends, Request

from agent_server.caller import Caller
from agent_server.errors import Unauthorized
from agent_server.http.middleware import mark_counted
from agent_server.identity.rights import require, require_member
from agent_server.server import Server

_SIGN_IN = "for this sign in, or send an API key"


async def get_server(request: Request) -> Server:
    return cast(Server, request.app.state.server)


ServerDep = Annotated[Server, Depends(get_server)]


def address_of(request: Request) -> str | None:
    """The address that a request comes from. It is None where that is no network."""
    return None if request.client is None else request.client.host


async def _find_caller(request: Request, server: Server) -> Caller | None:
    header = request.headers.get("authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    # Refused and not passed over: the sender would become a guest without noticing.
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthorized("Send the credential as `Authorization: Bearer <API key>`")
    mark_counted(request.scope)
    caller = await server.resolver.resolve(token.strip(), address=address_of(request))
    structlog.contextvars.bind_contextvars(caller=str(caller.id))
    return caller


async def count_address(request: Request, server: ServerDep) -> None:
    """Count a request without a credential. Raises TooMany."""
    mark_counted(request.scope)
    async with server.database.transaction() as session:
        await server.resolver.count_address(session, address_of(request))


async def get_caller(request: Request, server: ServerDep) -> Caller:
    """The caller of any kind. Raises Unauthorized and TooMany."""
    caller = await _find_caller(request, server)
    if caller is None:
        raise Unauthorized("This needs a credential: send `Authorization: Bearer <API key>`")
    return caller


async def get_caller_or_new_guest(request: Request, server: ServerDep) -> Caller:
    """The caller or else a new guest."""
    caller = await _find_caller(request, server)
    if caller is not None:
        return caller
    issued = await server.resolver.create_guest(server.settings.guest_hours, address_of(request))
    mark_counted(request.scope)
    # For `RequestMiddleware`, which sends it with every answer, also of an error: the guest is made by now.
    request.state.guest_token = issued.token
    guest = Caller(id=issued.id, kind="guest", scopes=server.resolver.guest_scopes)
    return await server.resolver.add_network(guest, address_of(request))


CallerDep = Annotated[Caller, Depends(get_caller)]
ChatterDep = Annotated[Caller, Depends(get_caller_or_new_guest)]


async def get_member(caller: CallerDep) -> Caller:
    """The caller who is no guest. Raises Forbidden."""
    require_member(caller)
    return caller


MemberDep = Annotated[Caller, Depends(get_member)]


def caller_with(scope: str, caller_of: Callable[..., Awaitable[Caller]] = get_caller) -> Any:
    """The dependency on a caller who holds `scope`. Raises Unauthorized, TooMany and Forbidden."""

    async def get_holder(caller: Annotated[Caller, Depends(caller_of)]) -> Caller:
        require(caller, scope)
        return caller

    return Depends(get_holder)


def member_with(scope: str) -> Any:
    """The dependency on a caller who holds `scope` and is no guest. Raises as `caller_with`."""

    async def get_holder(caller: CallerDep) -> Caller:
        # First: a guest must sign in, and to ask for a scope would not help it.
        require_member(caller, _SIGN_IN, scope)
        require(caller, scope)
        return caller

    return Depends(get_holder)


ReaderDep = Annotated[Caller, caller_with("conversations:read")]
WriterDep = Annotated[Caller, caller_with("conversations:write")]
SpeakerDep = Annotated[Caller, caller_with("conversations:write", get_caller_or_new_guest)]
SelfReaderDep = Annotated[Caller, caller_with("account:read")]
SelfWriterDep = Annotated[Caller, caller_with("account:write")]
