"""Tokens of outside issuers: what their issuer signed for us is taken, and nothing else, whatever it looks like."""

import asyncio
import base64
import functools
import gzip
import hashlib
import hmac
import json
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from agent_server.errors import InvalidInput, Unauthorized, Unavailable
from agent_server.identity.issuer_keys import (
    ANY_ID_SECONDS,
    FRESH_SECONDS,
    KEPT_SECONDS,
    MAX_KEY_SET,
    MAX_REDIRECTS,
    RETRY_SECONDS,
    SAME_ID_SECONDS,
)
from agent_server.identity.issuers import LEEWAY, MAX_TOKEN, Issuers, OutsideToken
from agent_server.settings import Issuer, load_settings

ISSUER = "https://auth.example"
AUDIENCE = "https://agents.example"
SUBJECT = "canary-of-a-subject"
SECRET = "not-a-real-secret-" + "0123456789abcdef" * 4  # pragma: allowlist secret
CURVES: Mapping[str, ec.EllipticCurve] = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
PUBLISHED = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
DROP = object()
"""In place of a claim's value: leave the claim out."""


@functools.cache
def private_key(algorithm: str, which: str = "k1") -> Any:
    """A key that signs by `algorithm`; another one for each `which`."""
    if algorithm.startswith("ES"):
        return ec.generate_private_key(CURVES[algorithm])
    if algorithm == "EdDSA":
        return ed448.Ed448PrivateKey.generate() if which == "448" else ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65537, 2048)


@functools.cache
def weak_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 1024)


def jwk(key: Any, **members: Any) -> dict[str, Any]:
    """The public half of a key as issuers publish it; a member given as None is left out."""
    kind = "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256" if hasattr(key, "curve") else "EdDSA"
    public = jwt.get_algorithm_by_name(kind).to_jwk(key.public_key(), as_dict=True)
    full = {**public, "kid": "k1", "use": "sig", **members}
    return {name: value for name, value in full.items() if value is not None}


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(header: Any, payload: Any, sign: Callable[[bytes], bytes]) -> str:
    """Any header and payload (as JSON, or the very bytes) with a true signature over them."""
    parts = [b64(part if isinstance(part, bytes) else json.dumps(part).encode()) for part in (header, payload)]
    return ".".join([*parts, b64(sign(".".join(parts).encode()))])


def by(algorithm: str, key: Any) -> Callable[[bytes], bytes]:
    return lambda message: jwt.get_algorithm_by_name(algorithm).sign(message, key)


def claims(**changed: Any) -> dict[str, Any]:
    now = int(time.time())
    whole = {"iss": ISSUER, "aud": AUDIENCE, "sub": SUBJECT, "iat": now, "exp": now + 600, **changed}
    return {name: value for name, value in whole.items() if value is not DROP}


def token(
    payload: Any = None,
    *,
    algorithm: str = "RS256",
    key: Any = None,
    kid: Any = "k1",
    header: Any = None,
    **changed: Any,
) -> str:
    """A good token, unless something about it is `changed`."""
    head = {"alg": algorithm, "typ": "JWT", "kid": kid, **(header or {})}
    whole = {name: value for name, value in head.items() if value is not DROP}
    key = key if key is not None else private_key(algorithm)
    return signed(whole, claims(**changed) if payload is None else payload, by(algorithm, key))


@dataclass
class Clock:
    now: float = 1_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class KeyServer:
    """An issuer's `jwks_url` over real HTTP."""

    keys: list[dict[str, Any]] = field(default_factory=lambda: [jwk(private_key("RS256"))])
    status: str = "200 OK"
    headers: str = ""
    body: bytes | None = None
    """What it answers in place of its keys."""
    moved_from: str | None = None
    """A path from which it leads to its keys."""
    dripping: bool = False
    """It sends something now and then, and never ends."""
    requests: int = 0
    url: str = ""
    came: asyncio.Event = field(default_factory=asyncio.Event)
    answering: asyncio.Event = field(default_factory=asyncio.Event)
    """While this is not set, a request is held with the answer of the moment at which it came."""

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            asked = await reader.readuntil(b"\r\n\r\n")
            moved = self.moved_from is not None and asked.startswith(f"GET {self.moved_from} ".encode())
            body = self.body if self.body is not None else json.dumps({"keys": self.keys}).encode()
            status, headers = ("301 Moved", "Location: /jwks\r\n") if moved else (self.status, self.headers)
            head = f"HTTP/1.1 {status}\r\n{headers}Connection: close\r\n"
            self.requests += 1
            self.came.set()
            await self.answering.wait()
            if self.dripping:
                writer.write(f"{head}\r\n".encode())
                while True:
                    writer.write(b" ")
                    await writer.drain()
                    await asyncio.sleep(0.01)
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort() if self.dripping else writer.close()


