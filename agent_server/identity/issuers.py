"""Tokens of outside issuers.

They are JWTs of Better Auth or any OpenID or OAuth server, each verified with its issuer's keys only.

What a token says of itself is used for two look-ups before it is verified, and for nothing else: `iss` picks one of
the configured issuers, compared to the letter, and `kid` picks one of that issuer's keys. `alg` must be one that is
allowed for the issuer and that fits the type of the key. The rest of the header (`jku`, `x5u`, `jwk`) is not looked at;
`crit` is refused. No message repeats what is in a token.

The keys of a `jwks_url` are fetched when they are first needed, and kept:

    older than 10 minutes   still used, and fetched anew beside that; where this fails they go on for a day at most
    unknown key id          fetched anew by one request for all that wait, then looked for again, so that a rotation
                            refuses nobody. An id that is not there even then is not asked for again for 60 s, nor is
                            any other unknown one for 10 s: invented ids cannot make us hammer the issuer
    none to be had          Unavailable; asked for again after 2 s
"""

import asyncio
import math
import re
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import httpx
import jwt
import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import AllowedPublicKeys
from pydantic_core import from_json

from agent_server.errors import Unauthorized, Unavailable
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

FETCH_SECONDS = 5.0
MAX_KEY_SET = 262_144
"""Largest answer of a `jwks_url`, bytes."""
# RFC 7518, section 3.3.
MIN_RSA_BITS = 2_048
FRESH_SECONDS = 600.0
KEPT_SECONDS = 86_400.0
RETRY_SECONDS = 2.0
SAME_ID_SECONDS = 60.0
ANY_ID_SECONDS = 10.0

Clock = Callable[[], float]
Key = AllowedPublicKeys | bytes

log = structlog.get_logger()

# stricter than the library, which lets a signature end in `=`: one token has one spelling
_COMPACT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)

# JSON can spell these, and Postgres does not take NUL or half a character, nor a log line the others
_UNUSABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

