"""A balancer that adds a key: the conformance suite has no way to send one."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from agent_server.testing.serving import serving

_OF_CONNECTIONS = frozenset({"transfer-encoding", "connection", "content-length", "keep-alive"})


_LOOK_SECONDS = 0.1
"""How often a balancer asks who is ready."""


@asynccontextmanager
async def balance(bases: Sequence[str], key: str, *, asks: bool = False) -> AsyncIterator[str]:
    """The address of a server that hands requests on to those at `bases` in turn, with a key. One that `asks` whether
    they are ready hands on to those that were a moment ago, and `bases` may change."""
    turns, ready = count(), list(bases)

    async def look() -> None:
        while True:
            asked = list(bases)
            answers = await asyncio.gather(*(http.get(f"{base}/readyz") for base in asked), return_exceptions=True)
            pairs = zip(asked, answers, strict=True)
            ready[:] = [base for base, answer in pairs if isinstance(answer, httpx.Response) and answer.is_success]
            await asyncio.sleep(_LOOK_SECONDS)

    async def hand_on(request: Request) -> Response:
        headers = [(name, value) for name, value in request.headers.items() if name not in _OF_CONNECTIONS]
        content, answer = await request.body(), None
        while answer is None:
            if not ready:
                await asyncio.sleep(_LOOK_SECONDS)
                continue
            sent = http.build_request(
                request.method,
                ready[next(turns) % len(ready)] + request.url.path,
                headers=[*headers, ("authorization", f"Bearer {key}")],
                content=content,
            )
            # Nobody has had it, so another one may: as balancers do.
            with suppress(httpx.ConnectError):
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
        looking = asyncio.create_task(look()) if asks else None
        try:
            yield address
        finally:
            if looking is not None:
                looking.cancel()