@asynccontextmanager
async def key_server() -> AsyncIterator[KeyServer]:
    server = KeyServer()
    server.answering.set()
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(server.connected(reader, writer)))

    listening = await asyncio.start_server(connected, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/jwks"
    try:
        yield server
    finally:
        listening.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def server() -> AsyncIterator[KeyServer]:
    async with key_server() as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    return Clock()


def issuer(**given: Any) -> Issuer:
    return Issuer(**{"issuer": ISSUER, "audience": AUDIENCE, **given})


@pytest.fixture
async def issuers(server: KeyServer, clock: Clock) -> AsyncIterator[Issuers]:
    """One issuer, with the keys of `server`."""
    issuers = Issuers([issuer(jwks_url=server.url, algorithms=PUBLISHED)], clock=clock)
    yield issuers
    await issuers.close()


async def refusal(issuers: Issuers, token: str, **more: Any) -> str:
    """Why `token` is refused, in words that repeat nothing of it."""
    with pytest.raises(Unauthorized) as refused:
        await issuers.verify(token, **more)
    assert refused.value.__cause__ is None
    message = refused.value.message
    assert SUBJECT not in message
    assert not [part for part in token.split(".") if len(part) > 8 and part in message]
    return message


# --- What is refused before any key is looked at


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", "", "none ", None, DROP, 0, False, [], ["none"]])
@pytest.mark.parametrize("signature", ["", b64(b"\0"), "good"])
async def test_a_token_that_is_not_signed_is_refused(issuers: Issuers, algorithm: Any, signature: str) -> None:
    header, payload, good = token(header={"alg": algorithm}).split(".")
    await refusal(issuers, f"{header}.{payload}.{good if signature == 'good' else signature}")


def public_forms() -> list[bytes]:
    public = private_key("RS256").public_key()
    pem, der = PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1
    forms = [
        public.public_bytes(encoding, format) for encoding in (Encoding.PEM, Encoding.DER) for format in (pem, der)
    ]
    return [*forms, forms[0].strip(), json.dumps(jwk(private_key("RS256"))).encode()]


@pytest.mark.parametrize("form", range(6))
@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
async def test_a_public_key_is_no_shared_secret(issuers: Issuers, algorithm: str, form: int) -> None:
    await issuers.verify(token())
    secret, digest = public_forms()[form], getattr(hashlib, f"sha{algorithm[2:]}")
    for kid in ("k1", DROP):
        head = {"alg": algorithm, **({} if kid is DROP else {"kid": kid})}
        await refusal(issuers, signed(head, claims(), lambda message: hmac.new(secret, message, digest).digest()))


async def test_a_token_signed_with_a_secret_is_refused_where_keys_are_published(
    issuers: Issuers, server: KeyServer
) -> None:
    server.keys.append({"kty": "oct", "k": b64(SECRET.encode()), "kid": "shared", "alg": "HS256", "use": "sig"})
    assert "signed in a way" in await refusal(issuers, token(algorithm="HS256", key=SECRET.encode(), kid="shared"))


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA", "HS384", "HS512"])
async def test_where_a_secret_is_shared_only_its_algorithm_is_taken(algorithm: str) -> None:
    issuers = Issuers([issuer(secret=SECRET)])
    key = SECRET.encode() if algorithm.startswith("HS") else private_key(algorithm)
    assert "signed in a way" in await refusal(issuers, token(algorithm=algorithm, key=key))
    header, payload, signature = token(algorithm="HS256", key=SECRET.encode(), header={"alg": "none"}).split(".")
    assert "signed in a way" in await refusal(issuers, f"{header}.{payload}.{signature}")


async def test_an_algorithm_that_the_issuer_may_not_use_is_refused(server: KeyServer) -> None:
    issuers = Issuers([issuer(jwks_url=server.url, algorithms=["ES256"])])
    assert "signed in a way" in await refusal(issuers, token())
    assert server.requests == 0
    await issuers.close()


async def test_a_key_is_used_only_as_what_it_is(issuers: Issuers, server: KeyServer) -> None:
    server.keys = [
        jwk(private_key("RS256"), kid="bound", alg="RS256"),
        jwk(private_key("ES256"), kid="p256"),
        jwk(private_key("ES384"), kid="p384"),
        jwk(private_key("EdDSA"), kid="ed"),
    ]
    await issuers.verify(token(kid="bound"))
    await refusal(issuers, token(algorithm="PS256", key=private_key("RS256"), kid="bound"))
    for kid in ("p256", "p384", "ed"):
        await refusal(issuers, token(kid=kid))
    for algorithm, kid in (
        ("ES256", "p384"),
        ("ES384", "p256"),
        ("ES256", "ed"),
        ("EdDSA", "p256"),
        ("EdDSA", "bound"),
    ):
        await refusal(issuers, token(algorithm=algorithm, kid=kid))
    assert server.requests == 1


NAMES = st.sampled_from(["EdDSA", "Ed25519", "Ed448"])


@given(curve=st.sampled_from(["Ed25519", "Ed448"]), says=NAMES, key_says=NAMES | st.none(), with_kid=st.booleans())
@hypothesis_settings(max_examples=25)
async def test_a_key_of_edwards_curves_goes_by_the_older_name_and_its_own(
    curve: str, says: str, key_says: str | None, with_kid: bool
) -> None:
    key = private_key("EdDSA", "448" if curve == "Ed448" else "k1")
    kid = "k1" if with_kid else None
    async with key_server() as server:
        server.keys = [jwk(key, alg=key_says, kid=kid)]
        issuers = Issuers([issuer(jwks_url=server.url)])
        sent = token(algorithm="EdDSA", key=key, kid="k1" if with_kid else DROP, header={"alg": says})
        names = ("EdDSA", curve)
        if says in names and key_says in (*names, None):
            assert (await issuers.verify(sent)).subject == SUBJECT
        else:
            assert "not signed" in await refusal(issuers, sent)
        await issuers.close()


async def test_an_issuer_that_is_held_to_the_newer_name_does_not_take_the_older(server: KeyServer) -> None:
    key = private_key("EdDSA")
    server.keys = [jwk(key)]
    issuers = Issuers([issuer(jwks_url=server.url, algorithms=["Ed25519"])])
    await issuers.verify(token(algorithm="EdDSA", key=key, header={"alg": "Ed25519"}))
    assert "signed in a way" in await refusal(issuers, token(algorithm="EdDSA", key=key))
    await issuers.close()


async def test_a_token_as_better_auth_makes_it_is_taken(server: KeyServer) -> None:
    # Better Auth's `jwt` plugin: the key set without `use`, ids of 32 letters, and its base address as iss and aud.
    base, key, kid = "https://app.example", private_key("EdDSA"), "z" * 32
    public = jwk(key, kid=kid, use=None)
    server.keys = [{"alg": "EdDSA", "crv": "Ed25519", "x": public["x"], "kty": "OKP", "kid": kid}]
    issuers = Issuers([Issuer(issuer=base, audience=(base,), jwks_url=server.url)])
    user = {"name": "Ann", "email": "ann@example.com", "emailVerified": True, "image": None, "id": SUBJECT}
    sent = token(
        algorithm="EdDSA",
        key=key,
        kid=kid,
        header={"typ": DROP},
        iss=base,
        aud=base,
        createdAt="2026-11-01T10:00:00Z",
        **user,
    )
    said = await issuers.verify(sent)
    assert (said.issuer, said.subject, said.email, said.name) == (base, SUBJECT, "ann@example.com", "Ann")
    await issuers.close()


@pytest.mark.parametrize(
    "kid",
    [
        "../../../../dev/null",
        "/proc/sys/kernel/randomize_va_space",
        "file:///dev/null",
        "k1' or '1'='1",
        "k1\0",
        "K1",
        " k1",
        "",
        "x" * 4_000,
        "\ud800",
        None,
        1,
        True,
        ["k1"],
        {"kid": "k1"},
    ],
)
async def test_a_key_id_is_a_name_and_nothing_else(issuers: Issuers, kid: Any) -> None:
    await issuers.verify(token())
    await refusal(issuers, token(kid=kid))
    await refusal(issuers, token(algorithm="HS256", key=b"\0", kid=kid))


async def test_an_address_as_key_id_is_not_called(issuers: Issuers) -> None:
    async with key_server() as elsewhere:
        await refusal(issuers, token(kid=elsewhere.url))
        assert elsewhere.requests == 0


async def test_what_a_header_says_of_keys_is_not_looked_at(issuers: Issuers) -> None:
    own = private_key("RS256", "attacker")
    async with key_server() as elsewhere:
        elsewhere.keys = [jwk(own)]
        for header in (
            {"jku": elsewhere.url},
            {"x5u": elsewhere.url},
            {"jwk": jwk(own)},
            {"jku": elsewhere.url, "x5u": elsewhere.url, "jwk": jwk(own), "x5c": ["AAAA"]},
        ):
            for kid in ("k1", "attacker", DROP):
                await refusal(issuers, token(key=own, header=header, kid=kid))
            assert (await issuers.verify(token(header=header))).subject == SUBJECT
        assert elsewhere.requests == 0


@pytest.mark.parametrize("crit", [["b64"], ["exp"], [], "exp", None])
async def test_a_header_that_must_be_understood_is_refused(issuers: Issuers, crit: Any) -> None:
    await refusal(issuers, token(header={"crit": crit, "b64": True, "exp": 1}))


async def test_a_payload_that_is_kept_apart_is_refused(issuers: Issuers) -> None:
    await refusal(issuers, token(header={"crit": ["b64"], "b64": False}))
    await refusal(issuers, token(header={"b64": False}))


# --- What a token has to say


@pytest.mark.parametrize("name", ["exp", "iss", "aud", "sub"])
@pytest.mark.parametrize("value", [DROP, None])
async def test_a_token_that_lacks_a_claim_is_refused(issuers: Issuers, name: str, value: Any) -> None:
    await refusal(issuers, token(**{name: value}))


@pytest.mark.parametrize(
    "audience",
    ["https://other.example", f"{AUDIENCE}/", AUDIENCE.upper(), "", [], ["other"], [[AUDIENCE]], [AUDIENCE, 1]],
)
async def test_a_token_for_another_audience_is_refused(issuers: Issuers, audience: Any) -> None:
    await refusal(issuers, token(aud=audience))
    await refusal(issuers, token(aud={AUDIENCE: True}))


async def test_a_token_may_be_for_others_too_and_for_an_address_that_is_added(issuers: Issuers) -> None:
    await issuers.verify(token(aud=["https://other.example", AUDIENCE]))
    resource = "https://agents.example/mcp"
    assert "audience" in await refusal(issuers, token(aud=resource))
    await issuers.verify(token(aud=resource), audience={resource})
    await issuers.verify(token(), audience={resource})
    assert "audience" in await refusal(issuers, token(aud="https://other.example"), audience={resource})


@pytest.mark.parametrize(
    "name", ["https://other.example", f"{ISSUER}/", ISSUER.upper(), f" {ISSUER}", "", [ISSUER], {ISSUER: 1}, 1, True]
)
async def test_a_token_of_another_issuer_is_refused(issuers: Issuers, server: KeyServer, name: Any) -> None:
    assert "not known here" in await refusal(issuers, token(iss=name))
    assert server.requests == 0


async def test_the_key_of_one_issuer_signs_for_no_other(server: KeyServer) -> None:
    async with key_server() as elsewhere:
        elsewhere.keys = [jwk(private_key("RS256", "elsewhere"))]
        trusted = [issuer(jwks_url=server.url), issuer(issuer="https://other.example", jwks_url=elsewhere.url)]
        issuers = Issuers([*trusted, issuer(issuer="shared", secret=SECRET)])
        theirs = private_key("RS256", "elsewhere")
        assert (await issuers.verify(token(iss="https://other.example", key=theirs))).issuer == "https://other.example"
        assert (await issuers.verify(token(iss="shared", algorithm="HS256", key=SECRET.encode()))).issuer == "shared"
        for kid in ("k1", DROP):
            assert "not signed" in await refusal(issuers, token(key=theirs, kid=kid))
            assert "not signed" in await refusal(issuers, token(iss="https://other.example", kid=kid))
        await refusal(issuers, token(algorithm="HS256", key=SECRET.encode()))
        await issuers.close()


def at(seconds: float) -> int:
    return int(time.time() + seconds)


async def test_clocks_may_differ_a_little_and_no_more(issuers: Issuers) -> None:
    assert "expired" in await refusal(issuers, token(exp=at(-LEEWAY - 10)))
    assert "not valid yet" in await refusal(issuers, token(nbf=at(LEEWAY + 10)))
    assert "not valid yet" in await refusal(issuers, token(iat=at(LEEWAY + 10)))
    await issuers.verify(token(exp=at(-LEEWAY + 10), nbf=at(LEEWAY - 10), iat=at(LEEWAY - 10)))
    await issuers.verify(token(iat=DROP))


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
@pytest.mark.parametrize(
    "value",
    ["1", str(2**33), "soon", "", True, [], {}, -1, -1e300, math.nan, math.inf, -math.inf, 1e300, 10**400, 10**15],
)
async def test_a_time_that_is_none_is_refused(issuers: Issuers, name: str, value: Any) -> None:
    await refusal(issuers, token(**{name: value}))


async def test_a_number_of_too_many_digits_is_refused(issuers: Issuers) -> None:
    payload = json.dumps(claims(exp=1)).replace('"exp": 1', f'"exp": {"9" * 4_400}')
    await refusal(issuers, token(payload.encode()))


@pytest.mark.parametrize("subject", ["", "x" * 256, "a\0b", "a\nb", "\ud800", 7, True, ["x"], {}])
async def test_a_subject_that_cannot_be_kept_is_refused(issuers: Issuers, subject: Any) -> None:
    await refusal(issuers, token(sub=subject))


@pytest.mark.parametrize("name", ["scope", "roles"])
@pytest.mark.parametrize("value", [1, True, {"tasks:read": True}, ["a", 1], [["a"]], [None], "a\0b", ["\ud800"]])
async def test_scopes_and_roles_that_are_none_are_refused(issuers: Issuers, name: str, value: Any) -> None:
    assert f"token's {name} is neither" in await refusal(issuers, token(**{name: value}))


# --- What is no token


async def test_a_token_that_was_changed_is_refused(issuers: Issuers) -> None:
    await issuers.verify(token())
    header, payload, signature = token().split(".")
    forged = b64(json.dumps(claims(sub="somebody-else")).encode())
    assert "not signed" in await refusal(issuers, f"{header}.{forged}.{signature}")
    assert "not signed" in await refusal(issuers, f"{header}.{payload}.{b64(bytes(256))}")
    for parts in (
        [header, payload],
        [header, payload, ""],
        ["", payload, signature],
        [header, "", signature],
        ["", "", ""],
        [header, payload, signature, ""],
        [header, payload, signature, signature],
        [header, payload, f"{signature}=="],
        [f" {header}", payload, signature],
        [header, payload, f"{signature}\n"],
    ):
        assert "no JWT" in await refusal(issuers, ".".join(parts))


@pytest.mark.parametrize("length", [MAX_TOKEN + 1, 2**20])
async def test_a_token_that_is_too_long_is_refused_though_it_is_good(issuers: Issuers, length: int) -> None:
    assert "no JWT" in await refusal(issuers, token(padding="x" * length))
    assert "no JWT" in await refusal(issuers, "x" * length)
    assert "no JWT" in await refusal(issuers, "." * length)


BOMBS = [
    b"[" * 5_900,
    b'{"a":' * 1_100,
    b'{"iss":' + b"[" * 2_900 + b"]" * 2_900 + b"}",
    b"\xff\xfe",
    b"null",
    b"[]",
    b"1",
]


@pytest.mark.parametrize("bomb", BOMBS)
async def test_json_that_is_no_object_or_has_no_end_is_refused(issuers: Issuers, bomb: bytes) -> None:
    sign = by("RS256", private_key("RS256"))
    await refusal(issuers, token(bomb))
    await refusal(issuers, signed(bomb, claims(), sign))
    await refusal(issuers, signed(bomb, bomb[:2_000], sign))


@functools.cache
def _good() -> str:
    return token(exp=at(86_400))


@given(where=st.integers(0, 10_000), new=st.characters(max_codepoint=255), width=st.sampled_from([0, 1]))
@example(where=10_000, new="=", width=0)
@hypothesis_settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
async def test_a_token_with_one_byte_changed_is_refused(issuers: Issuers, where: int, new: str, width: int) -> None:
    good = _good()
    where = min(where, len(good) - width)
    changed = good[:where] + new + good[where + width :]
    if changed == good:
        changed = good[:where] + good[where + 1 :]
    await issuers.verify(good)
    await refusal(issuers, changed)


_json = st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=3))
_object = st.dictionaries(st.sampled_from(["alg", "kid", "crit", "iss", "aud", "sub", "exp", "iat", "x"]), _json)


