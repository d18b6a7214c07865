"""Streamable HTTP at `/mcp` and, for the toolsets of the workspace, below it. It is stateless, so that any replica
answers any request."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from agent_server.calls.call import Runtime
from agent_server.mcp.metadata import CHAT, PATH, Resource, describe_resource, metadata_router
from agent_server.mcp.offers import Offers
from agent_server.mcp.open_calls import OpenCalls
from agent_server.readable import Documents
from agent_server.server import Server
from agent_server.tasks.tasks import Tasks
from agent_server.tool import Tool
from agent_server.toolsets import Toolset

if TYPE_CHECKING:
    from agent_server.mcp.auth import Resolve
    from agent_server.mcp.endpoint import Endpoint


class Door:
    """The ASGI app of one address.

    What answers is made by `prepare`, or else with the first request.
    """

    def __init__(self, path: str, instructions: str, create: "Callable[[str], Endpoint]") -> None:
        self._path, self._instructions, self._create = path, instructions, create
        self._creating, self._created, self._serving = asyncio.Lock(), asyncio.Event(), asyncio.Event()
        self._endpoint: Endpoint | None = None
        self._runs = False

    @property
    def routes(self) -> Sequence[Route]:
        """The address with and without a slash at its end."""
        # No mount, which would redirect one to the other: clients do not follow.
        return [Route(path, endpoint=self, include_in_schema=False) for path in (self._path, f"{self._path}/")]

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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = await self.prepare()
        if self._runs:
            await self._serving.wait()
        await endpoint.asgi(scope, receive, send)

    def start(self) -> asyncio.Task[None]:
        """Serve until the task is cancelled."""
        # In a task of its own, since the SDK's own must be entered and left in the same one.
        self._runs = True
        return asyncio.create_task(self._run())

    async def _run(self) -> None:
        await self._created.wait()
        async with (await self.prepare()).run():
            self._serving.set()
            await asyncio.Event().wait()


class McpApp:
    """The ASGI apps of `/mcp` and of the toolsets. They serve while `run()`, which works once, is open.

    `metadata` says where clients get a token for them. `parts` are those of the toolsets, by their names. Of `resources`,
    as OAuth clients see them, the first is the whole.
    """

    def __init__(
        self,
        resources: Sequence[Resource],
        whole: Door,
        parts: Mapping[str, Door],
        calls: OpenCalls,
        tasks: Tasks | None = None,
    ) -> None:
        self.resources, self.metadata = resources, metadata_router(resources)
        self._whole, self._parts, self._calls, self._tasks = whole, parts, calls, tasks

    @property
    def routes(self) -> Sequence[Route]:
        return [route for door in (self._whole, *self._parts.values()) for route in door.routes]

    async def prepare(self) -> "Endpoint":
        """Make what the first request to `/mcp` would have to wait for."""
        return await self._whole.prepare()

    async def instruct(self, instructions: str, toolsets: Mapping[str, Toolset]) -> None:
        """Tell clients this from now on, where a toolset does not describe itself."""
        await self._whole.instruct(instructions)
        for name, door in self._parts.items():
            described = toolsets[name].description if name in toolsets else None
            await door.instruct(described or instructions)

    async def drain(self, seconds: float) -> None:
        """Wait so long for the calls that are being made, before this process stops. What is left is answered with an
        error."""
        if self._tasks is None:
            await self._calls.drain(seconds)
        else:
            await asyncio.gather(self._calls.drain(seconds), self._tasks.runner.drain(seconds))

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        tasks = [door.start() for door in (self._whole, *self._parts.values())]
        if self._tasks is not None:
            self._tasks.runner.start()
        try:
            yield
        finally:
            if self._tasks is not None:
                await self._tasks.runner.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


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
    server: Callable[[], Server] | None = None,
    tasks: Tasks | None = None,
) -> McpApp:
    """`tools` and `documents` over HTTP for the callers that `resolve` finds by their token, and apart from that each
    toolset of what is offered. `calls` are those that are being answered; by default no other replica is told which are
    no longer wanted. Agents can be asked where `server` gives the parts of this process, and calls can be `tasks`."""
    open_calls = OpenCalls() if calls is None else calls

    def open_door(
        path: str,
        instructions: str,
        tools: Mapping[str, Tool[..., Any]],
        documents: Documents | None,
        offers: Offers | None,
    ) -> tuple[Door, Resource]:
        asked = server if offers is not None and offers.asks else None
        more = () if asked is None else (CHAT,)
        resource = describe_resource(runtime.settings, path, name, tools.values(), documents, offers, more=more)

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
                server=asked,
                tasks=tasks,
            )

        return Door(path, instructions, create), resource

    whole, resource = open_door(PATH, instructions, tools, documents, offers)
    resources, parts = [resource], {}
    if offers is not None:
        for key, toolset in offers.workspace.toolsets.items():
            part = offers.narrow(key)
            content = documents if part.has_content else None
            described = toolset.description or instructions
            parts[key], resource = open_door(f"{PATH}/{key}", described, part.workspace.tools, content, part)
            resources.append(resource)
    return McpApp(resources, whole, parts, open_calls, tasks)
