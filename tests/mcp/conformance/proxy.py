"""A balancer that adds a key: the conformance suite has no way to send one."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import cycle

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from agent_server.testing.serving import serving

_OF_CONNECTIONS = frozenset({"transfer-encoding", "connection", "content-length", "keep-alive"})


@asynccontextmanager
async def balance(bases: Sequence[str], key: str) -> AsyncIterator[str]:
    """The address of a server that hands requests on to those at `bases` in turn, with a key."""
    turns = cycle(bases)

    async def hand_on(request: Request) -> Response:
        headers = [(name, value) for name, value in request.headers.items() if name not in _OF_CONNECTIONS]
        sent = http.build_request(
            request.method,
            next(turns) + request.url.path,
            headers=[*headers, ("authorization", f"Bearer {key}")],
            content=await request.body(),
        )
        answer = await http.send(sent, stream=True)

        async def body() -> AsyncIterator[bytes]:
            try:
                async for chunk in answer.aiter_raw():
                    yield chunk
            except httpx.TransportError:
                return
            finally:
                await answer.aclose()

        kept = {name: value for name, value in answer.headers.items() if name not in _OF_CONNECTIONS}
        return StreamingResponse(body(), answer.status_code, kept)

    app = Starlette(routes=[Route("/{path:path}", hand_on, methods=["GET", "POST", "DELETE", "OPTIONS"])])
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=None, limits=limits) as http, serving(app) as address:  # the suite has its own
        yield address