@given(text=st.one_of(st.text(), st.from_regex(r"[\w-]+\.[\w-]+\.[\w-]+", fullmatch=True)))
@example(text="\ud800.a.a")
@hypothesis_settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
async def test_any_text_is_refused(issuers: Issuers, text: str) -> None:
    with pytest.raises(Unauthorized):
        await issuers.verify(text)


@given(header=_object, changed=_object, whole=st.booleans())
@hypothesis_settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
async def test_any_header_and_claims_of_a_stranger_are_refused(
    issuers: Issuers, header: dict[str, Any], changed: dict[str, Any], whole: bool
) -> None:
    sign = by("RS256", private_key("RS256", "stranger"))
    head = {"alg": "RS256", "kid": "k1", **header} if whole else header
    with pytest.raises(Unauthorized):
        await issuers.verify(signed(head, {**claims(), **changed}, sign))


@given(changed=_object)
@hypothesis_settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
async def test_any_claims_of_the_issuer_are_taken_or_refused_and_never_a_bug(
    issuers: Issuers, changed: dict[str, Any]
) -> None:
    try:
        taken = await issuers.verify(token(**changed))
    except Unauthorized:
        return
    assert taken.issuer == ISSUER and 0 < len(taken.subject) <= 255


# --- What is taken


