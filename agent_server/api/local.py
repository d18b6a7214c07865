"""What is for a developer's own machine alone: elsewhere there is nothing at its address."""

import re
from collections.abc import Iterator
from ipaddress import IPv6Address, ip_address
from typing import Annotated

from starlette.types import ASGIApp, Receive, Scope, Send

from agent_server.caller import Caller
from agent_server.errors import NotFound
from agent_server.http.auth import member_with
from agent_server.settings import Settings

DEVELOPER = "/dev"
"""The path of the developer page, and what the paths of all that it asks begin with."""

DeveloperDep = Annotated[Caller, member_with("*")]
"""The developer, who may all: the local user does."""

_HOST = re.compile(rb"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)
_FORWARDED = re.compile(
    rb"x-forwarded(-.*)?|forwarded|via|x-real-ip|x-original-.*|(x-|true-|x-cluster-|fly-|cf-.*)client-ip|cf-.*"
)
"""Headers that proxies add to what they pass on."""


class LocalMiddleware:
    """Answers what is under `DEVELOPER` as an address where there is nothing, unless the request `is_local`."""

    def __init__(self, app: ASGIApp, *, settings: Settings) -> None:
        self._app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asks = scope["type"] == "http" and (scope["path"] + "/").startswith(f"{DEVELOPER}/")
        if asks and not is_local(scope, self._settings):
            raise NotFound("There is nothing at this address; see /docs")
        await self._app(scope, receive, send)


def is_local(scope: Scope, settings: Settings) -> bool:
    """Whether a request comes from the developer's own machine, through no proxy, and from no page but ours."""
    if settings.environment != "development" or settings.trusted_proxies or settings.public_url:
        return False
    # Many proxies speak 1.0 with what is behind them, and say nothing else of themselves.
    if scope["http_version"] == "1.0" or not _is_loopback(scope["client"]):
        return False
    hosts = list(_values(scope, b"host"))
    # By name: a page elsewhere may have had its own name lead to this machine.
    if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
        return False
    if any(_FORWARDED.fullmatch(name.lower()) for name, _ in scope["headers"]):
        return False
    if any(origin.lower() != b"http://" + hosts[0].lower() for origin in _values(scope, b"origin")):
        return False
    # A page elsewhere may lead here without saying where it is from, by a form or a link.
    return all(site in (b"same-origin", b"none") for site in _values(scope, b"sec-fetch-site"))


def _values(scope: Scope, name: bytes) -> Iterator[bytes]:
    return (value.strip() for key, value in scope["headers"] if key.lower() == name)


def _is_loopback(client: tuple[str, int] | None) -> bool:
    try:
        address = ip_address(client[0] if client else "")
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback
