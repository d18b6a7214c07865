"""One conversation with an outside server, of either generation of the protocol.

The SDK's client negotiates and speaks it. What it would do with untrusted text is left out: it compiles the schemas of
results, whose regular expressions could hold the process up, and logs what it could not read.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
import structlog
from mcp import Client, MCPError
from mcp.shared.dispatcher import ProgressFnT
from pydantic import TypeAdapter, ValidationError

from agent_server.db import storable
from agent_server.outside.connections import Answered, Lost
from agent_server.outside.http import LOST, OURS, open_url
from agent_server.outside.pages import Listed, Page, choose_resources, make_page
from agent_server.outside.pins import Declaration, declaration_of
from agent_server.outside.servers import VARIABLE, OutsideServer
from agent_server.outside.stdio import Errors, open_command
from agent_server.outside.variables import list_variables
from agent_server.version import VERSION

log = structlog.get_logger()

CONNECT_SECONDS = 10.0
LIST_SECONDS = 10.0
PAGES_SECONDS = 120.0
MOST_TOOLS = 500
MOST_PAGES = 50
_SECRET = 8
"""Shorter values are also words of answers, which must stay."""
_NO_ANSWER = "Server returned an error response"
"""What the SDK says of a status of HTTP behind which there is no answer of the protocol."""
_CALLED: TypeAdapter[types.CallToolResult | types.InputRequiredResult] = TypeAdapter(
    types.CallToolResult | types.InputRequiredResult
)

# They log what servers sent, with a traceback for each message: that is somebody else's text, and as much of it as
# somebody else likes.
for _name in ("client", "mcp.client", "mcp.shared"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


class Session:
    """What can be asked of a server. `has_changed` says that it has told of another list of tools."""

    def __init__(self, client: Client, errors: Errors, secrets: Collection[str]) -> None:
        self._client, self.errors, self._secrets = client, errors, secrets
        self.has_changed = False

    @property
    def version(self) -> str:
        return self._client.protocol_version

    async def list_tools(self) -> Mapping[str, Declaration]:
        """What the server declares, by its names. Raises Lost and Answered."""
        self.has_changed = False
        found: dict[str, Declaration] = {}
        cursor: str | None = None
        try:
            async with asyncio.timeout(LIST_SECONDS):
                for _ in range(MOST_PAGES):
                    asked = types.PaginatedRequestParams(cursor=cursor)
                    listed = await _translate(self._client.session.list_tools(params=asked))
                    for tool in listed.tools[: MOST_TOOLS - len(found)]:
                        # The first of a name: a second one would take its place on one replica and not on another.
                        declared = declaration_of(tool.model_dump(by_alias=True, mode="json"))
                        found.setdefault(tool.name, declared)
                    cursor = listed.next_cursor
                    if cursor is None or len(found) >= MOST_TOOLS:
                        break
        except TimeoutError:
            raise Lost(f"it did not list its tools within {LIST_SECONDS:g} seconds") from None
        return found

    async def read_pages(self, server: OutsideServer) -> list[Page]:
        """The resources that are knowledge. Those that are no text are left out. Raises Lost and Answered."""
        pages: list[Page] = []
        try:
            async with asyncio.timeout(PAGES_SECONDS):
                for collection, resource in choose_resources(server, await self._list_resources()):
                    params = types.ReadResourceRequestParams(uri=resource.uri)
                    request = types.ReadResourceRequest(params=params)
                    read = await _translate(self._client.session.send_request(request, types.ReadResourceResult))
                    texts = [each.text for each in read.contents if isinstance(each, types.TextResourceContents)]
                    if texts:
                        pages.append(make_page(server, collection, resource, storable("\n\n".join(texts))))
        except TimeoutError:
            raise Lost(f"its resources were not read within {PAGES_SECONDS:g} seconds") from None
        return pages

    async def _list_resources(self) -> list[Listed]:
        found: dict[str, Listed] = {}
        cursor: str | None = None
        for _ in range(MOST_PAGES):
            asked = types.PaginatedRequestParams(cursor=cursor)
            listed = await _translate(self._client.session.list_resources(params=asked))
            for each in listed.resources:
                uri = str(each.uri)
                found.setdefault(uri, Listed(uri, each.title or each.name or uri))
            cursor = listed.next_cursor
            if cursor is None:
                break
        return sorted(found.values(), key=lambda resource: resource.uri)

    async def call_tool(
        self,
        name: str,
        arguments: Mapping[str, Any],
        meta: Mapping[str, Any],
        tell: ProgressFnT,
    ) -> types.CallToolResult:
        """Call a tool by the server's name. Raises Lost and Answered."""
        params = types.CallToolRequestParams(name=name, arguments=dict(arguments), _meta=meta or None)
        request = types.CallToolRequest(params=params)
        answer: types.CallToolResult | types.InputRequiredResult = await _translate(
            self._client.session.send_request(request, _CALLED, progress_callback=tell)
        )
        if isinstance(answer, types.InputRequiredResult):
            raise Answered("It asks for more than the arguments, which is not supported here")
        return self._hide_secrets(answer)

    def _hide_secrets(self, answer: types.CallToolResult) -> types.CallToolResult:
        """The answer without what the server was sent for itself alone, which some repeat."""
        if not self._secrets:
            return answer
        text = hidden = answer.model_dump_json(by_alias=True, exclude_none=True)
        for secret in self._secrets:
            hidden = hidden.replace(json.dumps(secret)[1:-1], "[secret]")
        return answer if hidden == text else types.CallToolResult.model_validate_json(hidden, by_name=False)


