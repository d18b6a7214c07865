"""The MCP server. It lists what the caller may use, and hands each call to `call_tool`."""

import difflib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import mcp_types as types
from mcp.server.caching import CacheableMethod, CacheHint
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from agent_server.caller import Caller
from agent_server.calls.call import Runtime
from agent_server.errors import AgentServerError, Forbidden, quote_value
from agent_server.log import without_secrets
from agent_server.mcp.asking import Asking, find_client, name_missing
from agent_server.mcp.errors import error_data, render_errors
from agent_server.mcp.finding import NAME as FIND
from agent_server.mcp.finding import FindTools, choose_listed
from agent_server.mcp.listening import Heard, LogLevels
from agent_server.mcp.methods import add_methods
from agent_server.mcp.offers import Offers
from agent_server.mcp.own import Call, OwnTool
from agent_server.mcp.pages import refuse_cursor
from agent_server.mcp.resources import list_icons
from agent_server.mcp.subscriptions import WatchedServer
from agent_server.mcp.tasking import Tasking
from agent_server.mcp.tasks import TaskMethods, create_augmenting, read_key
from agent_server.mcp.tools import add_pictures, describe_all, render_failure, render_output
from agent_server.questions import Unasked
from agent_server.readable import Documents
from agent_server.settings import Settings
from agent_server.tasks.tasks import Tasks
from agent_server.tool import Tool

# Private, because a list depends on the scopes of its caller.
_LIST_CACHE = CacheHint(ttl_ms=60_000, scope="private")
_CACHE: Mapping[CacheableMethod, CacheHint] = {
    "tools/list": _LIST_CACHE,
    "prompts/list": _LIST_CACHE,
    "resources/list": _LIST_CACHE,
    "resources/templates/list": _LIST_CACHE,
    "resources/read": CacheHint(ttl_ms=0, scope="private"),
}

Context = ServerRequestContext[Any, Any]


