"""What answers at `/mcp`. Importing this module imports the MCP SDK: `mcp.http` does so with the first request."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from mcp.server.lowlevel import Server as McpServer
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from starlette.types import ASGIApp

from agent_server.caller import Caller
from agent_server.calls.call import Runtime, authorise_call
from agent_server.knowledge.resources import SCHEME
from agent_server.mcp.accept import AnyAccept
from agent_server.mcp.agents import AskAgent
from agent_server.mcp.auth import Authenticated, Authorise, Resolve, current_caller
from agent_server.mcp.direct import Direct
from agent_server.mcp.metadata import Resource
from agent_server.mcp.offers import Offers
from agent_server.mcp.open_calls import OpenCalls
from agent_server.mcp.server import create_mcp_server
from agent_server.mcp.sessions import create_stream
from agent_server.readable import Documents
from agent_server.server import Server
from agent_server.settings import Settings
from agent_server.tasks.tasks import Tasks
from agent_server.tool import Tool
from agent_server.toolsets import ASK_AGENT


@dataclass(frozen=True)
class Endpoint:
    """The ASGI app of `/mcp`. It serves while `run()`, which works once, is open."""

    server: McpServer
    asgi: ASGIApp
    run: Callable[[], AbstractAsyncContextManager[None]]


def create_endpoint(
    runtime: Runtime,
    tools: Mapping[str, Tool[..., Any]],
    *,
    name: str,
    version: str,
    instructions: str,
    resolve: Resolve,
    documents: Documents | None,
    offers: Offers | None,
    resource: Resource,
    calls: OpenCalls,
    server: Callable[[], Server] | None = None,
    tasks: Tasks | None = None,
) -> Endpoint:
    """`tools` and `documents` over HTTP for the callers that `resolve` finds by their token."""
    agents = None if server is None or ASK_AGENT in tools else AskAgent(server, tasks=tasks is not None)
    mcp = create_mcp_server(
        runtime,
        tools,
        name=name,
        version=version,
        instructions=instructions,
        caller=current_caller,
        documents=documents,
        offers=offers,
        agents=agents,
        tasks=tasks,
    )

    limit, security = runtime.settings.body_limit, _security(runtime.settings)
    manager = StreamableHTTPSessionManager(
        mcp,
        stateless=True,
        # A response in JSON drops progress, and lets a call run on when its client has left.
        json_response=False,
        security_settings=security,
        max_request_body_size=limit,
    )
    app = Authenticated(
        manager.handle_request,
        resolve=resolve,
        authorise=_create_check(runtime, tools, documents, offers, agents),
        body_limit=limit,
        resource=resource,
        calls=calls,
        stream=create_stream(runtime, documents, offers, tasks),
        database=runtime.database,
        direct=Direct(runtime, tools, mcp, security),
    )
    return Endpoint(mcp, AnyAccept(app), manager.run)


def _create_check(
    runtime: Runtime,
    tools: Mapping[str, Tool[..., Any]],
    documents: Documents | None,
    offers: Offers | None,
    agents: AskAgent | None,
) -> Authorise:
    """What refuses messages that their caller may not send."""

    async def authorise(caller: Caller, message: Any) -> None:
        match message:
            # A batch. The protocol refuses it, but a call in it must not pass unchecked in any case.
            case [*messages]:
                for one in messages:
                    await authorise(caller, one)
            case {"method": "tools/call", "params": {"name": str(key)}} if key in tools:
                await authorise_call(runtime, tools[key], caller=caller, surface="mcp")
            case {"method": "tools/call", "params": {"name": "ask_agent", **params}} if agents is not None:
                agents.authorise(caller, params.get("arguments"))
            case {"method": "resources/read", "params": {"uri": str(uri)}} if documents and uri.startswith(SCHEME):
                documents.authorise(caller)
            case {"method": method, "params": {**params}} if offers is not None:
                offers.authorise(caller, method, params)

    return authorise


def _security(settings: Settings) -> TransportSecuritySettings:
    """Which `Host` and `Origin` may be named."""
    # The SDK knows no patterns. Where there are some, its own check is off: `EdgeMiddleware` has made it by then.
    known, origins = settings.known_hosts, settings.cors_origins
    if "*" in origins or any(host.startswith("*") for host in known):
        return TransportSecuritySettings(enable_dns_rebinding_protection=False)
    hosts = [host + dot + port for host in known for dot in ("", ".") for port in ("", ":*")]
    own = [f"{scheme}://{host}" for host in hosts for scheme in ("http", "https")]
    return TransportSecuritySettings(allowed_hosts=hosts, allowed_origins=[*own, *origins])
