"""Composition of a process's parts and of the ASGI app over them."""

import gc
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from mcp.server.lowlevel import Server as McpServer

from agent_server.api import create_routers
from agent_server.api.counting import CountingMiddleware
from agent_server.api.head import HeadMiddleware
from agent_server.api.health import PROBES
from agent_server.caller import Caller
from agent_server.calls.call import Runtime
from agent_server.calls.forms import FormTools
from agent_server.db import Database
from agent_server.db.embedded import EMBEDDED_USER, as_user, start_embedded
from agent_server.db.migrate import find_missing_tables, make_tables, revisions, upgrade
from agent_server.errors import InvalidInput
from agent_server.housekeeping import expire_confirmations, expire_guests, expire_logins
from agent_server.http import errors, openapi
from agent_server.http.edge import BodyMiddleware, CorsMiddleware, EdgeMiddleware
from agent_server.http.errors import ErrorFormats
from agent_server.http.middleware import BugMiddleware, RefusalMiddleware, RequestMiddleware
from agent_server.http.problems import PROBLEMS
from agent_server.identity.limits import expire_rates
from agent_server.identity.resolver import create_resolver
from agent_server.jobs import Job, Jobs
from agent_server.knowledge.embedders import get_embedder
from agent_server.knowledge.embedders.base import Embedder
from agent_server.knowledge.ingest import ingest
from agent_server.knowledge.search import DocumentSummary, list_documents, read_document
from agent_server.mcp import Documents, canonical_address, create_mcp_server, mcp_app
from agent_server.models.choice import choose_model
from agent_server.models.providers import Models
from agent_server.orchestrator.run import Orchestrator
from agent_server.protocols import find_protocols
from agent_server.protocols.base import Protocol
from agent_server.routing import Router
from agent_server.server import Server
from agent_server.settings import Settings
from agent_server.turns.hub import Hub
from agent_server.turns.prune import prune_turns
from agent_server.turns.replica import Replica
from agent_server.turns.runner import Runner
from agent_server.version import VERSION
from agent_server.wording import count
from agent_server.workspace import Workspace

INGEST = "ingest"


def connect(settings: Settings) -> Database:
    """The database of the settings or else the embedded server with its data under the workspace's `.data/`.

    Raises Unavailable when the embedded server does not start, InvalidInput where a deployed server has no database.
    """
    given = (settings.database_url, settings.database_direct_url, settings.database_owner_url)
    url, direct_url, owner_url = (None if one is None else one.get_secret_value() for one in given)
    if url is None and settings.deployed:
        raise InvalidInput("DATABASE_URL: is not set; the embedded PostgreSQL is for one's own machine")
    if url is None:
        owner_url = start_embedded(settings.workspace.resolve() / ".data")
        url = as_user(owner_url, EMBEDDED_USER)
    return Database(
        url, direct_url, owner_url, pool_size=settings.database_pool_size, pool_timeout=settings.database_pool_timeout
    )


async def migrate(settings: Settings, workspace: Workspace, database: Database) -> Sequence[str]:
    """Bring the database to this version and return the tables that were made without a migration.

    Raises InvalidInput where the settings say not to, and where a workspace's tables have no migration in production.
    """
    missing = (await revisions(database, workspace.root)).pending
    if missing and not settings.migrate:
        raise InvalidInput(
            f"{count(len(missing), 'migration', ('is', 'are'))} pending; run `agent-server db upgrade`, or set AGENT_SERVER_MIGRATE=true"
        )
    if missing:
        await upgrade(database, workspace.root)
    tables = await find_missing_tables(database)
    names = [table.name for table in tables]
    # While a workspace is being written its tables are made as declared. A deployed one must be able to go back.
    if names and settings.deployed:
        raise InvalidInput(
            f"no migration makes the tables {', '.join(names)}; write one with `agent-server db revision MESSAGE`"
        )
    if tables:
        await make_tables(database, tables)
    # In development one address is enough, whose user may be the superuser.
    await database.check_isolation(login_too=settings.deployed)
    return names


