"""HEAD: what GET would be answered with, without the body."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class _Enough(Exception):
    """The head has been sent, and the body would be made for nobody."""


class HeadMiddleware:
    """Answers HEAD as GET. The app knows GET alone."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            if message["type"] != "http.response.start":
                return
            await send(message)
            await send({"type": "http.response.body", "body": b""})
            # An event stream may go on for as long as a turn does.
            if Headers(raw=message["headers"]).get("content-type", "").startswith("text/event-stream"):
                raise _Enough

        try:
            await self._app({**scope, "method": "GET"}, receive, send_head)
        except _Enough:
            return
