"""Requests keep a process awake, and wake one that has left its database alone."""

from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from agent_server.db.sleep import Sleep


class WakingMiddleware:
    """Counts each request as work until its answer has ended, a stream among them; `but` those of these paths."""

    def __init__(self, app: ASGIApp, *, sleep: Sleep, but: Collection[str]) -> None:
        self._app, self._sleep, self._but = app, sleep, but

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._but:
            await self._app(scope, receive, send)
            return
        with self._sleep.work():
            await self._app(scope, receive, send)