async def _translate(request: Awaitable[Any]) -> Any:
    """The answer to a request. Raises Lost and Answered for what the SDK raises."""
    try:
        return await request
    except MCPError as error:
        if error.error.data == OURS:
            raise Lost(error.message) from None
        if error.code in (LOST, types.CONNECTION_CLOSED):
            raise Lost("the connection is closed", error.message) from None
        if error.message == _NO_ANSWER:
            raise Lost("it answers with an error of HTTP") from None
        raise Answered(error.message) from None
    except ValidationError as error:
        raise Answered(f"({error.error_count()} things in its answer are not as the protocol has them)") from None
    except (FileNotFoundError, PermissionError) as error:
        raise Lost(f"there is no program {error.filename!r}") from None
    except (anyio.ClosedResourceError, anyio.BrokenResourceError, OSError, RuntimeError):
        raise Lost("the connection is closed") from None


@asynccontextmanager
async def open_session(server: OutsideServer, root: Path) -> AsyncIterator[Session]:
    """A session with a server. Raises Lost, and whatever ends the connection later."""
    errors, variables = Errors(), list_variables(root)
    if missing := [name for name in server.variables if name not in variables]:
        raise Lost(f"{missing[0]} is not set, which it needs")
    if server.url is not None:
        transport = open_url(server, _fill_in(server.headers, variables))
    else:
        transport = open_command(server, _fill_in(server.env, variables), root, errors)
    heard: list[Session] = []

    async def hear(message: Any) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            for session in heard:
                session.has_changed = True

    info = types.Implementation(name="agent-server", version=VERSION)
    client = Client(transport, cache=None, client_info=info, message_handler=hear)
    timeout = asyncio.timeout(CONNECT_SECONDS)
    try:
        async with timeout:
            await _translate(client.__aenter__())
    except TimeoutError:
        raise Lost(f"it did not answer within {CONNECT_SECONDS:g} seconds", errors.text) from None
    except Answered as error:
        raise Lost("it does not speak MCP", str(error)) from None
    except Lost as error:
        raise Lost(str(error), errors.text or error.said) from None
    except Exception as error:  # noqa: BLE001  # a group of what the SDK's tasks met when the other side went away
        log.info("outside.not_connected", server=server.name, error=type(error).__name__)
        raise Lost("it cannot be reached", errors.text) from None
    session = Session(client, errors, [variables[name] for name in server.variables if len(variables[name]) >= _SECRET])
    heard.append(session)
    try:
        yield session
    finally:
        await client.__aexit__(None, None, None)


def _fill_in(texts: Mapping[str, str], variables: Mapping[str, str]) -> dict[str, str]:
    return {name: VARIABLE.sub(lambda found: variables[found[1]], text) for name, text in texts.items()}
