"""Client ID metadata documents: a client whose id is the address of a document that says who it is.

    draft-ietf-oauth-client-id-metadata-document: https, a path, no redirects, `client_id` in it is its own address

The address is anybody's, so it leads to no address that is not public, is given 5 seconds and 16 kB, and is followed
nowhere. A document is read again after an hour.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver
from pydantic_core import from_json

from agent_server.internet import PublicResolver, is_public
from agent_server.oauth.clients import Described, clean_name, mistake_of_redirects

SECONDS, MOST_BYTES, LONGEST = 5.0, 16_384, 500
_PRIVATE = "leads to an address that is not public"


class BadDocument(Exception):
    """Why a client is not known by its document."""


@dataclass(frozen=True)
class Documents:
    """Reads documents. `resolver` makes what turns names into addresses, and `ssl` says whom to trust."""

    resolver: Callable[[], AbstractResolver] = lambda: PublicResolver(_PRIVATE)
    ssl: Any = True

    async def read(self, address: str) -> Described:
        """The client that its document describes. Raises BadDocument."""
        check_address(address)
        try:
            async with asyncio.timeout(SECONDS):
                body = await self._fetch(address)
        except TimeoutError:
            raise BadDocument(f"was not there within {SECONDS:g} seconds") from None
        except (aiohttp.ClientError, OSError) as error:
            refused = getattr(error, "os_error", error)
            raise BadDocument(_PRIVATE if _PRIVATE in str(refused) else "cannot be read") from None
        return _describe(address, body)

    async def _fetch(self, address: str) -> bytes:
        connector = aiohttp.TCPConnector(resolver=self.resolver(), use_dns_cache=False, ssl=self.ssl)
        # Not by a proxy of the environment: then it would be the proxy's address that is looked at.
        async with (
            aiohttp.ClientSession(connector=connector, trust_env=False, cookie_jar=aiohttp.DummyCookieJar()) as http,
            http.get(address, allow_redirects=False, headers={"Accept": "application/json"}) as answer,
        ):
            if answer.status != 200:
                raise BadDocument(f"answers {answer.status}, and must answer 200 at its own address")
            if not answer.content_type.endswith("json"):
                raise BadDocument("is no JSON")
            body = bytearray()
            async for part in answer.content.iter_chunked(4_096):
                body += part
                if len(body) > MOST_BYTES:
                    raise BadDocument(f"is larger than {MOST_BYTES} bytes")
            return bytes(body)


def is_document(client_id: str) -> bool:
    """Whether a client is known by a document."""
    return client_id.startswith("https://")


def check_address(address: str) -> None:
    """Raises BadDocument for an address that no document may have."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise BadDocument("has no address") from None
    if parts.scheme != "https" or not host or port == 0 or len(address) > LONGEST or not address.isascii():
        raise BadDocument(f"must have an https address of at most {LONGEST} characters")
    steps = parts.path.split("/")
    if parts.path in ("", "/") or "." in steps or ".." in steps or "\\" in address or not address.isprintable():
        raise BadDocument("must have a path, without . and ..")
    if "#" in address or "@" in parts.netloc or " " in address:
        raise BadDocument("must have no fragment, user name or password")
    try:
        # An address that is no name is connected to without the resolver.
        public = is_public(host)
    except ValueError:
        public = not host.replace(".", "").isdecimal()
    if not public:
        raise BadDocument(_PRIVATE)


def _describe(address: str, body: bytes) -> Described:
    try:
        said = from_json(body)
    except ValueError:
        raise BadDocument("is no JSON") from None
    if not isinstance(said, dict):
        raise BadDocument("is no JSON object")
    if said.get("client_id") != address:
        raise BadDocument("names another client_id than its own address")
    if said.get("token_endpoint_auth_method", "none") != "none" or "client_secret" in said:
        raise BadDocument("must have the token_endpoint_auth_method none")
    redirects = said.get("redirect_uris")
    if not isinstance(redirects, list) or not all(isinstance(each, str) for each in redirects):
        raise BadDocument("must list its redirect_uris")
    if mistake := mistake_of_redirects(redirects):
        raise BadDocument(mistake)
    name = said.get("client_name")
    host = urlsplit(address).hostname or address
    return Described(
        id=address,
        name=clean_name(name if isinstance(name, str) else "") or host,
        redirect_uris=tuple(redirects),
        method="none",
    )
