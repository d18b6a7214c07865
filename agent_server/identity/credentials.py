"""API keys and guest tokens: `ask_<id>.<secret>` and `asg_<id>.<secret>`, both 256 random bits, stored as SHA-256."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import or_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from agent_server.db import Database, new_id, now
from agent_server.errors import Conflict, InvalidInput, NotFound, Unauthorized
from agent_server.identity.caller import Caller
from agent_server.identity.models import ApiKey, Guest, User

KEY, GUEST = "ask", "asg"
LOCAL_KEY = "local"
"""The name of the key that a development server makes for the local user."""
_SCOPE = re.compile(r"\*|[a-z_]+:([a-z_]+|\*)")


@dataclass(frozen=True)
class IssuedKey:
    """A key just made: the only time its text is known."""

    row: ApiKey
    text: str


@dataclass(frozen=True)
class IssuedGuest:
    """A guest just made, with the token that is shown once."""

    row: Guest
    token: str


def _new_secret() -> tuple[str, bytes]:
    secret = secrets.token_urlsafe(32)
    return secret, hashlib.sha256(secret.encode()).digest()


def _parse(token: str) -> tuple[str, UUID, bytes]:
    prefix, _, rest = token.partition("_")
    id, _, secret = rest.partition(".")
    try:
        return prefix, UUID(hex=id), hashlib.sha256(secret.encode()).digest()
    except ValueError:
        raise Unauthorized("This is not one of our tokens; send `Authorization: Bearer <API key>`") from None


async def resolve_caller(database: Database, token: str, *, guest_scopes: Iterable[str] = ()) -> Caller:
    """The caller that `token` stands for. Raises Unauthorized for one that is malformed, unknown, expired or revoked."""
    prefix, id, digest = _parse(token)
    async with database.transaction() as session:
        row: ApiKey | Guest | None
        if prefix == KEY:
            row = (await session.execute(select(ApiKey).where(col(ApiKey.id) == id))).scalar_one_or_none()
        else:
            row = await session.get(Guest, id) if prefix == GUEST else None
    if row is None or not hmac.compare_digest(row.secret_sha, digest):
        raise Unauthorized("This token is not known here; check that it was copied whole")
    if row.expires_at is not None and row.expires_at <= now():
        raise Unauthorized("This token has expired; get a new one")
    if isinstance(row, Guest):
        return Caller(id=row.id, kind="guest", scopes=frozenset(guest_scopes))
    if row.revoked_at is not None:
        raise Unauthorized("This key has been revoked; get a new one")
    return Caller(id=row.owner_id, kind="user", scopes=frozenset(row.scopes))


async def issue_key(
    session: AsyncSession, owner: UUID, *, name: str, scopes: Sequence[str], expires_at: datetime | None = None
) -> IssuedKey:
    """A new key of `owner`'s. Raises InvalidInput for a scope that is not `resource:verb`, `resource:*` or `*`."""
    for scope in scopes:
        if not _SCOPE.fullmatch(scope):
            raise InvalidInput(f"scope {scope!r}: write resource:verb as in tasks:read, resource:*, or *")
    secret, digest = _new_secret()
    row = ApiKey(owner_id=owner, name=name, secret_sha=digest, scopes=list(scopes), expires_at=expires_at)
    session.add(row)
    await session.flush()
    return IssuedKey(row, f"{KEY}_{row.id.hex}.{secret}")


async def somebody_can_sign_in(database: Database) -> bool:
    """Whether any key works beside the local user's own, which is no sign that anybody set up who may call."""
    working = col(ApiKey.revoked_at).is_(None) & or_(col(ApiKey.expires_at).is_(None), col(ApiKey.expires_at) > now())
    async with database.transaction() as session:
        statement = select(ApiKey.id).where(working, col(ApiKey.name) != LOCAL_KEY).limit(1)
        return (await session.execute(statement)).first() is not None


async def list_keys(session: AsyncSession, owner: UUID | None = None) -> Sequence[ApiKey]:
    """Every key, newest first; of one owner if named."""
    statement = select(ApiKey).order_by(col(ApiKey.id).desc())
    if owner is not None:
        statement = statement.where(col(ApiKey.owner_id) == owner)
    return (await session.execute(statement)).scalars().all()


async def revoke_key(session: AsyncSession, id: UUID) -> ApiKey:
    """Raises NotFound."""
    row = (await session.execute(select(ApiKey).where(col(ApiKey.id) == id))).scalar_one_or_none()
    if row is None:
        raise NotFound(f"There is no key {id}; `agent-server key list` shows which there are")
    row.revoked_at = row.revoked_at or now()
    return row


async def issue_guest(session: AsyncSession, hours: int) -> IssuedGuest:
    """A new guest whose token works for `hours`."""
    secret, digest = _new_secret()
    row = Guest(id=new_id(), secret_sha=digest, expires_at=now() + timedelta(hours=hours))
    session.add(row)
    await session.flush()
    return IssuedGuest(row, f"{GUEST}_{row.id.hex}.{secret}")


async def create_user(session: AsyncSession, name: str) -> User:
    """Raises Conflict when the name is taken."""
    if await find_user(session, name) is not None:
        raise Conflict(f"There is a user {name!r} already")
    row = User(name=name)
    session.add(row)
    await session.flush()
    return row


async def find_user(session: AsyncSession, name: str) -> User | None:
    return (await session.execute(select(User).where(col(User.name) == name))).scalar_one_or_none()
