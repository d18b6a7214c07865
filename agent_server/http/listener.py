"""The app on a socket: which proxies are believed, how long a request may take, what is no HTTP."""

import asyncio
import sys
from functools import partial
from typing import Any, cast
from uuid import uuid4

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from agent_server.errors import AgentServerError
from agent_server.http.edge import HEAD_LIMIT, HEADERS_MESSAGE
from agent_server.http.errors import ErrorFormats
from agent_server.http.middleware import RawHeaders, guards
from agent_server.http.problems import PROBLEMS
from agent_server.http.statuses import BadRequest, HeadersTooLarge, status_of
from agent_server.settings import Settings

# Of what is no HTTP no path is known, and so no protocol.
_FORMATS = ErrorFormats(PROBLEMS, {})
GRACE = 2.0
"""Seconds beyond the body's timeout, so that the app's 408 comes first where the app is reading."""


def create_config(app: ASGIApp, settings: Settings) -> uvicorn.Config:
    """How uvicorn is to serve `app`."""
    protocol = partial(_Protocol, patience=settings.body_timeout + GRACE, guards=guards(settings.public_url))
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
        # h11: httptools keeps trailing white space in header values, which MCP's header checks refuse
        http=cast(type[asyncio.Protocol], protocol),
        # Every check is of HTTP requests: a web socket would pass them all by.
        ws="none",
        h11_max_incomplete_event_size=2 * HEAD_LIMIT,  # up to this the app says what is too large
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
    )


class _Protocol(H11Protocol):
    """uvicorn's protocol with an end to patience.

    A request that is not there `patience` seconds after its first byte, or a connection's first that long after it
    was opened, ends the connection. What is no HTTP is answered as the app would.
    """

    def __init__(self, *arguments: Any, patience: float, guards: RawHeaders, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._patience, self._guards = patience, guards
        self._deadline: asyncio.TimerHandle | None = None
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        # uvicorn would wait for ever for a head, and read for ever what was refused.
        self._deadline = self.loop.call_later(self._patience, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._complete()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        super().data_received(data)
        if self._refused or self.conn.their_state in (h11.IDLE, h11.SEND_BODY):
            if self._deadline is None:
                self._deadline = self.loop.call_later(self._patience, self.transport.close)
        else:
            self._complete()

    def _complete(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def send_400_response(self, msg: str) -> None:
        if (self.cycle is not None and not self.cycle.response_complete) or self.conn.our_state is not h11.IDLE:
            self.transport.close()  # in the middle of a request that is being answered
            return
        hint = getattr(sys.exception(), "error_status_hint", 400)
        too_large = hint == status_of(HeadersTooLarge)
        self._answer(
            HeadersTooLarge(HEADERS_MESSAGE) if too_large else BadRequest("This is no HTTP request; use http://")
        )
        # Closed with bytes unread, the connection would be reset, and the client might never see the answer.
        self._refused = True
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _answer(self, error: AgentServerError) -> None:
        response = _FORMATS.response(error, path="")
        own = [(b"x-request-id", uuid4().hex.encode()), (b"connection", b"close")]
        headers = [*response.raw_headers, *own, *self._guards]
        for event in (
            h11.Response(status_code=response.status_code, headers=headers),
            h11.Data(data=bytes(response.body)),
            h11.EndOfMessage(),
        ):
            self.transport.write(bytes(self.conn.send(event) or b""))
