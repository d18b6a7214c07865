"""Every user at /api/users."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, EmailStr, Field, StrictBool

from agent_server.api.parameters import AccountsDep, ActDep, Body, Cursor, Limit, Name, Password
from agent_server.caller import Caller
from agent_server.http.auth import ServerDep, member_with
from agent_server.identity.users import page_users

router = APIRouter(tags=["users"])


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
    """Users with the newest first."""

    items: list[UserView]
    next_cursor: str | None


class NewUser(Body):
    """A user to be made. They sign in by e-mail and password where both are given."""

    name: Name
    email: EmailStr | None = None
    password: Password | None = None
    roles: list[Name] = Field(default=[], max_length=20)


class UserChange(Body):
    """What is to be changed. What is left out stays."""

    roles: list[Name] | None = Field(default=None, max_length=20)
    disabled: StrictBool | None = None
    password: Password | None = None


@router.get("/api/users")
async def read_users(
    caller: Annotated[Caller, member_with("users:read")],
    server: ServerDep,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> UserPage:
    """Every user."""
    # The caller's scope let it in; this one makes the database show rows of others.
    async with server.database.transaction(caller.id, scopes=("users:read",)) as session:
        page, following = await page_users(session, limit, cursor)
    return UserPage(items=[UserView.model_validate(user) for user in page], next_cursor=following)


@router.post("/api/users", status_code=201, responses={409: {}})
async def create_user(
    body: NewUser, caller: Annotated[Caller, member_with("users:write")], act: ActDep, accounts: AccountsDep
) -> UserView:
    """Make a user with no role that may more than the caller."""
    user = await accounts.make_user(act, caller, body.name, email=body.email, password=body.password, roles=body.roles)
    return UserView.model_validate(user)


@router.patch("/api/users/{id}")
async def change_user(
    id: UUID,
    body: UserChange,
    caller: Annotated[Caller, member_with("users:write")],
    act: ActDep,
    accounts: AccountsDep,
) -> UserView:
    """Change a user who may no more than the caller. One who is disabled is refused from the next request on."""
    changes = body.model_dump(exclude_none=True)
    return UserView.model_validate(await accounts.change_user(act, caller, id, **changes))