@pytest.mark.parametrize("algorithm", PUBLISHED)
async def test_a_good_token_of_each_algorithm_is_taken(issuers: Issuers, server: KeyServer, algorithm: str) -> None:
    server.keys = [jwk(private_key(algorithm), alg=algorithm)]
    for kid in ("k1", DROP):
        assert (await issuers.verify(token(algorithm=algorithm, kid=kid))).subject == SUBJECT


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
async def test_a_good_token_of_a_shared_secret_is_taken(algorithm: str) -> None:
    issuers = Issuers([issuer(secret=SECRET, algorithms=[algorithm])])
    for kid in ("anything", DROP):
        assert (await issuers.verify(token(algorithm=algorithm, key=SECRET.encode(), kid=kid))).subject == SUBJECT
    for wrong in (SECRET[:-1], f"{SECRET}x", ""):
        for kid in ("anything", DROP):
            assert "not signed" in await refusal(
                issuers,
                signed(
                    {"alg": algorithm, **({} if kid is DROP else {"kid": kid})},
                    claims(),
                    lambda m, k=wrong: hmac.new(k.encode(), m, f"sha{algorithm[2:]}").digest(),  # type: ignore[misc]
                ),
            )
    await issuers.close()


async def test_a_key_on_the_other_edwards_curve_is_taken(issuers: Issuers, server: KeyServer) -> None:
    server.keys = [jwk(private_key("EdDSA", "448"))]
    await issuers.verify(token(algorithm="EdDSA", key=private_key("EdDSA", "448")))


