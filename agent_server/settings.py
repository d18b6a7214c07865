"""One frozen `Settings`, built once from presets, `.env` and the environment, and passed down.

Precedence, highest first: arguments, environment variables, `.env`, the preset of `AGENT_SERVER_ENVIRONMENT`, defaults.
Vendor names keep their vendor's spelling (`DATABASE_URL`, `OPENAI_API_KEY`); everything else is `AGENT_SERVER_*`.
"""

import re
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError

from agent_server.errors import FieldError, InvalidInput

LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")
_HOST = re.compile(r"\*|(\*\.)?([a-z0-9][a-z0-9._-]*|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")

Environment = Literal["development", "test", "staging", "production"]

PRESETS: Mapping[Environment, Mapping[str, Any]] = {
    "development": {"log_format": "console"},
    "test": {"log_format": "console", "log_level": "WARNING"},
    "staging": {"log_format": "json"},
    "production": {"log_format": "json", "migrate": False},
}


ScopeName = Annotated[str, Field(pattern=r"^(\*|[a-z_]+:([a-z_]+|\*))$")]


def _vendor(name: str) -> Any:
    """A setting that is read from the vendor's own variable name."""
    return Field(default=None, validation_alias=AliasChoices(name.lower(), name))


SHARED_SECRET = ("HS256", "HS384", "HS512")
PUBLIC_KEY = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
NonEmpty = Annotated[str, Field(min_length=1)]


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


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_secret(secret: str, algorithms: tuple[str, ...]) -> None:
    least = max(int(name[2:]) // 8 for name in algorithms)  # RFC 7518, 3.2: not shorter than what the hash puts out
    if len(secret.encode()) < least:
        raise ValueError(f"secret: at least {least} bytes for {', '.join(algorithms)}")
    if "-----BEGIN" in secret:
        raise ValueError("secret: this is a PEM file; a public key is no secret, publish it at a jwks_url")


class Settings(BaseSettings):
    """Everything an operator can turn."""

    model_config = SettingsConfigDict(
        env_prefix="AGENT_SERVER_",
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
    )

    environment: Environment = "development"
    workspace: Annotated[Path, Field(description="The folder that holds tools/, prompts/ and content/.")] = Path(".")

    title: Annotated[str, Field(min_length=1, description="The name on the page and in MCP clients.")] = "Agent server"

    host: Annotated[str, Field(description="The address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    body_limit: Annotated[PositiveInt, Field(description="Largest request body, bytes.")] = 1_048_576
    body_timeout: Annotated[float, Field(gt=0, description="Seconds in which a request's body must be there.")] = 30.0
    cors_origins: Annotated[tuple[str, ...], Field(description="Origins whose pages may call the API; `*`: any.")] = ()
    allowed_hosts: Annotated[
        tuple[str, ...],
        Field(description="Host names this server answers to beside localhost; `*.` before one: any below it."),
    ] = ()
    public_url: Annotated[str | None, Field(description="The address it is reached at from outside, no path.")] = None
    trusted_proxies: Annotated[
        tuple[str, ...], Field(description="Addresses or networks whose X-Forwarded-For and -Proto count.")
    ] = ()

    database_url: SecretStr | None = _vendor("DATABASE_URL")
    database_direct_url: SecretStr | None = _vendor("DATABASE_DIRECT_URL")
    database_owner_url: SecretStr | None = _vendor("DATABASE_OWNER_URL")
    database_pool_size: PositiveInt = 8
    database_pool_timeout: Annotated[float, Field(gt=0, description="Longest wait for a connection, seconds.")] = 5.0
    migrate: Annotated[bool, Field(description="Apply pending migrations when the server starts.")] = True

    model: Annotated[
        str | None,
        Field(description="The model that answers: `offline`, a name, or `provider/name` as litellm has it."),
    ] = None
    openai_api_key: SecretStr | None = _vendor("OPENAI_API_KEY")
    openai_base_url: str | None = _vendor("OPENAI_BASE_URL")
    gemini_api_key: SecretStr | None = _vendor("GEMINI_API_KEY")
    groq_api_key: SecretStr | None = _vendor("GROQ_API_KEY")
    anthropic_api_key: SecretStr | None = _vendor("ANTHROPIC_API_KEY")
    model_fallback: Annotated[
        str | None, Field(description="The model that takes over while the first one's provider is failing.")
    ] = None
    model_connect_timeout: Annotated[float, Field(gt=0, description="Seconds.")] = 3.0
    model_first_token_timeout: Annotated[float, Field(gt=0, description="Seconds until a model's first token.")] = 30.0
    model_token_timeout: Annotated[float, Field(gt=0, description="Longest pause between two tokens, seconds.")] = 20.0
    model_call_timeout: Annotated[float, Field(gt=0, description="Longest model call, seconds.")] = 120.0
    model_retries: Annotated[int, Field(ge=0, le=5, description="Retries of a model call with no output yet.")] = 2

    message_limit: Annotated[PositiveInt, Field(description="Longest message of a user, characters.")] = 2_000
    history_limit: Annotated[PositiveInt, Field(description="Most stored items a model is given of earlier turns.")] = (
        40
    )
    queue_limit: Annotated[PositiveInt, Field(description="Most turns that wait in one conversation.")] = 5
    turn_timeout: Annotated[float, Field(gt=0, description="Longest turn, seconds.")] = 300.0
    tool_timeout: Annotated[float, Field(gt=0, description="Longest tool call, seconds.")] = 30.0
    model_calls_per_turn: Annotated[PositiveInt, Field(description="Most model calls in one turn.")] = 12

    drain_seconds: Annotated[
        float, Field(ge=0, description="How long a server that is told to stop goes on with its turns, seconds.")
    ] = 25.0
    event_hours: Annotated[
        PositiveInt, Field(description="How long the stream of a finished turn can be replayed, hours.")
    ] = 48

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

    rate_per_caller: Annotated[int, Field(ge=0, description="Most requests of a caller in a minute; 0: any.")] = 600
    rate_per_address: Annotated[int, Field(ge=0, description="Most requests from an address in a minute; 0: any.")] = (
        1200
    )
    rate_guests_per_address: Annotated[
        int, Field(ge=0, description="Most new guests from an address in an hour; 0: any.")
    ] = 120

    search_limit: Annotated[int, Field(ge=1, le=20, description="Passages a question is answered from.")] = 5
    search_min_score: Annotated[
        float, Field(ge=0, description="Passages scoring below this are not relevant (0 to 1.5, see docs).")
    ] = 0.35

    embedder: Annotated[
        str, Field(min_length=1, description="What makes vectors of texts: its name, or `package.module:factory`.")
    ] = "wordllama"

    offline_words_per_second: Annotated[
        float, Field(ge=0, description="Pace at which the offline model's quotes appear; 0: at once.")
    ] = 60.0

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["console", "json"] = "console"

    @property
    def deployed(self) -> bool:
        """Whether this is a server that others rely on, and not one's own machine."""
        return self.environment in ("staging", "production")

    @property
    def known_hosts(self) -> tuple[str, ...]:
        """What a `Host` may be, in lower case: as `allowed_hosts` has them, without a port for any port."""
        outside = urlsplit(self.public_url).hostname if self.public_url else None
        if outside is not None:
            outside = f"[{outside}]" if ":" in outside else outside
        return tuple(host for host in (*LOCAL_HOSTS, _concrete(self.host), outside, *self.allowed_hosts) if host)

    @field_validator("allowed_hosts")
    @classmethod
    def _names_only(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(host.lower() for host in value)
        for name in names:
            if not _HOST.fullmatch(name):
                raise ValueError(f"{name!r}: write a name as in agents.example, *.agents.example, agents.example:8443")
        return names

    @field_validator("cors_origins")
    @classmethod
    def _origins_only(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        origins = tuple(origin.lower() for origin in value)
        for origin in origins:
            if origin != "*" and not _is_origin(origin):
                raise ValueError(f"{origin!r}: write an origin as in https://shop.example, without a path, or *")
        return origins

    @field_validator("public_url")
    @classmethod
    def _address_only(cls, value: str | None) -> str | None:
        url = value and value.lower().removesuffix("/")
        if url is not None and not (url.startswith(("https://", "http://")) and _is_origin(url)):
            raise ValueError("must be as in https://agents.example, without a path")
        return url

    @field_validator("trusted_proxies")
    @classmethod
    def _networks_only(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            ip_network(network)  # its ValueError says what is wrong
        return value

    @field_validator("database_url", "database_direct_url", "database_owner_url")
    @classmethod
    def _postgres_only(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(("postgres://", "postgresql://")):
            raise ValueError("must start with postgresql:// (leave it unset for the embedded server)")
        return value

    @field_validator("issuers")
    @classmethod
    def _each_issuer_once(cls, value: tuple[Issuer, ...]) -> tuple[Issuer, ...]:
        names = [issuer.issuer for issuer in value]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"each issuer once; given twice: {', '.join(twice)}")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        chosen: dict[str, Any] = {**dotenv_settings(), **env_settings(), **init_settings()}
        preset = PRESETS.get(chosen.get("environment", "development"), {})
        return init_settings, env_settings, dotenv_settings, InitSettingsSource(settings_cls, dict(preset))


def _is_origin(text: str) -> bool:
    """Whether this is a scheme, a host and at most a port, in lower case."""
    scheme, _, host = text.partition("://")
    return scheme.isalpha() and not host.startswith("*") and _HOST.fullmatch(host) is not None


def _concrete(host: str) -> str | None:
    """`host` as a `Host` header names it; None for an address that stands for all of a machine's."""
    try:
        address = ip_address(host)
    except ValueError:
        return host.lower() or None
    if address.is_unspecified:
        return None
    return f"[{address}]" if address.version == 6 else str(address)


def load_settings(**overrides: Any) -> Settings:
    """Read the settings; raises InvalidInput that names each wrong variable."""
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except SettingsError as error:  # a list that is no JSON; its message names the field
        raise InvalidInput(f'{error}; write lists as JSON, as in ["https://example.com"]') from None
    except ValidationError as error:
        fields = [FieldError(variable_of(str(e["loc"][0])), _place(e["loc"][1:]) + e["msg"]) for e in error.errors()]
        raise InvalidInput("; ".join(f"{f.field}: {f.message}" for f in fields), fields) from None


def _place(inside: tuple[int | str, ...]) -> str:
    """Where in a setting's JSON the mistake is."""
    return ".".join(map(str, inside)) + ": " if inside else ""


def variable_of(field: str) -> str:
    """The environment variable that sets `field`."""
    info = Settings.model_fields.get(field.lower())
    alias = info.validation_alias if info else None
    if isinstance(alias, AliasChoices):
        return str(alias.choices[-1])
    return field if info is None else f"AGENT_SERVER_{field.upper()}"
