"""Logins and passwords at /api/auth."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field, StrictBool

from agent_server.api.parameters import AccountsDep, ActDep, Body, Given, GuestToken, Password, Token
from agent_server.caller import Caller
from agent_server.http.auth import CallerDep, ServerDep, caller_with, count_address, member_with
from agent_server.identity.accounts import Accounts
from agent_server.identity.logins import SignedIn, issue_access
from agent_server.identity.rights import require
from agent_server.server import Server

router = APIRouter(tags=["auth"])


class Login(Body):
    """Who signs in. What the guest of `guest_token` has is theirs from then on."""

    # 64 for the local part, 255 for the domain and the @ (RFC 5321). Not EmailStr: what is no address is answered as
    # an address that nobody has.
    email: str = Field(max_length=320)
    password: Given
    guest_token: GuestToken | None = None


class Refresh(Body):
    """The refresh token of the answer before."""

    refresh_token: Token


class Logout(Body):
    """`everywhere` ends every login of the user. API keys work on."""

    # Strict here and wherever much depends on it: by default pydantic takes the texts `on` and `yes` for true.
    everywhere: StrictBool = False


class NewPassword(Body):
    """Another password. Every other login ends."""

    current: Given
    new: Password


class Claim(Body):
    """A guest by its token."""

    guest_token: GuestToken


class Me(BaseModel):
    """The caller. `expires_at` is the credential's; a guest and the owner of a key without an account have no name."""

    id: UUID
    kind: Literal["user", "guest", "service"]
    name: str | None
    email: str | None
    roles: list[str]
    scopes: list[str]
    expires_at: datetime | None


class Tokens(BaseModel):
    """Send `access_token` as `Authorization: Bearer`. When it is over, after `expires_in` seconds, send `refresh_token`
    to /api/auth/refresh, once."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105  # the name of a scheme
    expires_in: int
    refresh_token: str
    user: Me


# Nobody is known yet whose requests could be counted, so the address counts; so it does for a refresh.
@router.post("/api/auth/login", responses={401: {}, 409: {}}, dependencies=[Depends(count_address)])
async def log_in(body: Login, act: ActDep, accounts: AccountsDep, server: ServerDep) -> Tokens:
    """Sign in by e-mail and password. After too many failures this is refused for a while, also with the right one."""
    login = await accounts.sign_in(
        act, body.email, body.password, guest_token=body.guest_token, days=server.settings.login_days
    )
    return await _tokens(server, accounts, login)


@router.post("/api/auth/refresh", responses={401: {}}, dependencies=[Depends(count_address)])
async def refresh(body: Refresh, act: ActDep, accounts: AccountsDep, server: ServerDep) -> Tokens:
    """New tokens for a refresh token. It works once, and one that is used again ends the login."""
    return await _tokens(server, accounts, await accounts.refresh(act, body.refresh_token))


async def _tokens(server: Server, accounts: Accounts, login: SignedIn) -> Tokens:
    minutes = server.settings.access_token_minutes
    access = issue_access(await server.resolver.secret.get(), login.owner_id, login.login_id, minutes)
    # Resolved as the next request will be, so that the scopes in the answer are those that it will have.
    caller = await server.resolver.resolve(access)
    return Tokens(
        access_token=access,
        expires_in=minutes * 60,
        refresh_token=login.refresh_token,
        user=await _me(accounts, caller),
    )


async def _me(accounts: Accounts, caller: Caller) -> Me:
    user = await accounts.find(caller.id)
    return Me(
        id=caller.id,
        kind=caller.kind,
        name=user and user.name,
        email=user and user.email,
        roles=sorted(caller.roles | frozenset(user.roles if user else ())),
        scopes=sorted(caller.scopes),
        expires_at=caller.expires_at,
    )


@router.post("/api/auth/logout", status_code=204, responses={409: {}})
async def log_out(caller: CallerDep, act: ActDep, accounts: AccountsDep, body: Logout | None = None) -> None:
    """End this login or every login of the user. Access and refresh tokens are refused from then on."""
    # Who has signed in may leave, whatever its roles allow.
    if caller.login_id is None:
        require(caller, "account:write")
    await accounts.sign_out(act, caller, everywhere=body is not None and body.everywhere)


@router.get("/api/auth/me")
async def me(caller: Annotated[Caller, caller_with("account:read")], accounts: AccountsDep) -> Me:
    """Who is calling and what they may do."""
    return await _me(accounts, caller)


@router.post("/api/auth/password", status_code=204, responses={409: {}})
async def change_password(
    body: NewPassword,
    caller: Annotated[Caller, member_with("account:write")],
    act: ActDep,
    accounts: AccountsDep,
) -> None:
    """Take another password."""
    await accounts.change_password(act, caller, body.current, body.new)


@router.post("/api/auth/claim", status_code=204, responses={409: {}})
async def claim(
    body: Claim,
    caller: Annotated[Caller, member_with("account:write")],
    act: ActDep,
    accounts: AccountsDep,
) -> None:
    """Make all that is the guest's the caller's. The guest's token ends."""
    await accounts.claim(act, caller, body.guest_token)
