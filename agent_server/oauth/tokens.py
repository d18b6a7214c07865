"""The texts that stand for a request, a code, an access and a refresh token. None of them is stored.

    request         JWT (`typ` oauth-request+jwt): what a client asked for, while its user reads it. 10 minutes
    code            asc_<owner>.<grant>.<secret>: 256 random bits, stored as SHA-256, exchanged once within a minute
    access token    JWT (RFC 9068: `typ` at+jwt), HS256; for one resource (`aud`), of one grant (`sid`), which is looked at
                    with each request
    refresh token   aso_<owner>.<grant>.<number>.<mac>: the number of the latest works. An earlier one is one that was used

All are made with keys that are derived from the one secret of the database, a key for each.
"""

import hashlib
import hmac
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from agent_server.db import now
from agent_server.errors import Unauthorized
from agent_server.late import Late

if TYPE_CHECKING:
    import jwt
else:
    jwt = Late("jwt")

CODE, REFRESH = "asc", "aso"
CODE_SECONDS = 60
REQUEST_MINUTES = 10
_ACCESS_TYPE, _REQUEST_TYPE, _ALGORITHM = "at+jwt", "oauth-request+jwt", "HS256"
_NEEDED = ["iss", "aud", "sub", "sid", "client_id", "scope", "iat", "exp"]


@dataclass(frozen=True, kw_only=True)
class Granted:
    """What an access token says."""

    owner_id: UUID
    grant_id: UUID
    client_id: str
    scopes: frozenset[str]
    expires_at: datetime


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a client asks a user for. `host` is where the answer goes, for people."""

    client_id: str
    client_name: str
    redirect_uri: str
    redirect_named: bool
    resource: str
    scopes: tuple[str, ...]
    challenge: str
    state: str | None


def derive(secret: bytes, purpose: str) -> bytes:
    """The key for one purpose, so that what is made with it passes for nothing else."""
    return hmac.digest(secret, f"oauth {purpose}".encode(), "sha256")


def client_secret(secret: bytes, client_id: str) -> str:
    """The secret of a registered client that wants one."""
    return hmac.new(derive(secret, "client"), client_id.encode(), hashlib.sha256).hexdigest()


def issue_access(secret: bytes, issuer: str, granted: Granted, resource: str) -> str:
    claims = {
        "iss": issuer,
        "aud": resource,
        "sub": str(granted.owner_id),
        "sid": str(granted.grant_id),
        "client_id": granted.client_id,
        "scope": " ".join(sorted(granted.scopes)),
        "iat": now(),
        "exp": granted.expires_at,
        "jti": secrets.token_hex(8),
    }
    return jwt.encode(claims, derive(secret, "access"), algorithm=_ALGORITHM, headers={"typ": _ACCESS_TYPE})


def read_access(secret: bytes, issuer: str, token: str, audience: Collection[str] | None) -> Granted:
    """What a token says that we signed, for one of these resources; None is for any. Raises Unauthorized."""
    try:
        options: Any = {"require": _NEEDED, "verify_iat": False, "verify_aud": audience is not None}
        found = jwt.decode_complete(
            token,
            derive(secret, "access"),
            algorithms=[_ALGORITHM],
            audience=None if audience is None else list(audience),
            issuer=issuer,
            options=options,
        )
        # RFC 9068: a JWT that is signed for another purpose must not pass as an access token.
        if found["header"].get("typ") != _ACCESS_TYPE:
            raise jwt.InvalidTokenError
        claims = found["payload"]
        return Granted(
            owner_id=UUID(str(claims["sub"])),
            grant_id=UUID(str(claims["sid"])),
            client_id=str(claims["client_id"]),
            scopes=frozenset(str(claims["scope"]).split()),
            expires_at=datetime.fromtimestamp(claims["exp"], UTC),
        )
    except jwt.ExpiredSignatureError:
        raise Unauthorized("This token has expired; get a new one") from None
    except jwt.InvalidAudienceError:
        raise Unauthorized("This token is for another resource; get one for this address") from None
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise Unauthorized("This is not a token that we have given; sign in again") from None


def issue_request(secret: bytes, asked: Request) -> str:
    claims = {**vars(asked), "exp": now() + timedelta(minutes=REQUEST_MINUTES)}
    return jwt.encode(claims, derive(secret, "request"), algorithm=_ALGORITHM, headers={"typ": _REQUEST_TYPE})


def read_request(secret: bytes, token: str) -> Request | None:
    """What a client asked for. None where that is too long ago, or not what we signed."""
    try:
        claims: Mapping[str, Any] = jwt.decode(
            token, derive(secret, "request"), algorithms=[_ALGORITHM], options={"require": ["exp"]}
        )
    except (jwt.PyJWTError, ValueError, RecursionError):
        return None
    return Request(**{**{name: claims[name] for name in Request.__annotations__}, "scopes": tuple(claims["scopes"])})


def issue_code(owner_id: UUID, grant_id: UUID) -> tuple[str, bytes]:
    """A code and what is stored of it."""
    secret = secrets.token_urlsafe(32)
    return f"{CODE}_{owner_id.hex}.{grant_id.hex}.{secret}", _sha(secret)


def read_code(code: str) -> tuple[UUID, UUID, bytes] | None:
    """The owner and the grant that a code says it is of, and what would be stored of it."""
    prefix, parts = _split(code)
    if prefix != CODE or len(parts) != 3:
        return None
    ids = _ids(parts)
    return None if ids is None else (*ids, _sha(parts[2]))


def issue_refresh(secret: bytes, owner_id: UUID, grant_id: UUID, number: int) -> str:
    return f"{REFRESH}_{owner_id.hex}.{grant_id.hex}.{number}.{_mac(secret, owner_id, grant_id, number)}"


def read_refresh(secret: bytes, token: str) -> tuple[UUID, UUID, int] | None:
    """The owner, the grant and the number of a refresh token. None for what we have not given."""
    prefix, parts = _split(token)
    if prefix != REFRESH or len(parts) != 4 or not parts[2].isascii() or not parts[2].isdecimal() or len(parts[2]) > 9:
        return None
    ids, number = _ids(parts), int(parts[2])
    if ids is None or not hmac.compare_digest(_mac(secret, *ids, number).encode(), parts[3].encode("utf-8", "replace")):
        return None
    return (*ids, number)


def sign_form(secret: bytes, browser: str, request: str) -> str:
    """What a form must bring that was given to this browser for this request."""
    return hmac.new(
        derive(secret, "form"), f"{browser} {request}".encode("utf-8", "replace"), hashlib.sha256
    ).hexdigest()


def _mac(secret: bytes, owner_id: UUID, grant_id: UUID, number: int) -> str:
    said = f"{owner_id.hex} {grant_id.hex} {number}".encode()
    return hmac.new(derive(secret, "refresh"), said, hashlib.sha256).hexdigest()


def _sha(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "replace")).digest()


def _split(token: str) -> tuple[str, list[str]]:
    prefix, _, rest = token.partition("_")
    return prefix, rest.split(".")


def _ids(parts: list[str]) -> tuple[UUID, UUID] | None:
    try:
        return UUID(hex=parts[0]), UUID(hex=parts[1])
    except ValueError:
        return None
