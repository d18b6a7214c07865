"""Every credential, and the caller that it stands for.

    ask_<id>.<secret>     API key: its owner, with the scopes of the key
    asg_<id>.<secret>     guest's token
    JWT                   access token of ours (`logins`), or of an outside issuer, told apart by `iss`

Keys and guests' tokens hold 256 random bits, stored as SHA-256. Nothing is kept in the process: what is revoked or
disabled is refused by the next request on any replica.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

import jwt
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from agent_server.caller import Caller
from agent_server.db import OWN_DATA, Database, new_id, now
from agent_server.errors import Conflict, InvalidInput, NotFound, Unauthorized
from agent_server.identity.limits import HOUR, MINUTE, Limits, limit_key, take
from agent_server.identity.logins import OURS, SigningSecret, read_access, roles_of_login
from agent_server.identity.models import ApiKey, Guest, User
from agent_server.identity.roles import Roles, define_roles, narrowed

_TOUCH_KEY = text("update api_key set last_used_at = now() where owner_id = :owner_id and id = :id")
KEY, GUEST = "ask", "asg"
MAX_TOKEN = 8_192
"""Longest token, characters."""
_FIND_KEY = text("""
    select *, last_used_at is null or last_used_at < now() - interval '1 minute' as stale
    from find_key(:id, :sha)""")
_SOMEBODY = text("select somebody_can_sign_in(:but)")
_FIND_OUTSIDER = text("select id, roles, disabled_at from find_outsider(:issuer, :subject)")
_MAKE_OUTSIDER = text("""
    insert into account (id, name, roles, issuer, subject, created_at, updated_at)
    values (:id, :name, '{}', :issuer, :subject, now(), now()) on conflict do nothing""")
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


class OutsideToken(Protocol):
    """What a verified token of an outside issuer says."""

    @property
    def issuer(self) -> str: ...
    @property
    def subject(self) -> str: ...
    @property
    def name(self) -> str | None: ...
    @property
    def scopes(self) -> frozenset[str] | None: ...
    @property
    def roles(self) -> frozenset[str]: ...
    @property
    def expires_at(self) -> datetime: ...


class Verifier(Protocol):
    """The outside issuers that are trusted. Raises Unauthorized."""

    async def verify(self, token: str, *, audience: Collection[str] = ()) -> OutsideToken: ...
    async def close(self) -> None: ...


class Resolver:
    """Finds the caller that a credential stands for, and counts its requests."""

    def __init__(
        self,
        database: Database,
        *,
        guest_scopes: Iterable[str] = (),
        roles: Roles | None = None,
        issuers: Verifier | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.guest_scopes = frozenset(guest_scopes)
        self.roles = roles or define_roles({}, self.guest_scopes)
        self.secret = SigningSecret(database)
        self.limits = limits or Limits()
        self._database, self._issuers = database, issuers

    async def resolve(self, token: str, *, address: str | None = None, audience: Collection[str] = ()) -> Caller:
        """The caller of `token`, whose request comes from `address`; `audience` is what an outside token may be meant
        for beside what was configured. Raises Unauthorized, TooMany, and Unavailable where an issuer's keys cannot be
        had."""
        try:
            return await self._resolve(token, address, audience)
        except Unauthorized:  # what was counted has been rolled back with the look-up
            async with self._database.transaction() as session:
                await self.count_address(session, address)
            raise

    async def close(self) -> None:
        if self._issuers is not None:
            await self._issuers.close()

    async def count_address(self, session: AsyncSession, address: str | None) -> None:
        """Count a request from there. Raises TooMany."""
        await self._count(session, "address", address, MINUTE, self.limits.per_address)

    async def count_guest(self, session: AsyncSession, address: str | None) -> None:
        """Count a new guest from there. Raises TooMany."""
        await self.count_address(session, address)
        await self._count(session, "guests", address, HOUR, self.limits.guests_per_address)

    async def _count(self, session: AsyncSession, kind: str, of: str | None, seconds: float, burst: int) -> None:
        if of is not None and burst:
            await take(session, limit_key(await self.secret.get(), kind, of), per_seconds=seconds, burst=burst)

    async def _count_caller(self, session: AsyncSession, id: UUID) -> None:
        await self._count(session, "caller", str(id), MINUTE, self.limits.per_caller)

    async def _resolve(self, token: str, address: str | None, audience: Collection[str]) -> Caller:
        if len(token) > MAX_TOKEN:
            raise _no_token()
        await self.secret.get()  # before a transaction is open: there would have to be a second connection
        if token.count(".") == 2:
            return await self._of_jwt(token, address, audience)
        prefix, id, digest = _parse(token)
        if prefix == GUEST:
            return await self._of_guest(id, digest, address)
        if prefix == KEY:
            return await self._of_key(id, digest, address)
        raise _unknown()

    async def _of_key(self, id: UUID, digest: bytes, address: str | None) -> Caller:
        async with self._database.transaction() as session:
            await self.count_address(session, address)
            key = (await session.execute(_FIND_KEY, {"id": id, "sha": digest})).one_or_none()
            if key is None:
                raise _unknown()
            _refuse_expired(key.expires_at)
            if key.revoked_at is not None or key.disabled_at is not None:
                raise Unauthorized("This key has been revoked; get a new one")
            await self._count_caller(session, key.owner_id)
        if key.stale:
            async with self._database.transaction(key.owner_id) as session:
                await session.execute(_TOUCH_KEY, {"owner_id": key.owner_id, "id": id})
        return Caller(id=key.owner_id, kind="user", scopes=frozenset(key.scopes), expires_at=key.expires_at)

    async def _of_guest(self, id: UUID, digest: bytes, address: str | None) -> Caller:
        async with self._database.transaction(id) as session:
            await self.count_address(session, address)
            guest = await check_guest(session, id, digest)
            await self._count_caller(session, id)
        return Caller(id=id, kind="guest", scopes=self.guest_scopes, expires_at=guest.expires_at)

    async def _of_jwt(self, token: str, address: str | None, audience: Collection[str]) -> Caller:
        if _issuer_of(token) != OURS:
            return await self._of_outsider(token, address, audience)
        access = read_access(await self.secret.get(), token)
        async with self._database.transaction(access.owner_id) as session:
            await self.count_address(session, address)
            roles = await roles_of_login(session, access)
            await self._count_caller(session, access.owner_id)
        return Caller(
            id=access.owner_id,
            kind="user",
            scopes=self.roles.of(roles),
            roles=roles,
            login_id=access.login_id,
            expires_at=access.expires_at,
        )

    async def _of_outsider(self, token: str, address: str | None, audience: Collection[str]) -> Caller:
        if self._issuers is None:
            raise Unauthorized("This token's issuer is not known here; sign in, or send an API key")
        said = await self._issuers.verify(token, audience=audience)
        account = await self._outsider(said)
        if account.disabled_at is not None:
            raise Unauthorized("This account is disabled; ask whoever runs this server")
        async with self._database.transaction() as session:
            await self.count_address(session, address)
            await self._count_caller(session, account.id)
        roles = frozenset(account.roles) | (said.roles & self.roles.scopes.keys())
        scopes = self.roles.of(roles)
        if said.scopes is not None:
            scopes = narrowed(scopes, filter(_SCOPE.fullmatch, said.scopes))
        return Caller(id=account.id, kind="user", scopes=scopes, roles=roles, expires_at=said.expires_at)

    async def _outsider(self, said: OutsideToken) -> Any:
        """The account of an outside user, made at first sight."""
        who = {"issuer": said.issuer, "subject": said.subject}
        id = new_id()
        # The issuer is in the name: an outsider who calls himself `local`, or like somebody who has yet to come, must
        # not be taken for them. A name that is taken all the same gives way to the id.
        for name in (f"{said.name or said.subject} ({said.issuer} {said.subject})", str(id)):
            async with self._database.transaction() as session:
                if (found := (await session.execute(_FIND_OUTSIDER, who)).one_or_none()) is not None:
                    return found
            async with self._database.transaction(id) as session:
                await session.execute(_MAKE_OUTSIDER, {"id": id, "name": name, **who})
        async with self._database.transaction() as session:
            return (await session.execute(_FIND_OUTSIDER, who)).one()


async def resolve_caller(
    database: Database, token: str, *, guest_scopes: Iterable[str] = (), address: str | None = None
) -> Caller:
    """The caller that `token` stands for, with no limits and no outside issuers. Raises Unauthorized for one that is
    malformed, unknown, expired or revoked."""
    return await Resolver(database, guest_scopes=guest_scopes).resolve(token, address=address)


def _new_secret() -> tuple[str, bytes]:
    secret = secrets.token_urlsafe(32)
    return secret, hashlib.sha256(secret.encode()).digest()


def _parse(token: str) -> tuple[str, UUID, bytes]:
    prefix, _, rest = token.partition("_")
    id, _, secret = rest.partition(".")
    try:
        return prefix, UUID(hex=id), hashlib.sha256(secret.encode()).digest()
    except ValueError:
        raise _no_token() from None


def _issuer_of(token: str) -> Any:
    """What a JWT says of who issued it, not yet verified."""
    try:
        return jwt.decode(token, options={"verify_signature": False}).get("iss")
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise _no_token() from None


def parse_guest(token: str) -> tuple[UUID, bytes]:
    """The id in a guest's token, and the hash of its secret. Raises Unauthorized for what is none."""
    prefix, id, digest = _parse(token)
    if prefix != GUEST:
        raise _no_token()
    return id, digest


