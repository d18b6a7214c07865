"""/api/auth: signing in and out; /api/keys: the caller's own; /api/users: for staff."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, EmailStr, Field, StrictBool

from agent_server.caller import Caller
from agent_server.http.auth import CallerDep, address_of, count_address
from agent_server.http.scopes import holding, require
from agent_server.identity.accounts import Accounts, Act
from agent_server.identity.credentials import list_keys, page_users
from agent_server.identity.logins import SignedIn, issue_access
from agent_server.identity.models import User
from agent_server.identity.passwords import LONGEST, SHORTEST
from agent_server.server import Server, ServerDep
from agent_server.tool import refuse_unstorable

router = APIRouter()


class Body(BaseModel):
    """A body with fields that are ours, whose text can be stored."""

    model_config = ConfigDict(extra="forbid")

    def model_post_init(self, _: Any) -> None:
        for name, value in self:
            if isinstance(value, str):
                refuse_unstorable(value, (name,))


Password = Annotated[str, Field(min_length=SHORTEST, max_length=LONGEST)]
Given = Annotated[str, Field(max_length=LONGEST, description="As it is now.")]
Token = Annotated[str, Field(max_length=8_192)]
GuestToken = Annotated[str, Field(max_length=200, pattern=r"^asg_[0-9a-f]{32}\.[\w-]+$")]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Scope = Annotated[str, Field(max_length=100, description="`resource:verb`, `resource:*` or `*`.")]
Limit = Annotated[int, Query(ge=1, le=200)]
Cursor = Annotated[str | None, Query(max_length=100)]


def get_act(request: Request) -> Act:
    return Act(surface="rest", address=address_of(request))


def get_accounts(server: ServerDep) -> Accounts:
    return Accounts(server.database, server.resolver)


ActDep = Annotated[Act, Depends(get_act)]
AccountsDep = Annotated[Accounts, Depends(get_accounts)]


# --- Signing in


class Login(Body):
    """Who signs in; what the guest of `guest_token` has is theirs from then on."""

    email: str = Field(max_length=320)
    password: Given
    guest_token: GuestToken | None = None


class Refresh(Body):
    """The refresh token of the answer before."""

    refresh_token: Token


class Logout(Body):
    """`everywhere` ends every login of the user; API keys work on."""

    everywhere: StrictBool = False


class NewPassword(Body):
    """Another password; every other login ends."""

    current: Given
    new: Password


class Claim(Body):
    """A guest, by its token."""

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
    """Send `access_token` as `Authorization: Bearer`; when it is over, after `expires_in` seconds, send `refresh_token`
    to /api/auth/refresh, once."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105  # the name of a scheme
    expires_in: int
    refresh_token: str
    user: Me


@router.post("/api/auth/login", tags=["auth"], responses={401: {}, 409: {}}, dependencies=[Depends(count_address)])
async def log_in(body: Login, act: ActDep, accounts: AccountsDep, server: ServerDep) -> Tokens:
    """Sign in by e-mail and password. After too many failures this is refused for a while, also with the right one."""
    login = await accounts.sign_in(
        act, body.email, body.password, guest_token=body.guest_token, days=server.settings.login_days
    )
    return await _tokens(server, accounts, login)


@router.post("/api/auth/refresh", tags=["auth"], responses={401: {}}, dependencies=[Depends(count_address)])
async def refresh(body: Refresh, act: ActDep, accounts: AccountsDep, server: ServerDep) -> Tokens:
    """New tokens for a refresh token, which works once: one that is used again ends the login."""
    return await _tokens(server, accounts, await accounts.refresh(act, body.refresh_token))


async def _tokens(server: Server, accounts: Accounts, login: SignedIn) -> Tokens:
    minutes = server.settings.access_token_minutes
    access = issue_access(await server.resolver.secret.get(), login.owner_id, login.login_id, minutes)
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


@router.post("/api/auth/logout", tags=["auth"], status_code=204, responses={409: {}})
async def log_out(caller: CallerDep, act: ActDep, accounts: AccountsDep, body: Logout | None = None) -> None:
    """End this login, or every login of the user: access and refresh tokens are refused from then on."""
    if caller.login_id is None:  # who signed in may leave, whatever its roles
        require(caller, "account:write")
    await accounts.sign_out(act, caller, everywhere=body is not None and body.everywhere)


@router.get("/api/auth/me", tags=["auth"])
async def me(caller: Annotated[Caller, holding("account:read")], accounts: AccountsDep) -> Me:
    """Who is calling, and what they may do."""
    return await _me(accounts, caller)


