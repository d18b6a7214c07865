"""The way to a server at an address, with a bound for all that it sends.

redirects          not followed but within the server's own origin (the SDK's rule)
another address    refused (`addresses`)
a large answer     cut off; compressed ones are refused, since a few bytes could stand for very many
a stream of GET    opened only to go on with one that was broken off: nothing here listens to a server's own events
"""

import json
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import structlog
from mcp.client.streamable_http import streamable_http_client

from agent_server.outside.addresses import AddressRefused, find_address
from agent_server.outside.servers import OutsideServer

log = structlog.get_logger()

MOST_BYTES = 8 * 1024 * 1024
"""Longest answer, with all that is sent while it is waited for."""
MOST_EVENTS = 2_000
MOST_CHUNKS = 20_000
LOST = -32_000
"""The code of JSON-RPC by which the SDK says that a connection is closed."""
OURS = secrets.token_hex(16)
"""What no server can know: by it an error that was made here is told from one that was sent."""
_END_TIMEOUT = httpx2.Timeout(2.0)
_TIMEOUT = httpx2.Timeout(10.0, read=300.0)


class TooMuch(httpx2.StreamError):
    """An answer is longer than it may be."""


@asynccontextmanager
async def open_url(server: OutsideServer, headers: Mapping[str, str]) -> AsyncIterator[Any]:
    """The streams of messages from and to a server at an address."""
    assert server.url is not None
    sent = {"Accept-Encoding": "identity", **headers}
    transport = GuardedTransport(server)
    # trust_env: a proxy of the environment would be told of the request, and resolve its host again.
    async with (
        httpx2.AsyncClient(headers=sent, transport=transport, timeout=_TIMEOUT, trust_env=False) as client,
        streamable_http_client(server.url, http_client=client, max_sse_event_size=MOST_BYTES) as streams,
    ):
        yield streams


class GuardedTransport(httpx2.AsyncBaseTransport):
    """Sends the requests to one server. What keeps one from an answer becomes an answer to that request alone, because
    the SDK ends all that are open when one of them raises."""

    def __init__(self, server: OutsideServer) -> None:
        self._server = server
        self._inner = httpx2.AsyncHTTPTransport(trust_env=False)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "GET" and "last-event-id" not in request.headers:
            return httpx2.Response(405)
        if request.method == "DELETE":  # the end of a session, for which no stop of ours waits long
            request.extensions = {**request.extensions, "timeout": _END_TIMEOUT.as_dict()}
        try:
            response = await self._inner.handle_async_request(await self._pin(request))
        except AddressRefused as error:
            return _refuse(str(error))
        except (httpx2.TransportError, OSError) as error:
            log.info("outside.unreachable", server=self._server.name, error=type(error).__name__)
            return _refuse(f"it cannot be reached ({type(error).__name__})")
        if response.has_redirect_location:
            await response.aclose()
            return _refuse("it redirects to another address, which is not followed; name that one in mcp.yaml")
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            await response.aclose()
            return _refuse("it sends a compressed answer, which it was not asked for")
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = BoundedStream(response.stream)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _pin(self, request: httpx2.Request) -> httpx2.Request:
        """The request to the address of its host. `Host` and the name in the certificate stay as they were."""
        url = request.url
        port = url.port or (443 if url.scheme == "https" else 80)
        address = await find_address(url.host, port, private=self._server.private)
        request.extensions = {**request.extensions, "sni_hostname": url.host}
        request.url = url.copy_with(host=address)
        return request


class BoundedStream(httpx2.AsyncByteStream):
    """A body of which `MOST_BYTES` are read, and `MOST_EVENTS` events."""

    def __init__(self, inner: httpx2.AsyncByteStream) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = events = chunks = 0
        async for chunk in self._inner:
            size, chunks = size + len(chunk), chunks + 1
            events += chunk.count(b"data:")
            if size > MOST_BYTES or events > MOST_EVENTS or chunks > MOST_CHUNKS:
                raise TooMuch(f"the answer has more than {MOST_BYTES} bytes or {MOST_EVENTS} events")
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()


def _refuse(why: str) -> httpx2.Response:
    # As an answer of JSON-RPC, because the SDK passes its text on.
    error = {"jsonrpc": "2.0", "id": None, "error": {"code": LOST, "message": why, "data": OURS}}
    return httpx2.Response(502, headers={"content-type": "application/json"}, content=json.dumps(error).encode())
