"""Tokens of outside issuers.

They are JWTs of Better Auth or any OpenID or OAuth server, each verified with its issuer's keys only.

What a token says of itself is used for two look-ups before it is verified, and for nothing else: `iss` picks one of
the configured issuers, compared to the letter, and `kid` picks one of that issuer's keys. `alg` must be one that is
allowed for the issuer and that fits the type of the key. The rest of the header (`jku`, `x5u`, `jwk`) is not looked at;
`crit` is refused. No message repeats what is in a token.
"""

import re
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import jwt
from jwt.algorithms import OKPAlgorithm

from agent_server.errors import Unauthorized
from agent_server.identity.issuer_keys import FETCH_SECONDS, Clock, Key, create_keys
from agent_server.settings import Issuer

MAX_TOKEN = 8_192
"""Longest token, characters: as much as servers and proxies let a header hold."""
LEEWAY = 30
"""Seconds by which the issuer's clock may differ from ours: far more than NTP leaves between two machines, and no more
than a token may well live on after it expired."""
MAX_SUBJECT = 255
"""Longest `sub`, characters (OpenID Connect Core 1.0, section 2)."""
LAST_SECOND = 253_402_300_799
"""The end of the year 9999, after which there is no datetime."""

# stricter than the library, which lets a signature end in `=`: one token has one spelling
_COMPACT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)

# JSON can spell these, and Postgres does not take NUL or half a character, nor a log line the others
_UNUSABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

_NEWER_NAMES = ("Ed25519", "Ed448")
"""What RFC 9864 calls `EdDSA` with a key of one curve or the other."""
for _name in _NEWER_NAMES:
    # It raises ValueError in a version of the library that has them.
    with suppress(ValueError):
        jwt.register_algorithm(_name, OKPAlgorithm())

_REFUSALS: Sequence[tuple[type[jwt.PyJWTError], str]] = (
    (jwt.ExpiredSignatureError, "This token has expired; get a new one"),
    (jwt.ImmatureSignatureError, "This token is not valid yet; compare its issuer's clock with this server's"),
    (jwt.InvalidAudienceError, "This token is meant for another audience; ask its issuer for one for this server"),
    (jwt.MissingRequiredClaimError, "This token lacks a claim; it needs exp, iss, aud and sub"),
    (jwt.InvalidSignatureError, "This token is not signed with a key of its issuer"),
)


@dataclass(frozen=True, kw_only=True)
class OutsideToken:
    """What a verified token says."""

    issuer: str
    subject: str
    email: str | None
    """None also where the token says that the address is not verified."""
    name: str | None
    scopes: frozenset[str] | None
    """None where the token has no such claim, which is not the same as none."""
    roles: frozenset[str]
    expires_at: datetime