def create_server(
    settings: Settings,
    workspace: Workspace,
    database: Database,
    *,
    transport: Any = None,
    router: Router | None = None,
) -> Server:
    """The parts of a process that does not run yet.

    `transport` is the way to an OpenAI-compatible model (`Models`). `router` is one that was built before for the same
    workspace; whoever makes many servers of one workspace saves a second on each.
    """
    embedder = get_embedder(settings.embedder)
    forms = FormTools({tool.name: tool for tool in workspace.tools.values() if tool.form})
    runtime = Runtime(settings=settings, database=database, resources={Embedder: embedder, FormTools: forms})
    model, replica = choose_model(settings), Replica(database)
    hub = Hub(database, send=replica.signals.send)
    orchestrator = Orchestrator(runtime, workspace, Models(settings, transport=transport), model, embedder, router)
    resolver = create_resolver(settings, database, agents=workspace.agent_scopes, staff=workspace.staff_scopes)
    runner = Runner(
        database,
        replica,
        hub,
        orchestrator.run,
        renew=resolver.renew,
        slots=settings.turns_per_process,
        waiting=settings.waiting_per_process,
        turn_timeout=settings.turn_timeout,
    )
    jobs = Jobs(
        database,
        [
            Job(INGEST, lambda: ingest(database, embedder, workspace.content)),
            Job(
                "prune_events",
                lambda: prune_turns(database, event_hours=settings.event_hours, call_hours=settings.call_hours),
                every=600,
            ),
            Job("expire_guests", lambda: expire_guests(database), every=3600),
            Job("expire_logins", lambda: expire_logins(database), every=3600),
            Job("expire_confirmations", lambda: expire_confirmations(database), every=3600),
            Job("expire_rates", lambda: expire_rates(database), every=3600),
        ],
    )
    return Server(
        runtime=runtime,
        workspace=workspace,
        resolver=resolver,
        hub=hub,
        runner=runner,
        jobs=jobs,
        model=model,
        prepare=orchestrator.get_router,
    )


def create_app(server: Server, protocols: Sequence[Protocol] | None = None) -> FastAPI:
    """The ASGI app of a process that speaks `protocols`, by default all that there are. Its lifespan runs the turns."""
    protocols = find_protocols() if protocols is None else protocols

    resource = canonical_address(server.settings)

    async def resolve(token: str, /, *, address: str | None) -> Caller:
        return await server.resolver.resolve(token, address=address, audience=() if resource is None else (resource,))

    mcp = mcp_app(
        server.runtime,
        server.workspace.tools,
        name=server.settings.title,
        version=VERSION,
        instructions=instructions(server.workspace),
        resolve=resolve,
        documents=documents(server),
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await server.runner.start()
        await server.jobs.start()
        # What start-up made lives as long as the process: the collector need not look at it again. Without this it
        # took 18 to 43 % of the time of MCP calls, in pauses of about 100 ms.
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 20, 50)
        async with mcp.run():
            yield
        await server.jobs.close()
        await server.runner.close()
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
    app.state.server = server
    formats = ErrorFormats(PROBLEMS, {protocol.prefix: protocol.errors for protocol in protocols})
    _add_middleware(app, server, formats)
    errors.install(app)
    spoken = [protocol.router for protocol in protocols if protocol.router is not None]
    for router in (*create_routers(server.workspace), *spoken, mcp.metadata):
        # Not by `include_router`: it builds each route anew with the first request, which then holds up the process.
        app.router.routes.extend(router.routes)
    app.router.routes.extend(mcp.routes)
    _add_page(app)
    openapi.describe(app, formats)
    return app


def _add_middleware(app: FastAPI, server: Server, formats: ErrorFormats) -> None:
    """From the inside out. What is added last is asked first."""
    settings = server.settings

    async def count(address: str | None) -> None:
        async with server.database.transaction() as session:
            await server.resolver.count_address(session, address)

    app.add_middleware(HeadMiddleware)
    app.add_middleware(BodyMiddleware, limit=settings.body_limit, timeout=settings.body_timeout)
    app.add_middleware(CountingMiddleware, count=count)
    # Inside of CORS, both of them: pages of other origins must be able to read why they were refused.
    app.add_middleware(RefusalMiddleware, formats=formats)
    app.add_middleware(BugMiddleware, formats=formats)
    if settings.cors_origins:
        app.add_middleware(CorsMiddleware, origins=settings.cors_origins)
    app.add_middleware(EdgeMiddleware, settings=settings, any_host=PROBES)
    # A second one, since what the edge raises does not pass the one further inside.
    app.add_middleware(RefusalMiddleware, formats=formats)
    app.add_middleware(RequestMiddleware, public_url=settings.public_url, quiet=PROBES)


def create_mcp(server: Server, caller: Caller) -> McpServer:
    """The MCP server for one client, who is `caller`."""
    return create_mcp_server(
        server.runtime,
        server.workspace.tools,
        name=server.settings.title,
        version=VERSION,
        instructions=instructions(server.workspace),
        caller=lambda: caller,
        documents=documents(server),
    )


def documents(server: Server) -> Documents:
    """The content as MCP resources."""

    async def list_all() -> Sequence[DocumentSummary]:
        async with server.database.transaction() as session:
            # Nobody is named: content is readable by all, and who may ask for it is decided by the scope below.
            return await list_documents(session)

    async def read(path: str) -> str:
        async with server.database.transaction() as session:
            return await read_document(session, path)

    return Documents(scope="knowledge:read", list_documents=list_all, read_document=read)


def instructions(workspace: Workspace) -> str:
    """What an MCP client is told of this server."""
    lines = [f"- {agent.name}: {agent.description}" for agent in workspace.specialists]
    return "Tools and content of this server. Its specialists, when asked by chat:\n" + "\n".join(lines)


def _add_page(app: FastAPI) -> None:
    static = files("agent_server.web") / "static"

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(str(static / "index.html"))

    app.mount("/static", StaticFiles(directory=str(static)), name="static")
