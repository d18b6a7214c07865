"""Refused requests count against the address that they come from.

A credential is counted where it is resolved, a guest where it is made. A request that is refused before that, for its
body or its path, has cost its share all the same.
"""

import asyncio
from collections.abc import Awaitable, Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agent_server.errors import AgentServerError, Unavailable
from agent_server.http.middleware import COUNTED, mark_counted
from agent_server.http.statuses import status_of

CountAddress = Callable[[str | None], Awaitable[None]]
"""Counts a request from an address. Raises TooMany."""

_LONGEST_WAIT = 1.0
"""Seconds. A refusal does not wait longer for a database that is away or busy."""


class CountingMiddleware:
    """Counts what is refused inside of it and was not counted there. Over the limit the refusal is TooMany."""

    def __init__(self, app: ASGIApp, *, count: CountAddress) -> None:
        self._app, self._count = app, count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start" and 400 <= message["status"] < 500:
                await self._count_refusal(scope)
            await send(message)

        try:
            await self._app(scope, receive, send_counted)
        except AgentServerError as error:
            # A failure of the server's own is nobody's act.
            if status_of(type(error)) < 500:
                await self._count_refusal(scope)
            raise

    async def _count_refusal(self, scope: Scope) -> None:
        if scope["state"].get(COUNTED):
            return
        # First, since the refusal that is raised below comes by here again.
        mark_counted(scope)
        try:
            async with asyncio.timeout(_LONGEST_WAIT):
                await self._count(scope["client"] and scope["client"][0])
        except (TimeoutError, Unavailable):
            return