async def check_guest(session: AsyncSession, id: UUID, digest: bytes, *, lock: bool = False) -> Guest:
    """The guest whose token this is. Raises Unauthorized."""
    row = await session.get(Guest, id, with_for_update=lock)
    if row is None or not hmac.compare_digest(row.secret_sha, digest):
        raise _unknown()
    _refuse_expired(row.expires_at)
    return row


def _no_token() -> Unauthorized:
    return Unauthorized("This is not one of our tokens; send `Authorization: Bearer <API key>`")


def _unknown() -> Unauthorized:
    return Unauthorized("This token is not known here; check that it was copied whole")


def _refuse_expired(expires_at: datetime | None) -> None:
    if expires_at is not None and expires_at <= now():
        raise Unauthorized("This token has expired; get a new one")


async def issue_key(
    session: AsyncSession, owner: UUID, *, name: str, scopes: Sequence[str], expires_at: datetime | None = None
) -> IssuedKey:
    """A new key of `owner`'s. Raises InvalidInput for a scope that is not `resource:verb`, `resource:*` or `*`."""
    for scope in scopes:
        if not _SCOPE.fullmatch(scope) or scope == OWN_DATA:
            raise InvalidInput(f"scope {scope!r}: write resource:verb as in tasks:read, resource:*, or *")
    secret, digest = _new_secret()
    row = ApiKey(owner_id=owner, name=name, secret_sha=digest, scopes=list(scopes), expires_at=expires_at)
    session.add(row)
    await session.flush()
    return IssuedKey(row, f"{KEY}_{row.id.hex}.{secret}")


