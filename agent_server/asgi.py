"""The ASGI app over the parts of a process."""

import gc
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cache, partial
from importlib.resources import files
from typing import cast

from fastapi import APIRouter, FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from agent_server.api import create_routers
from agent_server.api.counting import CountingMiddleware
from agent_server.api.documents import FILES
from agent_server.api.head import HeadMiddleware
from agent_server.api.health import PROBES
from agent_server.api.local import LocalMiddleware
from agent_server.api.oauth import create_oauth_router
from agent_server.api.waking import WakingMiddleware
from agent_server.changes import Changes
from agent_server.http import errors, openapi
from agent_server.http.edge import BodyMiddleware, CorsMiddleware, EdgeMiddleware
from agent_server.http.errors import ErrorFormats
from agent_server.http.middleware import BugMiddleware, RefusalMiddleware, RequestMiddleware
from agent_server.http.problems import PROBLEMS
from agent_server.identity.accounts import Accounts
from agent_server.identity.resolver import create_resolver
from agent_server.mcp import McpApp, Offers, OpenCalls, Watching, mcp_app
from agent_server.mcp.carrying import carry_questions
from agent_server.mcp.metadata import PATH, Resource
from agent_server.mcp.process import tell_instructions
from agent_server.oauth.authority import Authority, Target
from agent_server.oauth.documents import Documents
from agent_server.oauth.grants import find_issuer
from agent_server.protocols import find_protocols
from agent_server.protocols.base import Protocol
from agent_server.readable import create_documents
from agent_server.server import Server
from agent_server.signals import CallLeft, QuestionAnswered
from agent_server.version import VERSION
from agent_server.workspace import Workspace


def create_app(
    server: Server,
    protocols: Sequence[Protocol] | None = None,
    *,
    routers: Sequence[APIRouter] | None = None,
    documents: Documents | None = None,
) -> FastAPI:
    """The ASGI app of a process that speaks `protocols`, by default all that there are. Its lifespan runs the turns.
    `routers` are those of another app of the same workspace; to make them takes half of the time. `documents` reads those
    by which OAuth clients are known."""
    protocols = find_protocols() if protocols is None else protocols
    changes: Changes = server.runtime.resources[Changes]
    offers = Offers(server.workspace, Watching(changes, server.resolver.renew, server.database))
    mcp = _create_mcp(server, offers, lambda: cast(Server, app.state.server))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await server.runner.start()
        await server.jobs.start()
        server.served.start()
        _freeze_first()
        async with mcp.run():
            yield
        await server.served.close()
        await server.jobs.close()
        await server.runner.close()
        await server.close_models()
        await server.resolver.close()

    app = FastAPI(
        title=server.settings.title,
        version=VERSION,
        # FastAPI's own pages load scripts from another server; `api.docs` has one that does not.
        docs_url=None,
        redoc_url=None,
        openapi_url=None,  # `api.docs` makes it off the event loop
        # They would hold what was sent, in the failures of validation and the messages of exceptions.
        telemetry={"logs": False},
        lifespan=lifespan,
    )
    app.state.server, app.state.mcp, app.state.take_over = server, mcp, partial(take_over, app)
    app.state.offers = offers
    formats = ErrorFormats(PROBLEMS, {protocol.prefix: protocol.errors for protocol in protocols})
    _add_middleware(app, server, formats)
    errors.install(app)
    spoken = [protocol.router for protocol in protocols if protocol.router is not None]
    own = (*(routers or create_routers(server.workspace)), *spoken, *_find_developers(server), mcp.metadata)
    for router in (*own, *_find_sign_in(server, mcp, documents)):
        # Not by `include_router`: it builds each route anew with the first request, which then holds up the process.
        app.router.routes.extend(router.routes)
    # First, since routes are asked in their order, and nothing else comes as often.
    app.router.routes[:0] = mcp.routes
    _add_page(app)
    openapi.describe(app, formats)
    return app


def _create_mcp(server: Server, offers: Offers, current: Callable[[], Server]) -> McpApp:
    return mcp_app(
        server.runtime,
        server.workspace.tools,
        name=server.settings.title,
        version=VERSION,
        instructions=tell_instructions(server.workspace, server.settings),
        resolve=server.resolver.resolve,
        documents=create_documents(server.database),
        offers=offers,
        calls=_create_calls(server),
        server=current,
        tasks=carry_questions(server, current),
    )