async def test_a_token_says_who_it_is_for_and_what_they_may_do(issuers: Issuers) -> None:
    until = at(600)
    more: dict[str, Any] = {
        "email": "ann@example.com",
        "name": "Ann\u200c Ü",
        "scope": "tasks:read  notes:*",
        "roles": ["staff", "a b"],
    }
    assert await issuers.verify(token(exp=until, **more)) == OutsideToken(
        issuer=ISSUER,
        subject=SUBJECT,
        email="ann@example.com",
        name="Ann\u200c Ü",
        scopes=frozenset({"tasks:read", "notes:*"}),
        roles=frozenset({"staff", "a b"}),
        expires_at=datetime.fromtimestamp(until, UTC),
    )
    bare = await issuers.verify(token(exp=until + 0.5))
    assert (bare.email, bare.name, bare.scopes, bare.roles) == (None, None, None, frozenset())


@pytest.mark.parametrize(
    ("value", "scopes", "roles"),
    [
        ("", set(), set()),
        (None, set(), set()),
        ([], set(), set()),
        (["a b", " c ", ""], {"a b", "c"}, {"a b", "c"}),
        ("a b", {"a", "b"}, {"a b"}),
        ("a, b,", {"a,", "b,"}, {"a", "b"}),
    ],
)
async def test_scopes_and_roles_are_text_or_a_list_in_claims_of_the_operators_choice(
    server: KeyServer, value: Any, scopes: object, roles: object
) -> None:
    issuers = Issuers([issuer(jwks_url=server.url, scopes_claim="scp", roles_claim="role")])
    taken = await issuers.verify(token(scp=value, role=value, scope="no", roles="no"))
    assert (taken.scopes, taken.roles) == (scopes, roles)
    await issuers.close()


@pytest.mark.parametrize("name", ["email_verified", "emailVerified"])
async def test_an_address_that_its_issuer_doubts_is_none(issuers: Issuers, name: str) -> None:
    for verified, address in (
        (True, "a@b.example"),
        ("true", "a@b.example"),
        (False, None),
        ("false", None),
        (None, None),
    ):
        said: dict[str, Any] = {name: verified}
        taken = await issuers.verify(token(email="a@b.example", **said))
        assert taken.email == address


@pytest.mark.parametrize("value", ["", 1, ["a"], "a\0", "\ud800", None])
async def test_a_name_or_an_address_that_is_none_is_left_out(issuers: Issuers, value: Any) -> None:
    taken = await issuers.verify(token(email=value, name=value))
    assert (taken.email, taken.name) == (None, None)


# --- Which published keys count


def _unusable() -> Mapping[str, dict[str, Any]]:
    good = jwk(private_key("RS256"))
    return {
        "for encryption": {**good, "use": "enc"},
        "use is no text": {**good, "use": ["sig"]},
        "for key agreement": {**good, "alg": "RSA-OAEP"},
        "without a kind": {name: value for name, value in good.items() if name != "kty"},
        "of an unknown kind": {**good, "kty": "XYZ"},
        "its kind is no text": {**good, "kty": ["RSA"]},
        "broken": {**good, "n": "!"},
        "incomplete": {name: value for name, value in good.items() if name != "n"},
        "its number is a number": {**good, "n": 5},
        "exponent of one": {**good, "e": "AQ"},
        "its id is no text": {**good, "kid": 1},
        "private": jwt.get_algorithm_by_name("RS256").to_jwk(private_key("RS256"), as_dict=True) | {"kid": "k1"},
    }