async def somebody_can_sign_in(database: Database) -> bool:
    """Whether a user has a password or a key works, beside the local user's own, which is no sign that anybody set up
    who may call."""
    async with database.transaction() as session:
        found: bool = (await session.execute(_SOMEBODY, {"but": LOCAL_KEY})).scalar_one()
    return found


async def list_keys(session: AsyncSession, owner: UUID | None = None) -> Sequence[ApiKey]:
    """Every key, newest first; of one owner if named."""
    statement = select(ApiKey).order_by(col(ApiKey.id).desc())
    if owner is not None:
        statement = statement.where(col(ApiKey.owner_id) == owner)
    return (await session.execute(statement)).scalars().all()


async def revoke_key(session: AsyncSession, id: UUID, owner: UUID | None = None) -> ApiKey:
    """End a key, of one owner if named. Raises NotFound."""
    statement = select(ApiKey).where(col(ApiKey.id) == id)
    if owner is not None:
        statement = statement.where(col(ApiKey.owner_id) == owner)
    row = (await session.execute(statement)).scalar_one_or_none()
    if row is None:
        raise NotFound(f"There is no key {id}; `agent-server key list` shows which there are")
    row.revoked_at = row.revoked_at or now()
    return row


async def issue_guest(session: AsyncSession, id: UUID, hours: int) -> IssuedGuest:
    """A new guest with this id, whose token works for `hours`."""
    secret, digest = _new_secret()
    row = Guest(id=id, secret_sha=digest, expires_at=now() + timedelta(hours=hours))
    session.add(row)
    await session.flush()
    return IssuedGuest(row, f"{GUEST}_{row.id.hex}.{secret}")


async def create_user(
    session: AsyncSession,
    name: str,
    *,
    id: UUID | None = None,
    email: str | None = None,
    password_hash: str | None = None,
    roles: Iterable[str] = (),
) -> User:
    """Raises Conflict when the name or the e-mail is taken."""
    email = email and email.lower()
    if await find_user(session, name) is not None:
        raise Conflict(f"There is a user {name!r} already")
    row = User(id=id or new_id(), name=name, email=email, password_hash=password_hash, roles=sorted(set(roles)))
    session.add(row)
    try:
        await session.flush()
    except IntegrityError:
        raise Conflict(f"There is a user {name!r} already, or one with this e-mail") from None
    return row


async def find_user(session: AsyncSession, name: str) -> User | None:
    return (await session.execute(select(User).where(col(User.name) == name))).scalar_one_or_none()


async def page_users(session: AsyncSession, limit: int, cursor: str | None = None) -> tuple[Sequence[User], str | None]:
    """So many users, newest first, and the cursor of the next page. Raises InvalidInput for a cursor that is none."""
    statement = select(User).order_by(col(User.id).desc()).limit(limit + 1)
    if cursor is not None:
        try:
            statement = statement.where(col(User.id) < UUID(cursor))
        except ValueError:
            raise InvalidInput(
                "cursor: not one of ours; pass next_cursor of the page before, or leave it out"
            ) from None
    rows = (await session.execute(statement)).scalars().all()
    return rows[:limit], str(rows[limit - 1].id) if len(rows) > limit else None