def _create_calls(server: Server) -> OpenCalls:
    """The MCP calls of this process. It hears from other replicas which are no longer wanted, and tells them."""
    replica = server.runner.replica
    calls = OpenCalls(lambda id: replica.send(CallLeft(id)), lambda id: replica.send(QuestionAnswered(id)))
    replica.signals.call_left, replica.signals.question_answered = calls.leave_here, calls.wake_here
    return calls


def _find_developers(server: Server) -> Sequence[APIRouter]:
    if server.settings.environment != "development":
        return ()
    from agent_server.api.developer import create_developer_routers  # noqa: PLC0415  # it imports evals, which a deployed server does not need

    return create_developer_routers()


def _find_sign_in(server: Server, mcp: McpApp, documents: Documents | None) -> Sequence[APIRouter]:
    """Where users let clients in, if they do so here."""
    issuer = find_issuer(server.settings)
    if issuer is None:
        return ()
    authority = Authority(
        issuer=issuer,
        settings=server.settings,
        database=server.database,
        accounts=Accounts(server.database, server.resolver),
        targets=[
            Target(address=each.address or "", name=_name_part(each), scopes=each.purposes, usual=each.scopes)
            for each in mcp.resources
        ],
        documents=documents or Documents(),
    )
    return (create_oauth_router(authority),)


def _name_part(resource: Resource) -> str:
    part = resource.path.removeprefix(PATH).strip("/")
    return f"{resource.name}: {part}" if part else resource.name


async def take_over(app: FastAPI, workspace: Workspace) -> None:
    """Have what is asked from now on answered by another version of the workspace, with the same tools."""
    server: Server = app.state.server
    await server.change(workspace)
    # All at once from here on: no request finds one part of the old version and another of the new.
    await app.state.mcp.instruct(tell_instructions(workspace, server.settings), workspace.toolsets)
    app.state.offers.replace(workspace)
    resolver = server.resolver
    new = create_resolver(server.settings, server.database, agents=workspace.agent_scopes, staff=workspace.staff_scopes)
    # Guests and roles may what the agents need now.
    resolver.guest_scopes, resolver.roles = new.guest_scopes, new.roles
    app.state.server = replace(server, workspace=workspace)


@cache
def _freeze_first() -> None:
    """Freeze what there is when the first app of a process starts."""
    # Not where the collector says that nothing is frozen yet: it counts all that is, which takes longer than the start.
    gc.collect()
    freeze()


def freeze() -> None:
    """Have the collector leave alone what there is now, which lives as long as the process."""
    gc.collect()
    # Without this it took 18 to 43 % of the time of MCP calls, in pauses of about 100 ms.
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


def _add_middleware(app: FastAPI, server: Server, formats: ErrorFormats) -> None:
    """From the inside out. What is added last is asked first."""
    settings = server.settings

    async def count(address: str | None) -> None:
        async with server.database.transaction() as session:
            await server.resolver.count_address(session, address)

    if settings.environment == "development":
        app.add_middleware(LocalMiddleware, settings=settings)
    app.add_middleware(HeadMiddleware)
    app.add_middleware(BodyMiddleware, limit=settings.body_limit, timeout=settings.body_timeout, files=FILES)
    app.add_middleware(CountingMiddleware, count=count)
    # Inside of CORS, both of them: pages of other origins must be able to read why they were refused.
    app.add_middleware(RefusalMiddleware, formats=formats)
    app.add_middleware(BugMiddleware, formats=formats)
    if settings.cors_origins:
        app.add_middleware(CorsMiddleware, origins=settings.cors_origins)
    app.add_middleware(EdgeMiddleware, settings=settings, any_host=PROBES)
    # A second one, since what the edge raises does not pass the one further inside.
    app.add_middleware(RefusalMiddleware, formats=formats)
    app.add_middleware(WakingMiddleware, sleep=server.sleep, but=PROBES)
    app.add_middleware(RequestMiddleware, public_url=settings.public_url, quiet=PROBES)


def _add_page(app: FastAPI) -> None:
    static = files("agent_server.web") / "static"

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(str(static / "index.html"))

    app.mount("/static", StaticFiles(directory=str(static)), name="static")
