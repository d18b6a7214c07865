"""The keys that tokens of outside issuers are verified with.

The keys of a `jwks_url` are fetched when they are first needed, and kept:

    older than 10 minutes   still used, and fetched anew beside that; where this fails they go on for a day at most
    unknown key id          fetched anew by one request for all that wait, then looked for again, so that a rotation
                            refuses nobody. An id that is not there even then is not asked for again for 60 s, nor is
                            any other unknown one for 10 s: invented ids cannot make us hammer the issuer
    none to be had          Unavailable; asked for again after 2 s
"""

import asyncio
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import httpx
import jwt
import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import AllowedPublicKeys
from pydantic_core import from_json

from agent_server.errors import Unavailable
from agent_server.settings import Issuer

FETCH_SECONDS = 5.0
MAX_KEY_SET = 262_144
"""Largest answer of a `jwks_url`, bytes."""
MAX_REDIRECTS = 3
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

_LIBRARY = frozenset(jwt.algorithms.get_default_algorithms())
_ED25519, _ED448 = frozenset({"EdDSA", "Ed25519"}), frozenset({"EdDSA", "Ed448"})
"""The first name is the older one, for either curve (RFC 8037); the other one is its own (RFC 9864)."""
_FITTING: Mapping[tuple[str, str], frozenset[str]] = {
    ("RSA", ""): frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
    ("EC", "P-256"): frozenset({"ES256"}),
    ("EC", "P-384"): frozenset({"ES384"}),
    ("EC", "P-521"): frozenset({"ES512"}),
    ("OKP", "Ed25519"): _ED25519,
    ("OKP", "Ed448"): _ED448,
}
"""What a key may verify, by its `kty` and `crv`."""


class Keys(Protocol):
    """What the tokens of one issuer are verified with."""

    async def find(self, kid: str | None, algorithm: str, *, unlike: Key | None = None) -> Key | None:
        """The only key there is for a token with this header. It is none that is `unlike`. Raises Unavailable."""

    async def close(self) -> None: ...


def create_keys(issuer: Issuer, clock: Clock, fetch_seconds: float) -> Keys:
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
        # not followed by the client: see `_download`
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
            raise Unavailable("The keys of this token's issuer cannot be fetched; try again in a moment")
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
        url = httpx.URL(self._url)
        for _ in range(MAX_REDIRECTS + 1):
            async with self._client.stream("GET", url) as response:
                if response.next_request is None:
                    return await _read_body(response)
                target = response.next_request.url
            # keys come from the origin that the operator wrote down, and from no other
            if (target.scheme, target.host, target.port) != (url.scheme, url.host, url.port):
                raise ValueError("a redirect to another origin; write the address that it leads to")
            url = target
        raise ValueError(f"over {MAX_REDIRECTS} redirects")


async def _read_body(response: httpx.Response) -> bytes:
    if response.status_code != 200:
        raise ValueError(f"status {response.status_code}")
    body = bytearray()
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
    # A key of one of these may say either name, whichever the tokens have.
    if jwk.get("alg") is not None and not (kind == "OKP" and jwk["alg"] in algorithms):
        algorithms &= {str(jwk["alg"])}
    if not algorithms or jwk.get("use") not in (None, "sig") or "d" in jwk:
        return None
    try:
        # PyJWK wants an algorithm to load any key; which ones the key may verify is decided by `algorithms`
        public = jwt.PyJWK(jwk, min(algorithms & _LIBRARY)).key
    except (jwt.PyJWTError, UnsupportedAlgorithm):
        return None
    if isinstance(public, RSAPublicKey) and public.key_size < MIN_RSA_BITS:
        return None
    return _PublishedKey(public, algorithms)
