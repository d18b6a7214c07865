"""API keys and guests' tokens.

    ask_<id>.<secret>     API key: its owner, with the scopes of the key
    asg_<id>.<secret>     guest's token
    JWT                   access token of ours (`logins`), or of an outside issuer (`issuers`), told apart by `iss`

Keys and guests' tokens hold 256 random bits, stored as SHA-256.

A key that was made with a key ends with it: it expires no later, and is revoked in the same transaction.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import or_, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from agent_server.caller import Caller, covers
from agent_server.db import OWN_DATA, PURGE, Database, Executor, now
from agent_server.errors import Conflict, InvalidInput, NotFound, Unauthorized, quote_value
from agent_server.identity.models import ApiKey

KEY, GUEST = "ask", "asg"
MOST_KEYS = 200
"""Of one owner, those that ended within the last `KEPT_DAYS` among them. The operator is not bound."""
KEPT_DAYS = 30
MAX_TOKEN = 8_192
"""Longest token, characters."""
NOT_OURS = "This is not one of our tokens; send `Authorization: Bearer <API key>`"
REVOKED = "This key has been revoked; get a new one"
EXPIRED = "This token has expired; get a new one"
UNKNOWN = "This token is not known here; check that it was copied whole"
# Locked: a maker that is being revoked is waited for, and one that makes a key is not revoked before that is stored.
_MAKER = text("""
    select revoked_at, expires_at from api_key where owner_id = :owner_id and id = :id for share""")
_MADE_WITH = text("""
    with recursive made as (
        select id from api_key where owner_id = :owner_id and maker_id = :id
        union
        select k.id from api_key k join made on k.owner_id = :owner_id and k.maker_id = made.id)
    update api_key k set revoked_at = now() from made
    where k.owner_id = :owner_id and k.id = made.id and k.revoked_at is null
    returning k.id""")
_SOMEBODY = text("select somebody_can_sign_in(:but)")
LOCAL_KEY = "local"
"""The name of the key that a development server makes for the local user."""
SCOPE = re.compile(r"\*|[a-z_]+:([a-z_]+|\*)")


@dataclass(frozen=True)
class IssuedKey:
    """A key just made. Its text is known this once."""

    row: ApiKey
    text: str


@dataclass(frozen=True)
class IssuedGuest:
    """A guest just made with the token that is shown once."""

    id: UUID
    token: str


def _new_secret() -> tuple[str, bytes]:
    # Neither salt nor a slow hash: nobody can guess 256 random bits, and each request has to check them.
    secret = secrets.token_urlsafe(32)
    return secret, hashlib.sha256(secret.encode()).digest()


def parse_token(token: str) -> tuple[str, UUID, bytes]:
    """The prefix and the id and the hash of the secret in a token. Raises Unauthorized."""
    prefix, _, rest = token.partition("_")
    id, _, secret = rest.partition(".")
    try:
        return prefix, UUID(hex=id), hashlib.sha256(secret.encode()).digest()
    except ValueError:
        raise Unauthorized(NOT_OURS) from None


def parse_guest(token: str) -> tuple[UUID, bytes]:
    """The id in a guest's token, and the hash of its secret. Raises Unauthorized for what is none."""
    prefix, id, digest = parse_token(token)
    if prefix != GUEST:
        raise Unauthorized(NOT_OURS)
    return id, digest


_GUEST = "select id, secret_sha, expires_at from guest where id = :id"
_FIND_GUEST, _LOCK_GUEST = text(_GUEST), text(f"{_GUEST} for update")


async def check_guest(session: Executor, id: UUID, digest: bytes, *, lock: bool = False) -> Any:
    """The `id` and `expires_at` of the guest whose token this is. Raises Unauthorized."""
    row = (await session.execute(_LOCK_GUEST if lock else _FIND_GUEST, {"id": id})).one_or_none()
    # Compared in constant time, which tells nothing of how many bytes were right. An id that is not there is
    # refused in the same words, so that nobody learns which ids exist.
    if row is None or not hmac.compare_digest(row.secret_sha, digest):
        raise Unauthorized(UNKNOWN)
    refuse_expired(row.expires_at)
    return row


def refuse_expired(expires_at: datetime | None) -> None:
    """Raises Unauthorized."""
    if expires_at is not None and expires_at <= now():
        raise Unauthorized(EXPIRED)


# Of several that are made at once, each must see those that the others have made.
_LOCK_KEYS = text("select pg_advisory_xact_lock(hashtextextended('keys of ' || :owner, 0))")
_FORGET_KEYS = text("""
    delete from api_key
    where owner_id = :owner_id and least(revoked_at, expires_at) < now() - :days * interval '1 day'""")
_COUNT_KEYS = text("select count(*) from api_key where owner_id = :owner_id")
# `key share`: an erasure locks these rows before all others, and waits; what only changes them does not.
_KEEP_KEY = text("""
    select 1 from api_key where owner_id = :owner_id and id = :key_id and revoked_at is null for key share""")
_KEEP_GUEST = text("select 1 from guest where id = :owner_id for key share")
_KEEP_ACCOUNT = text("select 1 from account where id = :owner_id and disabled_at is null for key share")


