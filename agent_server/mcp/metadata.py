"""What an OAuth client is told of `/mcp`, and of each toolset below it, as a protected resource.

From the document of RFC 9728 and the challenges of RFC 6750 it learns where to get a token, for which resource (RFC
8707) and with which scopes.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agent_server.caller import Caller
from agent_server.errors import Forbidden, Unauthorized
from agent_server.identity.roles import staff_scopes
from agent_server.mcp.offers import Offers
from agent_server.oauth.grants import find_issuer
from agent_server.readable import Documents
from agent_server.settings import Settings
from agent_server.tool import Tool

PATH = "/mcp"
CHAT = "conversations:write"
"""What a caller needs to ask an agent."""
WELL_KNOWN = "/.well-known/oauth-protected-resource"

_HOST = re.compile(r"[A-Za-z0-9.-]+(:\d+)?|\[[0-9A-Fa-f:.]+\](:\d+)?")
# The document is public and the same for everybody, so pages of any origin may read it.
_OPEN = {"Access-Control-Allow-Origin": "*"}
_PREFLIGHT = {**_OPEN, "Access-Control-Allow-Methods": "GET", "Access-Control-Allow-Headers": "*"}


class ResourceMetadata(BaseModel):
    """RFC 9728, section 2. What has no values is left out (section 3.2)."""

    resource: str
    authorization_servers: list[str] | None = None
    scopes_supported: list[str] | None = None
    bearer_methods_supported: list[str]
    resource_name: str


def canonical_address(settings: Settings, path: str = PATH) -> str | None:
    """The resource that a token must be for in its `aud`.

    None where the server has not been told its public address.
    """
    public = settings.public_url
    return f"{public}{path}" if public else None


@dataclass(frozen=True, kw_only=True)
class Resource:
    """What is at `path` as OAuth clients see it. `audience` are the resources that a token may be for, and `reading` the
    scopes to begin with: more is asked for when it is needed. `purposes` are all scopes that anything here needs, those of
    staff among them, with what each is for."""

    path: str
    name: str
    address: str | None
    audience: tuple[str, ...]
    issuers: tuple[str, ...]
    scopes: frozenset[str]
    reading: frozenset[str]
    purposes: Mapping[str, Sequence[str]]

    def metadata(self, request: Request) -> ResourceMetadata:
        return ResourceMetadata(
            resource=self._base_address(request) + self.path,
            authorization_servers=list(self.issuers) or None,
            scopes_supported=sorted(self.scopes) or None,
            bearer_methods_supported=["header"],
            resource_name=self.name,
        )

    def challenge(
        self, request: Request, error: Unauthorized | Forbidden, *, caller: Caller | None, token_sent: bool
    ) -> str:
        """The `WWW-Authenticate` of a refusal. Whoever sent no token is told of no error, as RFC 6750 has it."""
        # RFC 6750 allows ASCII without the quote and the backslash.
        described = re.sub(r"[^ !#-\[\]-~]", "'", error.message)
        parameters: dict[str, str] = {}
        if isinstance(error, Forbidden):
            parameters = {"error": "insufficient_scope", "scope": self._scopes_to_ask(error, caller)}
        else:
            parameters = {"error": "invalid_token"} if token_sent else {}
            parameters["scope"] = " ".join(sorted(self.reading))
        if "error" in parameters:
            parameters["error_description"] = described
        parameters["resource_metadata"] = f"{self._base_address(request)}{WELL_KNOWN}{self.path}"
        return "Bearer " + ", ".join(f'{name}="{value}"' for name, value in parameters.items() if value)

    def _scopes_to_ask(self, error: Forbidden, caller: Caller | None) -> str:
        """The scope that is missing and those that the caller holds."""
        if error.scope is None:
            return ""
        # A new token for the missing scope alone would lose those that the caller holds.
        held = {scope for scope in self.scopes if caller is not None and caller.may(scope)}
        return " ".join(sorted({error.scope, *held}))

    def _base_address(self, request: Request) -> str:
        if self.address is not None:
            return self.address.removesuffix(self.path)
        # The host is the client's text and goes into a quoted header: what is no host is not repeated.
        host = request.headers.get("host", "")
        return f"{request.url.scheme}://{host if _HOST.fullmatch(host) else 'localhost'}"


def describe_resource(
    settings: Settings,
    path: str,
    name: str,
    tools: Iterable[Tool[..., Any]],
    documents: Documents | None,
    offers: Offers | None = None,
    *,
    more: Iterable[str] = (),
) -> Resource:
    """The resource that these tools, documents and offers make, with `more` scopes. Scopes for staff are left out: clients are not told to ask
    every user for them."""
    staff = set(staff_scopes())
    effects: dict[str, set[str]] = {"read": set(), "write": set()}
    purposes: dict[str, list[str]] = {}
    for tool in tools:
        if tool.staff:
            staff.add(tool.scope)
        effects["read" if tool.effect == "read" else "write"].add(tool.scope)
        purposes.setdefault(tool.scope, []).append(tool.title)
    if documents is not None:
        effects["read"].add(documents.scope)
    if offers is not None:
        effects["read"] |= {resource.scope for resource in offers.workspace.resources}
    effects["write"].update(more)
    address = canonical_address(settings, path)
    # A token for all of it is one for each part, and none for a part is one for more.
    accepted = dict.fromkeys((canonical_address(settings), address))
    return Resource(
        path=path,
        name=name,
        address=address,
        audience=tuple(each for each in accepted if each is not None),
        issuers=tuple(each for each in (find_issuer(settings), *(one.issuer for one in settings.issuers)) if each),
        scopes=frozenset((effects["read"] | effects["write"]) - staff),
        reading=frozenset(effects["read"] - staff),
        purposes={scope: purposes.get(scope, []) for scope in (*effects["read"], *effects["write"])},
    )


def metadata_router(resources: Sequence[Resource]) -> APIRouter:
    """The documents of all resources, of which the first is that of `/mcp`."""
    router = APIRouter(tags=["mcp"])

    async def preflight() -> Response:
        return Response(status_code=204, headers=_PREFLIGHT)

    def add(path: str, name: str, resource: Resource) -> None:
        async def read(request: Request) -> JSONResponse:
            """Where a client of `/mcp` gets a token, and with which scopes (RFC 9728)."""
            return JSONResponse(resource.metadata(request).model_dump(exclude_none=True), headers=_OPEN)

        router.add_api_route(path, read, methods=["GET"], response_model=ResourceMetadata, name=name)
        router.add_api_route(path, preflight, methods=["OPTIONS"], include_in_schema=False)

    # RFC 9728 puts the path of the resource at the end. Clients that find nothing there ask without it.
    add(WELL_KNOWN, "resource_metadata", resources[0])
    for resource in resources:
        add(WELL_KNOWN + resource.path, resource.path.strip("/").replace("/", "_") + "_resource_metadata", resource)
    return router
