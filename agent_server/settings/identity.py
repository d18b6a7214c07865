"""Whose credentials are taken, and what their owners may do."""

from ipaddress import ip_address
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, SecretStr, field_validator, model_validator

SHARED_SECRET = ("HS256", "HS384", "HS512")
PUBLIC_KEY = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
    "Ed25519",
    "Ed448",
)
NonEmpty = Annotated[str, Field(min_length=1)]
ScopeName = Annotated[str, Field(pattern=r"^(\*|[a-z_]+:([a-z_]+|\*))$")]


class Issuer(BaseModel):
    """An outside issuer whose tokens are taken, and what is known of them beforehand."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: Annotated[NonEmpty, Field(description="What `iss` says, to the letter.")]
    audience: Annotated[tuple[NonEmpty, ...], Field(min_length=1, description="`aud` must name one of these.")]
    jwks_url: Annotated[str | None, Field(description="Where the issuer publishes its keys.")] = None
    secret: Annotated[SecretStr | None, Field(description="What it signs with, where it has no public keys.")] = None
    algorithms: Annotated[tuple[str, ...], Field(min_length=1, description="`alg` must be one of these.")] = ()
    scopes_claim: Annotated[NonEmpty, Field(description="Text, separated by spaces, or a list.")] = "scope"
    roles_claim: Annotated[NonEmpty, Field(description="Text, separated by commas, or a list.")] = "roles"

    @model_validator(mode="before")
    @classmethod
    def _usual_algorithms(cls, given: object) -> object:
        if not isinstance(given, dict):
            return given
        # Never what the token itself names: its author would choose how it is checked.
        usual = ("HS256",) if given.get("secret") is not None else ("RS256", "PS256", "ES256", "EdDSA")
        return {"algorithms": usual, **given}

    @field_validator("audience", mode="before")
    @classmethod
    def _one_is_a_list_of_one(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("jwks_url")
    @classmethod
    def _not_to_be_listened_to(cls, value: str | None) -> str | None:
        if value is None:
            return None
        url = urlsplit(value)
        if url.hostname is None or url.username is not None or url.scheme not in ("https", "http"):
            raise ValueError("must be an https:// address without user name or password")
        # Whoever can change the answer on the way could sign tokens with keys of their own.
        if url.scheme == "http" and not _loopback(url.hostname):
            raise ValueError("must start with https:// (http:// is for 127.0.0.1, ::1 and localhost only)")
        return value

    @model_validator(mode="after")
    def _one_kind_of_key(self) -> Self:
        if (self.jwks_url is None) == (self.secret is None):
            raise ValueError("set exactly one of jwks_url and secret")
        # one kind per issuer: a public key is no secret, and whoever has it must not be able to sign with it
        kind, fitting = ("jwks_url", PUBLIC_KEY) if self.secret is None else ("secret", SHARED_SECRET)
        for name in self.algorithms:
            if name not in fitting:
                raise ValueError(f"algorithm {name!r} does not go with {kind}, which takes {', '.join(fitting)}")
        if self.secret is not None:
            _check_secret(self.secret.get_secret_value(), self.algorithms)
        return self


class IdentitySettings(BaseModel):
    """Settings of guests, users and issuers."""

    issuers: Annotated[
        tuple[Issuer, ...], Field(description="Outside issuers whose tokens are taken as credentials.")
    ] = ()

    guest_hours: Annotated[PositiveInt, Field(description="How long a guest's session lasts, hours.")] = 24
    guest_scopes: Annotated[
        tuple[str, ...] | None,
        Field(description="What a guest's agents may use; unset: whatever the tools listed in prompts/ need."),
    ] = None

    access_token_minutes: Annotated[
        PositiveInt, Field(description="How long an access token of a user who signed in works, minutes.")
    ] = 15
    login_days: Annotated[
        PositiveInt, Field(description="How long a login lasts, however often it is refreshed, days.")
    ] = 30
    roles: Annotated[
        dict[str, tuple[ScopeName, ...] | None],
        Field(description="Scopes of each role, beside user, staff and admin; null: those of a user."),
    ] = {}

    @field_validator("issuers")
    @classmethod
    def _each_issuer_once(cls, value: tuple[Issuer, ...]) -> tuple[Issuer, ...]:
        names = [issuer.issuer for issuer in value]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"each issuer once; given twice: {', '.join(twice)}")
        return value


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_secret(secret: str, algorithms: tuple[str, ...]) -> None:
    least = max(int(name[2:]) // 8 for name in algorithms)  # RFC 7518, 3.2: not shorter than what the hash puts out
    if len(secret.encode()) < least:
        raise ValueError(f"secret: at least {least} bytes for {', '.join(algorithms)}")
    # A public key as a shared secret would let everybody who knows it sign.
    if "-----BEGIN" in secret:
        raise ValueError("secret: this is a PEM file; a public key is no secret, publish it at a jwks_url")