@router.post("/api/auth/password", tags=["auth"], status_code=204, responses={409: {}})
async def change_password(
    body: NewPassword,
    caller: Annotated[Caller, holding("account:write", guests=False)],
    act: ActDep,
    accounts: AccountsDep,
) -> None:
    """Take another password."""
    await accounts.change_password(act, caller, body.current, body.new)


@router.post("/api/auth/claim", tags=["auth"], status_code=204, responses={409: {}})
async def claim(
    body: Claim,
    caller: Annotated[Caller, holding("account:write", guests=False)],
    act: ActDep,
    accounts: AccountsDep,
) -> None:
    """Make the guest's conversations, profile and all else the caller's; the guest's token ends."""
    await accounts.claim(act, caller, body.guest_token)


# --- Keys


class KeyView(BaseModel):
    """A key without its text; `last_used_at` is right to the minute."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    name: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class NewKey(Body):
    """A key: what it is for, what it may do, and for how many days (until it is revoked, where none are given)."""

    name: Name
    scopes: list[Scope] = Field(min_length=1, max_length=100)
    days: int | None = Field(default=None, ge=1, le=3_650)


class MadeKey(KeyView):
    """A key, with its text, which is shown this once."""

    key: str


@router.get("/api/keys", tags=["keys"])
async def read_keys(caller: Annotated[Caller, holding("keys:read", guests=False)], server: ServerDep) -> list[KeyView]:
    """The caller's API keys, newest first."""
    async with server.database.transaction(caller.id) as session:
        return [KeyView.model_validate(key) for key in await list_keys(session, caller.id)]


@router.post("/api/keys", tags=["keys"], status_code=201)
async def create_key(
    body: NewKey, caller: Annotated[Caller, holding("keys:write", guests=False)], act: ActDep, accounts: AccountsDep
) -> MadeKey:
    """Make a key for the caller, which may no more than the caller itself."""
    made = await accounts.make_key(act, caller, body.name, body.scopes, body.days)
    return MadeKey(**KeyView.model_validate(made.row).model_dump(), key=made.text)


@router.delete("/api/keys/{id}", tags=["keys"], status_code=204)
async def delete_key(
    id: UUID, caller: Annotated[Caller, holding("keys:write", guests=False)], act: ActDep, accounts: AccountsDep
) -> None:
    """End a key of the caller's: the next request with it is refused."""
    await accounts.end_key(act, caller, id)


# --- Users, for staff


class UserView(BaseModel):
    """A user. `issuer` and `subject` name one whose token is an outside issuer's."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    name: str
    email: str | None
    roles: list[str]
    issuer: str | None
    subject: str | None
    created_at: datetime
    disabled_at: datetime | None


class UserPage(BaseModel):
    """Users, newest first."""

    items: list[UserView]
    next_cursor: str | None


class NewUser(Body):
    """A user, who signs in by e-mail and password where both are given."""

    name: Name
    email: EmailStr | None = None
    password: Password | None = None
    roles: list[Name] = Field(default=[], max_length=20)


class UserChange(Body):
    """What is to be changed; what is left out stays."""

    roles: list[Name] | None = Field(default=None, max_length=20)
    disabled: StrictBool | None = None
    password: Password | None = None


@router.get("/api/users", tags=["users"])
async def read_users(
    caller: Annotated[Caller, holding("users:read", guests=False)],
    server: ServerDep,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> UserPage:
    """Every user."""
    async with server.database.transaction(caller.id, scopes=("users:read",)) as session:
        page, following = await page_users(session, limit, cursor)
    return UserPage(items=[UserView.model_validate(user) for user in page], next_cursor=following)


@router.post("/api/users", tags=["users"], status_code=201, responses={409: {}})
async def create_user(
    body: NewUser, caller: Annotated[Caller, holding("users:write", guests=False)], act: ActDep, accounts: AccountsDep
) -> UserView:
    """Make a user, with no role that may more than the caller."""
    user: User = await accounts.make_user(
        act, caller, body.name, email=body.email, password=body.password, roles=body.roles
    )
    return UserView.model_validate(user)


@router.patch("/api/users/{id}", tags=["users"])
async def change_user(
    id: UUID,
    body: UserChange,
    caller: Annotated[Caller, holding("users:write", guests=False)],
    act: ActDep,
    accounts: AccountsDep,
) -> UserView:
    """Change a user who may no more than the caller. One who is disabled is refused from the next request on."""
    changes = body.model_dump(exclude_none=True)
    return UserView.model_validate(await accounts.change_user(act, caller, id, **changes))