@pytest.mark.parametrize("why", list(_unusable()))
async def test_a_key_that_is_not_for_verifying_is_passed_over(issuers: Issuers, server: KeyServer, why: str) -> None:
    server.keys = [_unusable()[why], None, "k1", jwk(private_key("ES256"), kid="good")]  # type: ignore[list-item]
    assert "not signed" in await refusal(issuers, token())
    assert "not signed" in await refusal(issuers, token(kid=DROP))
    assert (await issuers.verify(token(algorithm="ES256", kid="good"))).subject == SUBJECT


async def test_a_short_rsa_key_is_passed_over(issuers: Issuers, server: KeyServer) -> None:
    server.keys = [jwk(weak_key()), jwk(private_key("ES256"), kid="good")]
    assert "not signed" in await refusal(issuers, token(key=weak_key()))
    await issuers.verify(token(algorithm="ES256", kid="good"))


async def test_a_token_without_a_key_id_is_tried_only_where_one_key_fits(issuers: Issuers, server: KeyServer) -> None:
    server.keys = [jwk(private_key("RS256")), jwk(private_key("ES256"), kid=None)]
    await issuers.verify(token(kid=DROP))
    await issuers.verify(token(algorithm="ES256", kid=DROP))
    assert "not signed" in await refusal(issuers, token(algorithm="EdDSA", kid=DROP))


async def test_a_token_without_a_key_id_is_refused_where_two_keys_fit(issuers: Issuers, server: KeyServer) -> None:
    server.keys.append(jwk(private_key("RS256", "k2"), kid="k2"))
    assert "not signed" in await refusal(issuers, token(kid=DROP))
    await issuers.verify(token())


# --- When the keys are fetched


async def _all_taken(issuers: Issuers, tokens: Sequence[str]) -> None:
    assert {t.subject for t in await asyncio.gather(*map(issuers.verify, tokens))} == {SUBJECT}


async def test_the_keys_are_fetched_once_for_many(issuers: Issuers, server: KeyServer) -> None:
    await _all_taken(issuers, [token()] * 50)
    await _all_taken(issuers, [token()] * 50)
    assert server.requests == 1


@pytest.mark.parametrize("kid", ["k1", DROP], ids=["named", "without id"])
async def test_a_rotation_refuses_nobody(issuers: Issuers, server: KeyServer, kid: Any) -> None:
    """The answer that is under way when the issuer rotates has the old keys still; the new ones are taken all the same."""
    old, new = token(kid=kid), token(key=private_key("RS256", "k2"), kid="k2" if kid == "k1" else DROP)
    server.answering.clear()
    early = asyncio.create_task(_all_taken(issuers, [old] * 20))
    await server.came.wait()
    server.keys = [jwk(private_key("RS256", "k2"), kid="k2" if kid == "k1" else None)]
    late = asyncio.create_task(_all_taken(issuers, [new] * 50))
    server.answering.set()
    await asyncio.gather(early, late)
    await _all_taken(issuers, [new] * 50)
    assert server.requests == 2
    assert "not signed" in await refusal(issuers, old)


async def test_tokens_of_before_and_after_are_taken_while_keys_rotate_again_and_again(
    issuers: Issuers, server: KeyServer, clock: Clock
) -> None:
    names = ["k1", "k2", "k3", "k4"]
    for before, after in pairwise(names):
        server.keys = [jwk(private_key("RS256", name), kid=name) for name in (before, after)]
        both = [token(key=private_key("RS256", name), kid=name) for name in (before, after)]
        await _all_taken(issuers, both * 25)
    assert server.requests == 3
    clock.now += FRESH_SECONDS
    await _all_taken(issuers, [both[1]] * 50)


async def test_invented_key_ids_make_one_request(issuers: Issuers, server: KeyServer, clock: Clock) -> None:
    await issuers.verify(token())
    await asyncio.gather(*(refusal(issuers, token(kid=f"invented-{n}")) for n in range(50)))
    assert server.requests == 2
    clock.now += ANY_ID_SECONDS - 0.1
    await refusal(issuers, token(kid="another"))
    assert server.requests == 2
    clock.now += 0.1
    await asyncio.gather(*(refusal(issuers, token(kid=f"invented-{n}")) for n in range(50, 100)))
    assert server.requests == 3


async def test_a_key_id_that_was_not_there_is_not_asked_for_again_for_a_while(
    issuers: Issuers, server: KeyServer, clock: Clock
) -> None:
    await refusal(issuers, token(kid="invented"))
    clock.now += SAME_ID_SECONDS - 0.1
    await refusal(issuers, token(kid="invented"))
    assert server.requests == 1
    clock.now += 0.1
    await refusal(issuers, token(kid="invented"))
    assert server.requests == 2


async def test_a_new_key_is_found_as_soon_as_invented_ids_let_it_be_asked_for(
    issuers: Issuers, server: KeyServer, clock: Clock
) -> None:
    await issuers.verify(token())
    await refusal(issuers, token(kid="invented"))
    server.keys.append(jwk(private_key("RS256", "k2"), kid="k2"))
    new = token(key=private_key("RS256", "k2"), kid="k2")
    await refusal(issuers, new)
    clock.now += ANY_ID_SECONDS
    await issuers.verify(new)


