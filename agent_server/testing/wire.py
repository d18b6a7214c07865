"""A model in OpenAI's Chat Completions, reached through a socket or without one.

Either way the server's own client of a provider is what runs: tests meet the code that users meet.
"""

import importlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from openai import DefaultAsyncHttpxClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from agent_server.models.faults import broken_answer
from agent_server.models.lean.wire import Incoming
from agent_server.testing.serving import serving

JSON = "application/json"
EVENTS = "text/event-stream"


@dataclass(frozen=True)
class Reply:
    """An answer to one request."""

    status: int
    body: AsyncGenerator[bytes]
    media_type: str = EVENTS
    headers: Mapping[str, str] = field(default_factory=dict)


class OpenAIModel(Protocol):
    """What answers requests for Chat Completions. `complaint` is what a failed test should say of it."""

    name: str
    complaint: str | None

    async def reply(self, request: dict[str, Any]) -> Reply:
        """Answer one request."""


def refuse(status: int, message: str, headers: Mapping[str, str] | None = None) -> Reply:
    """An error in OpenAI's shape."""
    return Reply(status, chunks(json.dumps({"error": {"message": message}}).encode()), JSON, headers or {})


async def chunks(*parts: bytes) -> AsyncGenerator[bytes]:
    """A body in these parts."""
    for part in parts:
        yield part


async def answer_request(model: OpenAIModel, request: Request) -> Response:
    """The HTTP response of `model` to a request for a completion."""
    reply = await model.reply(await request.json())
    return StreamingResponse(reply.body, reply.status, dict(reply.headers), reply.media_type)


@asynccontextmanager
async def serve_openai(model: OpenAIModel) -> AsyncIterator[str]:
    """Serve `model` on a free port of this machine; yields what OPENAI_BASE_URL takes."""

    async def completions(request: Request) -> Response:
        return await answer_request(model, request)

    async def models(_: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": model.name, "object": "model"}]})

    routes = [Route("/v1/chat/completions", completions, methods=["POST"]), Route("/v1/models", models)]
    async with serving(Starlette(routes=routes)) as base:
        yield f"{base}/v1"


# The openai package is built on httpx up to its version 2 and on httpx2 since.
_http: Any = importlib.import_module(DefaultAsyncHttpxClient.__mro__[1].__module__.partition(".")[0])


class InProcess(_http.AsyncBaseTransport):  # type: ignore[misc]  # known when it runs
    """Hands the requests of the lean client, and of the openai package, to `model` without a socket."""

    def __init__(self, model: OpenAIModel) -> None:
        self._model = model

    @asynccontextmanager
    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> AsyncGenerator[Incoming]:
        """Answer a request of the lean client. `method`, `url` and `headers` are those of every request."""
        reply = await self._model.reply(json.loads(body or b"{}"))
        # A client that goes away in mid answer must end the generator now, not when it is collected.
        async with aclosing(_break_off(reply.body)) as blocks:
            sent = {name.lower(): value for name, value in reply.headers.items()}
            yield Incoming(reply.status, {"content-type": reply.media_type, **sent}, blocks)

    async def close(self) -> None:
        """There is no connection to close."""

    async def handle_async_request(self, request: Any) -> Any:
        reply = await self._model.reply(json.loads(await request.aread()))
        headers = {"Content-Type": reply.media_type, **reply.headers}
        return _http.Response(reply.status, headers=headers, stream=_Body(reply.body))


async def _break_off(body: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """The parts of a body. A connection that is cut is what the network makes of it."""
    async with aclosing(body) as parts:
        try:
            async for part in parts:
                yield part
        except ConnectionResetError as error:
            raise broken_answer() from error


class _Body(_http.AsyncByteStream):  # type: ignore[misc]  # known when it runs
    def __init__(self, body: AsyncGenerator[bytes]) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        # A client that goes away in mid answer must end the generator now, not when it is collected.
        async with aclosing(self._body) as parts:
            try:
                async for part in parts:
                    yield part
            except ConnectionResetError as error:
                raise _http.ReadError(str(error)) from error  # as it comes from a socket

    async def aclose(self) -> None:
        await self._body.aclose()
