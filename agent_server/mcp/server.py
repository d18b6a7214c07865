"""The MCP server. It lists what the caller may use, and hands each call to `call_tool`."""

import difflib
from collections.abc import Callable, Mapping
from typing import Any

import mcp_types as types
from mcp.server.caching import CacheableMethod, CacheHint
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError

from agent_server.caller import Caller
from agent_server.calls.call import Runtime
from agent_server.errors import AgentServerError, Forbidden, quote_value
from agent_server.log import without_secrets
from agent_server.mcp.asking import Asking, find_client
from agent_server.mcp.documents import Documents
from agent_server.mcp.errors import render_errors
from agent_server.mcp.finding import NAME as FIND
from agent_server.mcp.finding import FindTools, choose_listed
from agent_server.mcp.listening import Heard, LogLevels
from agent_server.mcp.methods import add_methods
from agent_server.mcp.offers import Offers
from agent_server.mcp.own import Call, OwnTool
from agent_server.mcp.pages import refuse_cursor
from agent_server.mcp.resources import list_icons
from agent_server.mcp.subscriptions import WatchedServer
from agent_server.mcp.tools import describe_all, render_failure, render_output
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
) -> Server:
    """A server of `tools`, of `documents` as resources and of what else it `offers`. `caller` says who makes the request being answered,
    and `agents` is the tool that asks them, if there is one.

    A call fails as the model can read it (a result with `isError`), save for a tool that is not there or not the
    caller's to use: that is an error of the protocol.
    """
    levels = LogLevels()
    settings = runtime.settings
    listed = describe_all(tools, output_schemas=settings.mcp_output_schemas)
    # A tool of the workspace that has such a name goes before ours.
    finder = None if settings.mcp_find_tools is None else FindTools(listed)
    own = {each.entry.name: each for each in (finder, agents) if each and each.entry.name not in tools}
    schemas = {name: each.entry.input_schema for name, each in own.items()}
    schemas |= {name: tool.input_schema for name, tool in tools.items()}

    async def list_tools(_: Context, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        refuse_cursor(params)
        me = caller()
        entries, finds = choose_listed(listed, me, settings.mcp_find_tools, settings.mcp_listed_tools)
        mine = [each.entry for name, each in own.items() if each.may(me) and (finds or name != FIND)]
        return types.ListToolsResult(tools=[*mine, *entries])

    async def call(
        context: Context, params: types.CallToolRequestParams
    ) -> types.CallToolResult | types.InputRequiredResult:
        me = caller()
        tool = tools.get(params.name)
        heard = Heard(context, levels)
        if tool is None and (mine := own.get(params.name)) is not None:
            return await _call_own(mine, Call(params.arguments or {}, me, heard))
        if tool is None:
            # Only what this caller may use is suggested, since it is not told of the rest.
            raise _unknown_tool(params.name, [tool.name for tool, _ in listed if me.may(tool.scope)])
        try:
            async with heard.beating():
                output = await Asking(runtime, tool, params, me, find_client(context), heard).make()
        # An error of the protocol: the client must get a scope, and the model can do nothing about it.
        except Forbidden:
            raise
        except AgentServerError as error:
            return render_failure(error)
        is_result = isinstance(output, types.CallToolResult | types.InputRequiredResult)
        return output if is_result else render_output(tool, output)

    server = WatchedServer(
        name,
        version=version,
        instructions=instructions,
        icons=list_icons(settings.mcp_icon),
        cache_hints=_CACHE,
        # Without this the SDK runs list_tools before every call, half as much work again.
        get_tool_input_schema=schemas.get,
        on_list_tools=list_tools,
        on_call_tool=call,
    )
    server.middleware.append(render_errors)
    server.add_request_handler("logging/setLevel", types.SetLevelRequestParams, levels.set)
    add_methods(server, runtime, documents, offers, caller)
    return server


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