async def test_keys_that_were_withdrawn_are_noticed_beside_the_work(
    issuers: Issuers, server: KeyServer, clock: Clock
) -> None:
    await issuers.verify(token())
    server.keys = [jwk(private_key("RS256", "k2"), kid="k2")]
    clock.now += FRESH_SECONDS - 0.1
    await issuers.verify(token())
    assert server.requests == 1
    clock.now += 0.1
    server.answering.clear()
    server.came.clear()
    await _all_taken(issuers, [token()] * 20)
    await server.came.wait()
    await _all_taken(issuers, [token()] * 20)
    server.answering.set()
    await issuers.verify(token(key=private_key("RS256", "k2"), kid="k2"))  # waits for what is under way
    assert "not signed" in await refusal(issuers, token())
    assert server.requests == 2 + 1  # the last is for the key id that is unknown now


async def test_whoever_gives_up_waiting_takes_nothing_from_the_others(issuers: Issuers, server: KeyServer) -> None:
    server.answering.clear()
    first, second = (asyncio.create_task(issuers.verify(token())) for _ in range(2))
    await server.came.wait()
    first.cancel()
    await asyncio.wait([first])
    server.answering.set()
    assert (await second).subject == SUBJECT
    assert first.cancelled() and server.requests == 1


async def test_closing_ends_what_is_under_way(issuers: Issuers, server: KeyServer) -> None:
    server.answering.clear()
    waiting = asyncio.create_task(issuers.verify(token()))
    await server.came.wait()
    await issuers.close()
    await asyncio.wait([waiting])
    assert waiting.cancelled()


async def test_a_key_set_that_moved_within_its_origin_is_followed(server: KeyServer) -> None:
    server.moved_from = "/old"
    issuers = Issuers([issuer(jwks_url=server.url.removesuffix("/jwks") + "/old")])
    await issuers.verify(token())
    assert server.requests == 2
    await issuers.close()


async def test_a_key_set_that_leads_in_a_circle_is_given_up(server: KeyServer) -> None:
    server.moved_from = "/jwks"
    issuers = Issuers([issuer(jwks_url=server.url)])
    with pytest.raises(Unavailable, match="cannot be fetched"):
        await issuers.verify(token())
    assert server.requests == MAX_REDIRECTS + 1
    await issuers.close()


# --- When the keys cannot be had


def _break(server: KeyServer, how: str) -> None:
    server.answering.set()
    match how:
        case "away":
            server.body, server.status = b"", "503 Service Unavailable"
        case "redirecting":
            server.status, server.headers = "302 Found", "Location: http://127.0.0.2:1/keys\r\n"
        case "HTML":
            server.body = b"<!doctype html><title>Sign in</title>"
        case "huge":
            server.body = json.dumps({"keys": server.keys, "x": "x" * MAX_KEY_SET}).encode()
        case "compressed":
            server.headers = "Content-Encoding: gzip\r\n"
            server.body = gzip.compress(json.dumps({"keys": server.keys}).encode())
        case "no set":
            server.body = b'{"keys": {"k1": {}}}'
        case "no object":
            server.body = b"[]"
        case "nested":
            server.body = b'{"keys":' + b"[" * 100_000
        case "no HTTP":
            server.status = "nonsense\r\n\r\n"
        case "silent":
            server.answering.clear()
        case "dripping":
            server.dripping = True


BROKEN = ["away", "redirecting", "HTML", "huge", "compressed", "no set", "no object", "nested", "no HTTP", "silent"]


@pytest.mark.parametrize("how", [*BROKEN, "dripping"])
async def test_where_no_keys_were_ever_had_it_is_not_the_tokens_fault(
    server: KeyServer, clock: Clock, how: str
) -> None:
    issuers = Issuers(
        [issuer(jwks_url=server.url)], clock=clock, fetch_seconds=0.2 if how in ("silent", "dripping") else 10
    )
    _break(server, how)
    for _ in range(3):
        with pytest.raises(Unavailable, match="cannot be fetched"):
            await issuers.verify(token())
    assert server.requests == 1
    clock.now += RETRY_SECONDS
    with pytest.raises(Unavailable):
        await issuers.verify(token(kid="invented"))
    assert server.requests == 2
    await issuers.close()


async def test_an_issuer_that_comes_back_is_asked_again(server: KeyServer, clock: Clock) -> None:
    async with key_server() as gone:
        pass
    issuers = Issuers([issuer(jwks_url=gone.url), issuer(issuer="other", jwks_url=server.url)], clock=clock)
    with pytest.raises(Unavailable):
        await issuers.verify(token())
    _break(server, "away")
    with pytest.raises(Unavailable):
        await issuers.verify(token(iss="other"))
    server.body, server.status = None, "200 OK"
    clock.now += RETRY_SECONDS
    assert (await issuers.verify(token(iss="other"))).issuer == "other"
    await issuers.close()


@pytest.mark.parametrize("how", BROKEN)
async def test_keys_that_were_had_go_on_for_a_day(server: KeyServer, clock: Clock, how: str) -> None:
    issuers = Issuers([issuer(jwks_url=server.url)], clock=clock, fetch_seconds=0.2)
    await issuers.verify(token())
    _break(server, how)
    clock.now += KEPT_SECONDS - 20
    await _all_taken(issuers, [token()] * 20)
    assert "not signed" in await refusal(issuers, token(kid="invented"))  # waits for what is under way
    await issuers.verify(token())
    clock.now += 20
    with pytest.raises(Unavailable):
        await issuers.verify(token())
    await issuers.close()


