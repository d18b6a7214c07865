"""HTTP to the server of a model."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import cache
from typing import Protocol
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx

from agent_server.models.faults import broken_answer, unreachable
from agent_server.settings import Settings

MOST_CONNECTIONS = 1_000
"""Connections at once, as many as the openai package opens."""


@dataclass(frozen=True)
class Incoming:
    """A response whose body is still to come. The names of its headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    blocks: AsyncIterator[bytes]


class Wire(Protocol):
    """The way to a server. Leaving a request's block closes its connection at once where the body is not read to its
    end."""

    def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> AbstractAsyncContextManager[Incoming]:
        """Make a request. Raises Fault where no response comes, and while its body is read."""

    async def close(self) -> None:
        """Close all connections."""


class Network:
    """The network. Connections are kept for later requests; proxies and certificates are the environment's."""

    def __init__(self, settings: Settings) -> None:
        self._timeout = aiohttp.ClientTimeout(
            total=settings.model_call_timeout, sock_connect=settings.model_connect_timeout
        )
        self._session: aiohttp.ClientSession | None = None
        # One over plain HTTP, as many a model in the own network is, needs no certificates: they take 1 MB.
        self._secure = not (settings.openai_base_url or "").startswith("http:")
        self._certificates: ssl.SSLContext | None = None

    async def prepare(self) -> None:
        """Make the session. Its certificates are read in a thread. No connection is made."""
        if self._session is None:
            # Names of hosts are looked up in this encoding.
            await asyncio.to_thread("".encode, "idna")
            if self._secure:
                self._certificates = await asyncio.to_thread(httpx.create_ssl_context)
            self._open()

    @asynccontextmanager
    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> AsyncGenerator[Incoming]:
        if urlsplit(url).username:  # goes in place of the key
            headers = {name: value for name, value in headers.items() if name != "Authorization"}
        try:
            response = await self._open().request(
                method, url, data=body, headers=headers, proxy=_find_proxy(urlsplit(url).scheme, urlsplit(url).netloc)
            )
        # TimeoutError: a connection that was not made in time. ValueError: an address that is none.
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise unreachable() from error
        headers = {name.lower(): value for name, value in response.headers.items()}
        async with response:
            try:
                yield Incoming(response.status, headers, response.content.iter_any())
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise broken_answer() from error

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            if self._certificates is None and self._secure:
                self._certificates = httpx.create_ssl_context()
            # httpx knows the authorities of certifi, where the machine itself has none, and SSL_CERT_FILE.
            connector = aiohttp.TCPConnector(limit=MOST_CONNECTIONS, ssl=self._certificates or True)
            # With `trust_env` it would look for a password in ~/.netrc before each request, and refuse the key beside one.
            self._session = aiohttp.ClientSession(
                connector=connector, timeout=self._timeout, cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


@cache
def _find_proxy(scheme: str, host: str) -> str | None:
    """The address of the proxy that the environment names for a server."""
    proxies = getproxies()
    proxy = None if proxy_bypass(host.rpartition("@")[2]) else proxies.get(scheme) or proxies.get("all")
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"