class Issuers:
    """The outside issuers whose tokens are taken."""

    def __init__(
        self, issuers: Sequence[Issuer], *, clock: Clock = time.monotonic, fetch_seconds: float = FETCH_SECONDS
    ) -> None:
        self._issuers = {issuer.issuer: issuer for issuer in issuers}
        self._keys = {issuer.issuer: create_keys(issuer, clock, fetch_seconds) for issuer in issuers}

    async def verify(self, token: str, *, audience: Collection[str] = ()) -> OutsideToken:
        """What `token` says once it is verified. `audience` is accepted beside the issuer's own.

        Raises Unauthorized, and Unavailable when the issuer's keys are not known and cannot be had.
        """
        if len(token) > MAX_TOKEN or not _COMPACT.fullmatch(token):
            raise Unauthorized(f"This is no JWT: three parts in base64url, at most {MAX_TOKEN} characters together")
        try:
            unverified = jwt.decode_complete(token, options={"verify_signature": False})
            issuer = self._find_issuer(unverified["payload"])
            claims = await self._verify_claims(token, issuer, unverified["header"], [*issuer.audience, *audience])
        except jwt.PyJWTError as error:
            raise Unauthorized(_refusal(error)) from None
        return _read_claims(issuer, claims)

    async def close(self) -> None:
        """Let go of the connections to the issuers."""
        for keys in self._keys.values():
            await keys.close()

    def _find_issuer(self, claims: Mapping[str, Any]) -> Issuer:
        named = claims.get("iss")
        issuer = self._issuers.get(named) if isinstance(named, str) else None
        if issuer is None:
            raise Unauthorized("This token's issuer is not known here; AGENT_SERVER_ISSUERS lists those that are")
        return issuer

    async def _verify_claims(
        self, token: str, issuer: Issuer, header: Mapping[str, Any], audience: Sequence[str]
    ) -> Mapping[str, Any]:
        algorithm, kid = header.get("alg"), header.get("kid")
        # a token that chose its algorithm could choose `none`, or HMAC with a public key as the secret; `crit` lists
        # what a reader must understand (RFC 7515), and we understand none of it
        named = "EdDSA" if algorithm in _NEWER_NAMES else algorithm
        if not isinstance(algorithm, str) or "crit" in header or not {algorithm, named} & {*issuer.algorithms}:
            raise Unauthorized("This token is signed in a way that is not taken from its issuer here")
        keys = self._keys[issuer.issuer]
        key = await keys.find(kid, algorithm)
        while key is not None:
            try:
                return _decode(token, key, algorithm, issuer.issuer, audience)
            except jwt.InvalidSignatureError:
                # a key without an id cannot be told from the one that took its place, but by trying
                key = await keys.find(kid, algorithm, unlike=key) if kid is None else None
        raise jwt.InvalidSignatureError


def _decode(token: str, key: Key, algorithm: str, issuer: str, audience: Sequence[str]) -> Mapping[str, Any]:
    return jwt.decode(
        token,
        key,
        algorithms=[algorithm],
        audience=audience,
        issuer=issuer,
        leeway=LEEWAY,
        options={"require": ["exp", "iss", "aud", "sub"]},
    )


def _refusal(error: jwt.PyJWTError) -> str:
    # the library's own messages may repeat what is in the token
    return next((text for kind, text in _REFUSALS if isinstance(error, kind)), "This token is not well formed")


def _read_claims(issuer: Issuer, claims: Mapping[str, Any]) -> OutsideToken:
    for name in ("exp", "nbf", "iat"):
        _check_time(name, claims.get(name, 0))
    subject = _text(claims["sub"])
    if subject is None or len(subject) > MAX_SUBJECT:
        raise Unauthorized(
            f"This token's sub is not usable: 1 to {MAX_SUBJECT} characters, none of them a control character"
        )
    scopes, roles = issuer.scopes_claim, issuer.roles_claim
    # Better Auth spells it as its database does
    doubted = any(claims.get(name, True) not in (True, "true") for name in ("email_verified", "emailVerified"))
    return OutsideToken(
        issuer=issuer.issuer,
        subject=subject,
        email=None if doubted else _text(claims.get("email")),
        name=_text(claims.get("name")),
        scopes=_entries(scopes, claims[scopes], " ") if scopes in claims else None,
        roles=_entries(roles, claims.get(roles), ","),
        expires_at=datetime.fromtimestamp(claims["exp"], UTC),
    )


def _check_time(name: str, value: object) -> None:
    # the library takes "1", True and what no calendar has
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LAST_SECOND:
        raise Unauthorized(f"This token's {name} is no time; it must be a number of seconds since 1970")


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value and not _UNUSABLE.search(value) else None


def _entries(name: str, value: object, separator: str) -> frozenset[str]:
    entries = value.split(separator) if isinstance(value, str) else [] if value is None else value
    if not isinstance(entries, list) or not all(isinstance(e, str) and not _UNUSABLE.search(e) for e in entries):
        raise Unauthorized(f"This token's {name} is neither text nor a list of texts")
    return frozenset(entry.strip() for entry in entries) - {""}