_FITTING: Mapping[tuple[str, str], frozenset[str]] = {
    ("RSA", ""): frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
    ("EC", "P-256"): frozenset({"ES256"}),
    ("EC", "P-384"): frozenset({"ES384"}),
    ("EC", "P-521"): frozenset({"ES512"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA"}),
    ("OKP", "Ed448"): frozenset({"EdDSA"}),
}
"""What a key may verify, by its `kty` and `crv`."""

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
        self._keys = {issuer.issuer: _create_keys(issuer, clock, fetch_seconds) for issuer in issuers}

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
        if algorithm not in issuer.algorithms or "crit" in header:
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
        raise Unauthorized(f"This token's {name} is no time: a number, in seconds since 1970")


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value and not _UNUSABLE.search(value) else None


def _entries(name: str, value: object, separator: str) -> frozenset[str]:
    entries = value.split(separator) if isinstance(value, str) else [] if value is None else value
    if not isinstance(entries, list) or not all(isinstance(e, str) and not _UNUSABLE.search(e) for e in entries):
        raise Unauthorized(f"This token's {name} is neither text nor a list of texts")
    return frozenset(entry.strip() for entry in entries) - {""}


class _Keys(Protocol):
    """What the tokens of one issuer are verified with."""

    async def find(self, kid: str | None, algorithm: str, *, unlike: Key | None = None) -> Key | None:
        """The only key there is for a token with this header. It is none that is `unlike`. Raises Unavailable."""

    async def close(self) -> None: ...


def _create_keys(issuer: Issuer, clock: Clock, fetch_seconds: float) -> _Keys:
    if issuer.jwks_url is not None:
        return _PublishedKeys(issuer.jwks_url, clock, fetch_seconds)
    assert issuer.secret is not None, "an Issuer has one of the two"
    return _SharedSecret(issuer.secret.get_secret_value().encode())


class _SharedSecret:
    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    async def find(self, kid: str | None, algorithm: str, *, unlike: Key | None = None) -> Key | None:
        return self._secret if unlike is None else None

    async def close(self) -> None:
        """There is nothing to let go of."""


@dataclass(frozen=True)
class _PublishedKey:
    public: AllowedPublicKeys
    algorithms: frozenset[str]


@dataclass(frozen=True)
class _KeySet:
    """What a `jwks_url` answered. The keys are by their ids, and by None those without."""

    asked_at: float
    keys: Mapping[str | None, Sequence[_PublishedKey]]

    def fitting(self, kid: str | None, algorithm: str) -> AllowedPublicKeys | None:
        """The key of that id if exactly one fits. Without an id any key may."""
        named = self.keys.get(kid, ()) if kid is not None else [key for keys in self.keys.values() for key in keys]
        fitting = [key.public for key in named if algorithm in key.algorithms]
        return fitting[0] if len(fitting) == 1 else None


class _PublishedKeys:
    """The keys at a `jwks_url` as of the last time that they could be had."""

    def __init__(self, url: str, clock: Clock, fetch_seconds: float) -> None:
        self._url = url
        self._clock = clock
        self._fetch_seconds = fetch_seconds
        # uncompressed: what is small on the wire cannot be large in memory
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        # no redirects: keys come from the address that the operator wrote down, and from no other
        self._client = httpx.AsyncClient(headers=headers, timeout=fetch_seconds, follow_redirects=False)
        self._set: _KeySet | None = None
        self._request: asyncio.Task[None] | None = None
        self._failed_at = -math.inf
        self._missed_at = -math.inf
        self._missed: dict[str | None, float] = {}

    async def find(self, kid: str | None, algorithm: str, *, unlike: Key | None = None) -> Key | None:
        while True:
            keys = await self._current(kid)
            found = keys.fitting(kid, algorithm)
            known = kid in keys.keys if kid is not None else found not in (None, unlike)
            # again after a request that was under way: it may have been answered before the key was published
            if known or not (self._request or self._may_ask(kid)):
                return None if found == unlike else found
            await asyncio.shield(self._ask(kid))

    async def close(self) -> None:
        if self._request is not None:
            self._request.cancel()
            with suppress(asyncio.CancelledError):
                await self._request
        await self._client.aclose()

    async def _current(self, kid: str | None) -> _KeySet:
        """The keys at hand or else as they are published. Raises Unavailable."""
        now = self._clock()
        if self._set is not None and now - self._set.asked_at >= KEPT_SECONDS:
            self._set = None
        may_ask = now - self._failed_at >= RETRY_SECONDS
        if self._set is None and may_ask:
            # a token without a key id misses none: which key it wants shows only when it is tried
            await asyncio.shield(self._ask() if kid is None else self._ask(kid))
        elif self._set is not None and now - self._set.asked_at >= FRESH_SECONDS and may_ask:
            self._ask()
        if self._set is None:
            raise Unavailable("The keys of this token's issuer cannot be had at the moment; try again")
        return self._set

    def _may_ask(self, kid: str | None) -> bool:
        now = self._clock()
        self._missed = {id: at for id, at in self._missed.items() if now - at < SAME_ID_SECONDS}
        return kid not in self._missed and now - self._missed_at >= ANY_ID_SECONDS

    def _ask(self, *sought: str | None) -> asyncio.Task[None]:
        """The request that is under way or else a new one. `sought` is the key id that it is made for, if it is."""
        if self._request is None:
            # a task of its own: whoever began to wait for it may be gone before it ends
            self._request = asyncio.create_task(self._fetch(sought))
        return self._request

    async def _fetch(self, sought: Collection[str | None]) -> None:
        asked_at = self._clock()
        try:
            # httpx limits each read only: an answer that comes byte by byte would never end
            async with asyncio.timeout(self._fetch_seconds):
                keys = _read_keys(await self._download())
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            self._failed_at = self._clock()
            self._missed_at = asked_at if sought else self._missed_at
            log.warning("issuer.keys_unavailable", url=self._url, reason=repr(error))
        else:
            self._set = _KeySet(asked_at, keys)
            # a key id that was found was not invented, and does not count
            for kid in sought:
                if kid is None or kid not in keys:
                    self._missed[kid] = self._missed_at = asked_at
        finally:
            self._request = None

    async def _download(self) -> bytes:
        body = bytearray()
        async with self._client.stream("GET", self._url) as response:
            if response.status_code != 200:
                raise ValueError(f"status {response.status_code}")
            # raw, so that an answer that is compressed all the same is not unpacked
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > MAX_KEY_SET:
                    raise ValueError(f"over {MAX_KEY_SET} bytes")
        return bytes(body)


def _read_keys(body: bytes) -> Mapping[str | None, Sequence[_PublishedKey]]:
    """Raises ValueError for what is no key set."""
    # `json.loads` raises RecursionError on deep nesting, which no caller expects; this one raises ValueError
    document = from_json(body)
    if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
        raise ValueError("not a JSON Web Key Set")
    found: defaultdict[str | None, list[_PublishedKey]] = defaultdict(list)
    for jwk in document["keys"]:
        key = _read_key(jwk) if isinstance(jwk, dict) else None
        kid = jwk.get("kid") if key else None
        if key is not None and isinstance(kid, str | None):
            found[kid].append(key)
    return dict(found)


def _read_key(jwk: dict[str, Any]) -> _PublishedKey | None:
    """The key, or None for one of no use here.

    Such a one is for encryption, unknown, weak, or private, which everybody can sign with now.
    """
    kind = str(jwk.get("kty"))
    algorithms = _FITTING.get((kind, "" if kind == "RSA" else str(jwk.get("crv"))), frozenset())
    if jwk.get("alg") is not None:
        algorithms &= {str(jwk["alg"])}
    if not algorithms or jwk.get("use") not in (None, "sig") or "d" in jwk:
        return None
    try:
        # PyJWK wants an algorithm to load any key; which ones the key may verify is decided by `algorithms`
        public = jwt.PyJWK(jwk, min(algorithms)).key
    except (jwt.PyJWTError, UnsupportedAlgorithm):
        return None
    if isinstance(public, RSAPublicKey) and public.key_size < MIN_RSA_BITS:
        return None
    return _PublishedKey(public, algorithms)
