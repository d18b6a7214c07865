"""The caller's own API keys at /api/keys."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from agent_server.api.parameters import AccountsDep, ActDep, Body, Name, Scope
from agent_server.caller import Caller
from agent_server.http.auth import ServerDep, member_with
from agent_server.identity.credentials import list_keys

router = APIRouter(tags=["keys"])


class KeyView(BaseModel):
    """A key without its text. `last_used_at` is right to the minute."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    name: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class NewKey(Body):
    """A key to be made. Without `days` it lasts until it is revoked. It ends no later than the key or the outside token
    that it is made with."""

    name: Name
    scopes: list[Scope] = Field(min_length=1, max_length=100)
    days: int | None = Field(default=None, ge=1, le=3_650)


class MadeKey(KeyView):
    """A key with its text. That is shown this once."""

    key: str


@router.get("/api/keys")
async def read_keys(caller: Annotated[Caller, member_with("keys:read")], server: ServerDep) -> list[KeyView]:
    """The caller's API keys with the newest first."""
    async with server.database.transaction(caller.id) as session:
        return [KeyView.model_validate(key) for key in await list_keys(session, caller.id)]


@router.post("/api/keys", status_code=201, responses={409: {}})
async def create_key(
    body: NewKey, caller: Annotated[Caller, member_with("keys:write")], act: ActDep, accounts: AccountsDep
) -> MadeKey:
    """Make a key for the caller. It may no more than the caller itself, and ends with the key that it is made with."""
    made = await accounts.make_key(act, caller, body.name, body.scopes, body.days)
    return MadeKey(**KeyView.model_validate(made.row).model_dump(), key=made.text)


@router.delete("/api/keys/{id}", status_code=204)
async def delete_key(
    id: UUID, caller: Annotated[Caller, member_with("keys:write")], act: ActDep, accounts: AccountsDep
) -> None:
    """End a key of the caller's and those made with it. The next request with any is refused."""
    await accounts.end_key(act, caller, id)
