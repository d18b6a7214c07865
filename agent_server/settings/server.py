"""Where the server listens, whom it answers to and what it logs."""

import re
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, PositiveInt, ValidationInfo, field_validator
from pydantic_settings import NoDecode

LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")
_HOST = re.compile(r"\*|(\*\.)?([a-z0-9][a-z0-9._-]*|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")

Environment = Literal["development", "test", "staging", "production"]


class ServerSettings(BaseModel):
    """Settings of the process and of its edge."""

    environment: Environment = "development"
    workspace: Annotated[Path, Field(description="The folder that holds tools/, prompts/ and content/.")] = Path(".")
    # As names between commas, which are easier to write than JSON.
    slices: Annotated[
        tuple[str, ...], NoDecode, Field(description="The slices to serve, between commas; empty: all.")
    ] = ()

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
    # After `public_url`, which it is checked with.
    oauth: Annotated[
        bool, Field(description="Whether users let MCP clients in through the browser, with accounts of this server.")
    ] = False
    oauth_days: Annotated[
        PositiveInt, Field(description="How long a client that was let in stays connected, days.")
    ] = 90
    trusted_proxies: Annotated[
        tuple[str, ...], Field(description="Addresses or networks whose X-Forwarded-For and -Proto count.")
    ] = ()

    mcp_output_schemas: Annotated[
        bool, Field(description="Whether MCP clients are told the schemas of results, which costs models tokens.")
    ] = False

    mcp_find_tools: Annotated[
        PositiveInt | None,
        Field(description="With more tools than this a client is listed `find_tools` in their place."),
    ] = None
    mcp_listed_tools: Annotated[
        tuple[str, ...], Field(description="Tools that are listed beside `find_tools` all the same.")
    ] = ()

    mcp_instructions: Annotated[
        str | None, Field(description="What MCP clients are told of this server, in place of its list of specialists.")
    ] = None
    mcp_icon: Annotated[
        str | None,
        Field(pattern="^(https://|data:image/)", description="The address of the server's picture in MCP clients."),
    ] = None

    # Orchestrators kill 30 seconds after SIGTERM by default; some of that is for the rest of the stop.
    drain_seconds: Annotated[
        float, Field(ge=0, description="How long a server that is told to stop goes on with its turns, seconds.")
    ] = 25.0

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

    @field_validator("slices", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(filter(None, (name.strip() for name in value.split(",")))) if isinstance(value, str) else value

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

    @field_validator("oauth")
    @classmethod
    def _has_an_address(cls, value: bool, info: ValidationInfo) -> bool:
        # The name of who gives tokens must be the same for everybody, whatever they call the server by.
        if value and (url := info.data.get("public_url", "")) != "":
            host = urlsplit(url or "").hostname
            if host is None or not (url.startswith("https://") or f"[{host}]" in LOCAL_HOSTS or host in LOCAL_HOSTS):
                raise ValueError("set AGENT_SERVER_PUBLIC_URL to an https:// address (http:// for this machine only)")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks_only(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            ip_network(network)  # its ValueError says what is wrong
        return value


def _is_origin(text: str) -> bool:
    """Whether this is a scheme, a host and at most a port, in lower case."""
    scheme, _, host = text.partition("://")
    # "*." is allowed in a host's name, but browsers send origins without it.
    return scheme.isalpha() and not host.startswith("*") and _HOST.fullmatch(host) is not None


def _concrete(host: str) -> str | None:
    """`host` as a `Host` header names it; None for an address that stands for all of a machine's."""
    try:
        address = ip_address(host)
    except ValueError:
        return host.lower() or None
    # An address to listen on, and not one that clients ask for.
    if address.is_unspecified:
        return None
    return f"[{address}]" if address.version == 6 else str(address)