async def keep_credential(session: Executor, caller: Caller) -> None:
    """Keep the caller and its credential from being removed until the transaction ends.

    Whoever stores something new of a caller does this first: a request that was let in before its caller was erased
    would leave it behind. Raises Unauthorized where the caller is gone.
    """
    if caller.key_id is not None:
        statement = _KEEP_KEY
    elif caller.kind == "guest":
        statement = _KEEP_GUEST
    elif caller.by_roles:
        statement = _KEEP_ACCOUNT
    else:  # the operator's, who has no credential here
        return
    if (await session.execute(statement, {"owner_id": caller.id, "key_id": caller.key_id})).first() is None:
        raise Unauthorized(REVOKED if caller.key_id is not None else UNKNOWN)


async def issue_key(
    session: AsyncSession,
    owner: UUID,
    *,
    name: str,
    scopes: Sequence[str],
    expires_at: datetime | None = None,
    maker_id: UUID | None = None,
    by_roles: bool = False,
) -> IssuedKey:
    """A new key of `owner`'s, which ends with the key that it is made with.

    Raises InvalidInput for a scope that is not `resource:verb`, `resource:*` or `*`, and Unauthorized where the maker
    has ended.
    """
    for scope in scopes:
        # They open what callers handed in, also to themselves, and what anybody has deleted. Only the server's own
        # transactions may have them.
        ours = scope != "*" and any(covers([scope], own) for own in (OWN_DATA, PURGE))
        if ours or not SCOPE.fullmatch(scope):
            raise InvalidInput(f"Scope {quote_value(scope)}: write resource:verb as in tasks:read, resource:*, or *")
    if maker_id is not None:
        maker = (await session.execute(_MAKER, {"owner_id": owner, "id": maker_id})).one_or_none()
        if maker is None or maker.revoked_at is not None:
            raise Unauthorized(REVOKED)
        expires_at = min((at for at in (expires_at, maker.expires_at) if at is not None), default=None)
    secret, digest = _new_secret()
    row = ApiKey(
        owner_id=owner,
        name=name,
        secret_sha=digest,
        scopes=sorted(set(scopes)),
        expires_at=expires_at,
        maker_id=maker_id,
        by_roles=by_roles,
    )
    session.add(row)
    await session.flush()
    return IssuedKey(row, f"{KEY}_{row.id.hex}.{secret}")


async def make_room(session: AsyncSession, owner: UUID) -> None:
    """Remove an owner's keys that ended over `KEPT_DAYS` ago. Raises Conflict where there are `MOST_KEYS` still."""
    await session.execute(_LOCK_KEYS, {"owner": str(owner)})
    await session.execute(_FORGET_KEYS, {"owner_id": owner, "days": KEPT_DAYS})
    if (await session.execute(_COUNT_KEYS, {"owner_id": owner})).scalar_one() >= MOST_KEYS:
        raise Conflict(
            f"You have {MOST_KEYS} keys, the most there may be; one that has ended counts for {KEPT_DAYS} days more"
        )


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


async def scopes_of_keys(session: AsyncSession, owner: UUID) -> frozenset[str]:
    """What an owner's keys that work may, whatever its roles are."""
    statement = select(ApiKey.scopes).where(
        col(ApiKey.owner_id) == owner,
        col(ApiKey.revoked_at).is_(None),
        or_(col(ApiKey.expires_at).is_(None), col(ApiKey.expires_at) > now()),
        # The others hold no more than the roles do.
        col(ApiKey.by_roles).is_(False),
    )
    return frozenset().union(*(await session.execute(statement)).scalars())


async def revoke_key(session: AsyncSession, id: UUID, owner: UUID | None = None) -> ApiKey:
    """End a key, of one owner if named, and all that were made with it. Raises NotFound."""
    # `key_share`: requests that are under way with the key (`keep_credential`) do not hold its end up.
    statement = select(ApiKey).where(col(ApiKey.id) == id).with_for_update(key_share=True)
    if owner is not None:
        statement = statement.where(col(ApiKey.owner_id) == owner)
    row = (await session.execute(statement)).scalar_one_or_none()
    if row is None:
        raise NotFound(f"There is no key {id}; `agent-server key list` shows which there are")
    # Revoked a second time, it keeps the time of the first.
    row.revoked_at = row.revoked_at or now()
    await session.flush()
    # Again until there is none: a key that was being made meanwhile is there once its maker's row could be locked.
    while (await session.execute(_MADE_WITH, {"owner_id": row.owner_id, "id": id})).all():
        pass
    return row


_ADD_GUEST = text("""
    insert into guest (id, secret_sha, expires_at, created_at, updated_at)
    values (:id, :secret_sha, :expires_at, now(), now())""")


async def issue_guest(session: Executor, id: UUID, hours: int) -> IssuedGuest:
    """A new guest with this id, whose token works for `hours`."""
    secret, digest = _new_secret()
    expires_at = now() + timedelta(hours=hours)
    await session.execute(_ADD_GUEST, {"id": id, "secret_sha": digest, "expires_at": expires_at})
    return IssuedGuest(id, f"{GUEST}_{id.hex}.{secret}")
