"""Users who signed in.

    access token     JWT (RFC 9068: `typ` at+jwt), HS256; says who (`sub`) and by which login (`sid`), not what one may:
                     each request reads the login and the account, so that what is taken away is gone at once
    refresh token    asr_<user>.<login>.<secret>; works once and is answered with the next. One that comes a second time
                     was stolen, or its successor was: the whole login ends

What both are signed and limited with is one secret of the database's, made when it is first needed.
"""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from agent_server.db import Database, Executor, new_id, now
from agent_server.errors import Unauthorized
from agent_server.identity.models import Login, RefreshToken
from agent_server.late import Late

if TYPE_CHECKING:
    import jwt
else:
    jwt = Late("jwt")

REFRESH = "asr"
OURS = "agent-server"
"""The issuer and the audience of access tokens."""
_TYPE, _ALGORITHM = "at+jwt", "HS256"
_NEEDED = ["iss", "aud", "sub", "sid", "iat", "exp"]

# A function of the database: nobody reads the table itself.
_SECRET = text("select signing_secret(:fresh)")
_LOGIN = text("""
    select l.expires_at, l.revoked_at, a.roles, a.disabled_at
    from login l join account a on a.id = l.owner_id where l.owner_id = :owner_id and l.id = :id""")
# The login's row is locked, so that of two that come with one token one is the first.
_LOCK_LOGIN = text(_LOGIN.text + " for update of l")
_FIND_REFRESH = text("""
    select used_at from refresh_token where owner_id = :owner_id and login_id = :id and secret_sha = :sha""")
_USE_REFRESH = text("""
    update refresh_token set used_at = now() where owner_id = :owner_id and login_id = :id and secret_sha = :sha""")
_END = text("""
    update login set revoked_at = now()
    where owner_id = :owner_id and revoked_at is null and (cast(:id as uuid) is null or id = :id)
      and (cast(:spared as uuid) is null or id <> :spared)""")


class SigningSecret:
    """The secret that access tokens are signed with. It is the same on every replica and read once by each."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._secret: bytes | None = None

    async def get(self) -> bytes:
        if self._secret is None:
            async with self._database.transaction() as session:
                # Of two replicas that start at once one has its secret stored, and both are given that.
                found = await session.execute(_SECRET, {"fresh": secrets.token_bytes(32)})
                self._secret = bytes(found.scalar_one())
        return self._secret


@dataclass(frozen=True)
class Access:
    """What an access token of ours says."""

    owner_id: UUID
    login_id: UUID
    expires_at: datetime


@dataclass(frozen=True)
class SignedIn:
    """A login that goes on. The refresh token is shown this once."""

    owner_id: UUID
    login_id: UUID
    refresh_token: str


def issue_access(secret: bytes, owner_id: UUID, login_id: UUID, minutes: int) -> str:
    """An access token of that login."""
    at = now()
    claims = {
        "iss": OURS,
        "aud": OURS,
        "sub": str(owner_id),
        "sid": str(login_id),
        "iat": at,
        "exp": at + timedelta(minutes=minutes),
    }
    return jwt.encode(claims, secret, algorithm=_ALGORITHM, headers={"typ": _TYPE})


def read_access(secret: bytes, token: str) -> Access:
    """What a token says that we signed. Raises Unauthorized."""
    try:
        found = jwt.decode_complete(
            token,
            secret,
            # named here and not taken from the token, which could name `none`
            algorithms=[_ALGORITHM],
            audience=OURS,
            issuer=OURS,
            # `iat` is for people: the clock of the replica that wrote it may be ahead of this one's
            options={"require": _NEEDED, "verify_iat": False},
        )
        # RFC 9068: a JWT that is signed for another purpose must not pass as an access token.
        if found["header"].get("typ") != _TYPE:
            raise jwt.InvalidTokenError
        return _read(found["payload"])
    except jwt.ExpiredSignatureError:
        raise Unauthorized("This token has expired; get a new one") from None
    # RecursionError is how `json` gives up on what is nested very deep.
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise Unauthorized("This is not a token that we have given; sign in again") from None


def _read(claims: Mapping[str, Any]) -> Access:
    expires_at = datetime.fromtimestamp(claims["exp"], UTC)
    return Access(UUID(str(claims["sub"])), UUID(str(claims["sid"])), expires_at)


async def roles_of_login(session: Executor, access: Access) -> frozenset[str]:
    """The roles that the user of a login has now. Raises Unauthorized when the login is over."""
    row = (await session.execute(_LOGIN, {"owner_id": access.owner_id, "id": access.login_id})).one_or_none()
    _refuse_ended(row)
    return frozenset(row.roles) if row is not None else frozenset()


def _refuse_ended(row: Any) -> None:
    if row is None or row.revoked_at is not None or row.expires_at <= now():
        raise Unauthorized("This login has ended; sign in again")
    if row.disabled_at is not None:
        raise Unauthorized("This account is disabled; ask whoever runs this server")


async def begin_login(session: AsyncSession, owner_id: UUID, days: int, device: bytes | None = None) -> SignedIn:
    """A login of this user. It ends after so many days however often it is refreshed."""
    login = Login(owner_id=owner_id, id=new_id(), expires_at=now() + timedelta(days=days), device=device)
    session.add(login)
    await session.flush()
    return await _next(session, owner_id, login.id)


async def _next(session: AsyncSession, owner_id: UUID, login_id: UUID) -> SignedIn:
    secret = secrets.token_urlsafe(32)
    session.add(RefreshToken(owner_id=owner_id, login_id=login_id, secret_sha=_sha(secret)))
    await session.flush()
    return SignedIn(owner_id, login_id, f"{REFRESH}_{owner_id.hex}.{login_id.hex}.{secret}")


def _sha(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def refresh_owner(token: str) -> UUID:
    """Whose refresh token it says it is. Raises Unauthorized for what is none."""
    return _parse(token)[0]


def _parse(token: str) -> tuple[UUID, UUID, bytes]:
    prefix, _, rest = token.partition("_")
    parts = rest.split(".")
    try:
        if prefix != REFRESH or len(parts) != 3:
            raise ValueError
        return UUID(hex=parts[0]), UUID(hex=parts[1]), _sha(parts[2])
    except ValueError:
        raise Unauthorized("This is not a refresh token; sign in again") from None


async def refresh_login(session: AsyncSession, token: str) -> SignedIn | None:
    """The next refresh token for this one. None when it has been used before, which ends the login: commit that.

    Raises Unauthorized.
    """
    owner_id, login_id, sha = _parse(token)
    values = {"owner_id": owner_id, "id": login_id, "sha": sha}
    login = (await session.execute(_LOCK_LOGIN, values)).one_or_none()
    found = (await session.execute(_FIND_REFRESH, values)).one_or_none()
    if login is None or found is None:
        raise Unauthorized("This refresh token is not known here; sign in again")
    _refuse_ended(login)
    if found.used_at is not None:
        await end_logins(session, owner_id, login_id)
        return None
    # Marked and not deleted: a token that comes a second time shows a theft only while its row is there.
    await session.execute(_USE_REFRESH, values)
    return await _next(session, owner_id, login_id)


async def end_logins(
    session: AsyncSession, owner_id: UUID, id: UUID | None = None, *, spared: UUID | None = None
) -> None:
    """End one login or all of a user's but `spared`. What has ended stays as it is."""
    await session.execute(_END, {"owner_id": owner_id, "id": id, "spared": spared})