def create_mcp_server(
    runtime: Runtime,
    tools: Mapping[str, Tool[..., Any]],
    *,
    name: str,
    version: str,
    instructions: str,
    caller: Callable[[], Caller],
    documents: Documents | None = None,
    offers: Offers | None = None,
    agents: OwnTool | None = None,
    tasks: Tasks | None = None,
    start: Callable[[], Awaitable[object]] | None = None,
) -> Server:
    """A server of `tools`, of `documents` as resources and of what else it `offers`. `caller` says who makes the request
    being answered, `agents` is the tool that asks them, `tasks` are those of its callers, if there may be any; `start`
    has this process run them, if it does not yet. A call fails as the model can read it (a result with `isError`), save
    for a tool that is not there or not the caller's to use: that is an error of the protocol."""
    levels = LogLevels()
    catalogue = _Catalogue(runtime.settings, tools, agents, tasks=tasks is not None)
    tasking = None if tasks is None else Tasking(runtime, tasks, tools, catalogue.own, start)

    async def list_tools(_: Context, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        refuse_cursor(params)
        return types.ListToolsResult(tools=catalogue.list_entries(caller()))

    async def call(context: Context, params: types.CallToolRequestParams) -> Any:
        me = caller()
        tool = tools.get(params.name)
        heard = Heard(context, levels)
        if tasking is not None and (answer := await _answer_task(tasking, context, params, me, heard)) is not None:
            return answer
        if tool is None:
            if (mine := catalogue.own.get(params.name)) is not None:
                return await _call_own(mine, Call(params.arguments or {}, me, heard, read_key(params)))
            # Only what this caller may use is suggested, since it is not told of the rest.
            raise _unknown_tool(params.name, catalogue.list_names(me))
        asking = Asking(runtime, tool, params, me, find_client(context), heard)
        return await call_and_render(asking, is_modern=context.protocol_version in MODERN_PROTOCOL_VERSIONS)

    server = WatchedServer(
        name,
        version=version,
        instructions=instructions,
        icons=list_icons(runtime.settings.mcp_icon),
        cache_hints=_CACHE,
        # Without this the SDK runs list_tools before every call, half as much work again.
        get_tool_input_schema=catalogue.find_schema,
        on_list_tools=list_tools,
        on_call_tool=call,
    )
    server.middleware.append(render_errors)
    server.add_request_handler("logging/setLevel", types.SetLevelRequestParams, levels.set)
    add_methods(server, runtime, documents, offers, caller)
    if tasks is not None and tasking is not None:
        server.middleware.append(create_augmenting(lambda context, params: tasking.augment(context, params, caller())))
        TaskMethods(tasks, tools, catalogue.own, caller, start).add(server)
    return server


class _Catalogue:
    """The tools that are served, with their entries in lists. `own` are those of MCP's own, by their names."""

    def __init__(
        self, settings: Settings, tools: Mapping[str, Tool[..., Any]], agents: OwnTool | None, *, tasks: bool
    ) -> None:
        self._settings, self._tools = settings, tools
        self._listed = describe_all(tools, output_schemas=settings.mcp_output_schemas, tasks=tasks)
        finder = None if settings.mcp_find_tools is None else FindTools(self._listed)
        # A tool of the workspace that has such a name goes before ours.
        self.own = {each.entry.name: each for each in (finder, agents) if each and each.entry.name not in tools}

    def list_entries(self, caller: Caller) -> list[types.Tool]:
        settings = self._settings
        entries, finds = choose_listed(self._listed, caller, settings.mcp_find_tools, settings.mcp_listed_tools)
        own = [each.entry for name, each in self.own.items() if each.may(caller) and (finds or name != FIND)]
        return [*own, *entries]

    def list_names(self, caller: Caller) -> list[str]:
        return [tool.name for tool, _ in self._listed if caller.may(tool.scope)]

    def find_schema(self, name: str) -> dict[str, Any] | None:
        if name in self.own:
            return self.own[name].entry.input_schema
        return self._tools[name].input_schema if name in self._tools else None


async def call_and_render(asking: Asking, *, is_modern: bool) -> types.CallToolResult | types.InputRequiredResult:
    """The result of a call, or the question that its client is to ask first. Raises Forbidden and MCPError."""
    try:
        async with asking.heard.beating():
            output = await asking.make()
    # An error of the protocol: the client must get a scope, and the model can do nothing about it.
    except Forbidden:
        raise
    except Unasked as error:
        # Of the protocol of 2026. A client of before has no such error.
        if is_modern:
            data = {**(error_data(error).data or {}), "requiredCapabilities": name_missing(error.needs)}
            raise MCPError(types.MISSING_REQUIRED_CLIENT_CAPABILITY, error.message, data) from error
        return render_failure(error)
    except AgentServerError as error:
        return render_failure(error)
    if isinstance(output, types.CallToolResult | types.InputRequiredResult):
        return output
    return await add_pictures(render_output(asking.tool, output), output, asking.runtime.drawings)


async def _answer_task(
    tasking: Tasking, context: Context, params: types.CallToolRequestParams, caller: Caller, heard: Heard
) -> types.CallToolResult | types.InputRequiredResult | dict[str, Any] | None:
    """The answer to a call that is a task. None for one that is not."""
    try:
        return await tasking.answer(context, params, caller, heard)
    except Forbidden:  # as of any call
        raise
    except AgentServerError as error:
        return render_failure(error)


async def _call_own(tool: OwnTool, call: Call) -> types.CallToolResult:
    try:
        async with call.heard.beating():
            return await tool.call(call)
    except Forbidden:  # as of any tool
        raise
    except AgentServerError as error:
        return render_failure(error)


def _unknown_tool(name: str, known: list[str]) -> MCPError:
    # The client may send a name of any length, and to compare a long one takes seconds.
    name = name[:80]
    close = difflib.get_close_matches(name, known)
    hint = f"did you mean {' or '.join(close)}?" if close else "tools/list shows which there are"
    return MCPError(types.INVALID_PARAMS, without_secrets(f"There is no tool {quote_value(name)}; {hint}"))