async def test_a_refresh_that_fails_is_tried_again_after_a_pause(
    issuers: Issuers, server: KeyServer, clock: Clock
) -> None:
    await issuers.verify(token())
    _break(server, "HTML")
    clock.now += FRESH_SECONDS
    await refusal(issuers, token(kid="invented"))
    made = server.requests
    await _all_taken(issuers, [token()] * 20)
    assert server.requests == made
    server.body = None
    server.keys.append(jwk(private_key("RS256", "k2"), kid="k2"))
    clock.now += RETRY_SECONDS
    await issuers.verify(token(key=private_key("RS256", "k2"), kid="k2"))
    assert server.requests == made + 1


# --- What settings refuse

KEYS = {"jwks_url": "https://auth.example/jwks"}


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Issuer, ...]]:
    """Read the settings with these issuers in the environment."""
    monkeypatch.chdir(tmp_path)

    def configure(*issuers: dict[str, Any]) -> tuple[Issuer, ...]:
        monkeypatch.setenv("AGENT_SERVER_ISSUERS", json.dumps(issuers))
        return load_settings().issuers

    return configure


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"jwks_url": None}, "exactly one of jwks_url and secret"),
        ({**KEYS, "secret": SECRET}, "exactly one of jwks_url and secret"),
        ({"secret": "x" * 31}, "at least 32 bytes"),
        ({"secret": ""}, "at least 32 bytes"),
        ({"secret": "x" * 47, "algorithms": ["HS256", "HS384"]}, "at least 48 bytes"),
        ({"secret": "x" * 63, "algorithms": ["HS512"]}, "at least 64 bytes"),
        ({"secret": "-----BEGIN PUBLIC KEY-----" + "x" * 32}, "PEM"),
        ({**KEYS, "algorithms": ["RS256", "HS256"]}, "'HS256' does not go with jwks_url"),
        ({**KEYS, "algorithms": ["none"]}, "'none' does not go with jwks_url"),
        ({**KEYS, "algorithms": ["None"]}, "'None' does not go with jwks_url"),
        ({**KEYS, "algorithms": ["ES256K"]}, "'ES256K' does not go with jwks_url"),
        ({**KEYS, "algorithms": []}, "algorithms: "),
        ({"secret": SECRET, "algorithms": ["HS256", "RS256"]}, "'RS256' does not go with secret"),
        ({"secret": SECRET, "algorithms": ["none"]}, "'none' does not go with secret"),
        ({"jwks_url": "http://auth.example/jwks"}, "jwks_url: .*https://"),
        ({"jwks_url": "http://127.0.0.1.example/jwks"}, "jwks_url: .*https://"),
        ({"jwks_url": "http://10.0.0.1/jwks"}, "jwks_url: .*https://"),
        ({"jwks_url": "file:///etc/passwd"}, "jwks_url: .*https://"),
        ({"jwks_url": "https://user:password@auth.example/jwks"}, "jwks_url: .*without user name"),
        ({"jwks_url": "https://[auth.example"}, "jwks_url: "),
        ({"jwks_url": "auth.example/jwks"}, "jwks_url: .*https://"),
        ({"jwks_url": ""}, "jwks_url: .*https://"),
        ({**KEYS, "audience": []}, "audience: "),
        ({**KEYS, "audience": ""}, "audience.0: "),
        ({**KEYS, "audience": None}, "audience: "),
        ({**KEYS, "issuer": ""}, "issuer: "),
        ({**KEYS, "issuer": None}, "issuer: "),
        ({**KEYS, "leeway": 3600}, "leeway: "),
    ],
)
def test_an_issuer_that_cannot_be_right_stops_the_server(
    configure: Callable[..., tuple[Issuer, ...]], given: dict[str, Any], message: str
) -> None:
    good = {"issuer": "first", "audience": "a", **KEYS}
    with pytest.raises(InvalidInput, match=f"AGENT_SERVER_ISSUERS: 1.*{message}") as refused:
        configure(good, {"issuer": ISSUER, "audience": AUDIENCE, **given})
    assert SECRET not in str(refused.value)


def test_an_issuer_that_is_there_twice_stops_the_server(configure: Callable[..., tuple[Issuer, ...]]) -> None:
    one = {"issuer": ISSUER, "audience": AUDIENCE, **KEYS}
    with pytest.raises(InvalidInput, match=f"AGENT_SERVER_ISSUERS: .*given twice: {ISSUER}"):
        configure(one, {**one, "audience": "other"})


def test_an_issuer_needs_little_and_what_it_shares_is_not_shown(
    configure: Callable[..., tuple[Issuer, ...]],
) -> None:
    published, local, shared = configure(
        {"issuer": ISSUER, "audience": AUDIENCE, **KEYS},
        {"issuer": f"{ISSUER}/", "audience": ["a", "b"], "jwks_url": "http://[::1]:3000/jwks", "algorithms": ["ES512"]},
        {"issuer": "shared", "audience": AUDIENCE, "secret": SECRET},
    )
    assert published == Issuer(issuer=ISSUER, audience=(AUDIENCE,), jwks_url=KEYS["jwks_url"])
    assert published.algorithms == ("RS256", "PS256", "ES256", "EdDSA")
    assert (published.scopes_claim, published.roles_claim) == ("scope", "roles")
    assert (local.audience, local.algorithms) == (("a", "b"), ("ES512",))
    assert shared.algorithms == ("HS256",)
    assert shared.secret is not None and shared.secret.get_secret_value() == SECRET
    assert SECRET not in f"{shared!r} {shared} {shared.model_dump_json()}"
