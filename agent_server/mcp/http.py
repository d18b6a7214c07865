"""Streamable HTTP at `/mcp`. It is stateless, so that any replica answers any request."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from agent_server.calls.call import Runtime
from agent_server.mcp.documents import Documents
from agent_server.mcp.metadata import describe_resource, metadata_router
from agent_server.mcp.offers import Offers
from agent_server.mcp.open_calls import OpenCalls
from agent_server.tool import Tool

if TYPE_CHECKING:
    from agent_server.mcp.auth import Resolve
    from agent_server.mcp.endpoint import Endpoint


class McpApp:
    """The ASGI app of `/mcp`. It serves while `run()`, which works once, is open.

    `metadata` says where clients get a token for it. What answers is made by `prepare`, or else with the first request.
    """

    def __init__(
        self, metadata: APIRouter, instructions: str, create: "Callable[[str], Endpoint]", calls: OpenCalls
    ) -> None:
        self.metadata, self._instructions, self._create, self._calls = metadata, instructions, create, calls
        self._creating, self._created, self._serving = asyncio.Lock(), asyncio.Event(), asyncio.Event()
        self._endpoint: Endpoint | None = None
        self._runs = False

    @property
    def routes(self) -> Sequence[Route]:
        """`/mcp` and `/mcp/`."""
        # No mount, which would redirect one to the other: clients do not follow.
        return [Route(path, endpoint=self, include_in_schema=False) for path in ("/mcp", "/mcp/")]

    async def prepare(self) -> "Endpoint":
        """Make what the first request would have to wait for."""
        async with self._creating:
            if self._endpoint is None:
                # In a thread: the import takes a second or more.
                self._endpoint = await asyncio.to_thread(self._create, self._instructions)
                self._created.set()
        return self._endpoint

    async def instruct(self, instructions: str) -> None:
        """Tell clients this from now on."""
        async with self._creating:
            self._instructions = instructions
            if self._endpoint is not None:
                self._endpoint.server.instructions = instructions

    async def drain(self, seconds: float) -> None:
        """Wait so long for the calls that are being made, before this process stops. What is left is answered with an
        error."""
        await self._calls.drain(seconds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = await self.prepare()
        if self._runs:
            await self._serving.wait()
        await endpoint.asgi(scope, receive, send)

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        # In a task of its own, since the SDK's own must be entered and left in the same one.
        task, self._runs = asyncio.create_task(self._run()), True
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        await self._created.wait()
        async with (await self.prepare()).run():
            self._serving.set()
            await asyncio.Event().wait()


def mcp_app(
    runtime: Runtime,
    tools: Mapping[str, Tool[..., Any]],
    *,
    name: str,
    version: str,
    instructions: str,
    resolve: "Resolve",
    documents: Documents | None = None,
    offers: Offers | None = None,
    calls: OpenCalls | None = None,
) -> McpApp:
    """`tools` and `documents` over HTTP for the callers that `resolve` finds by their token. `calls` are those that are
    being answered; by default no other replica is told which are no longer wanted."""
    open_calls = OpenCalls() if calls is None else calls
    resource = describe_resource(runtime.settings, name, tools.values(), documents, offers)

    def create(instructions: str) -> "Endpoint":
        from agent_server.mcp.endpoint import create_endpoint  # noqa: PLC0415  # heavy

        return create_endpoint(
            runtime,
            tools,
            name=name,
            version=version,
            instructions=instructions,
            resolve=resolve,
            documents=documents,
            offers=offers,
            resource=resource,
            calls=open_calls,
        )

    return McpApp(metadata_router(resource), instructions, create, open_calls)
