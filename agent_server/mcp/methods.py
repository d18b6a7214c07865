"""The methods of MCP beside those of tools: prompts, resources and completion."""

from collections.abc import Callable
from typing import Any

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server

from agent_server.caller import Caller
from agent_server.calls.call import Runtime
from agent_server.mcp.completion import complete
from agent_server.mcp.offers import Offers
from agent_server.mcp.pages import refuse_cursor
from agent_server.mcp.prompts import describe_prompt, get_prompt
from agent_server.mcp.resources import list_resources, list_templates, read_resource
from agent_server.mcp.subscriptions import add_watching
from agent_server.readable import Documents

Context = ServerRequestContext[Any, Any]


def add_methods(
    server: Server, runtime: Runtime, documents: Documents | None, offers: Offers | None, caller: Callable[[], Caller]
) -> None:
    """Have `server` answer for what there is of documents and offers. `caller` says who asks."""
    if documents is not None or offers is not None:
        _add_resources(server, runtime, documents, offers, caller)
    if offers is not None:
        _add_prompts(server, runtime, documents, offers, caller)
        add_watching(server, runtime, documents, offers, caller)


def _add_resources(
    server: Server, runtime: Runtime, documents: Documents | None, offers: Offers | None, caller: Callable[[], Caller]
) -> None:
    async def listed(_: Context, params: types.PaginatedRequestParams) -> types.ListResourcesResult:
        resources, cursor = await list_resources(documents, offers, caller(), params.cursor)
        return types.ListResourcesResult(resources=resources, next_cursor=cursor)

    async def templates(_: Context, params: types.PaginatedRequestParams) -> types.ListResourceTemplatesResult:
        refuse_cursor(params)
        return types.ListResourceTemplatesResult(resource_templates=list_templates(documents, offers, caller()))

    async def read(_: Context, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
        contents = await read_resource(runtime, documents, offers, caller(), params.uri)
        return types.ReadResourceResult(contents=[contents])

    server.add_request_handler("resources/list", types.PaginatedRequestParams, listed)
    server.add_request_handler("resources/templates/list", types.PaginatedRequestParams, templates)
    server.add_request_handler("resources/read", types.ReadResourceRequestParams, read)


def _add_prompts(
    server: Server, runtime: Runtime, documents: Documents | None, offers: Offers, caller: Callable[[], Caller]
) -> None:
    async def listed(_: Context, params: types.PaginatedRequestParams) -> types.ListPromptsResult:
        refuse_cursor(params)
        return types.ListPromptsResult(prompts=[describe_prompt(each) for each in offers.list_prompts(caller())])

    async def get(
        context: Context, params: types.GetPromptRequestParams
    ) -> types.GetPromptResult | types.InputRequiredResult:
        return await get_prompt(runtime, documents, offers, caller(), context, params)

    async def completed(_: Context, params: types.CompleteRequestParams) -> types.CompleteResult:
        return types.CompleteResult(completion=await complete(runtime, documents, offers, caller(), params))

    server.add_request_handler("prompts/list", types.PaginatedRequestParams, listed)
    server.add_request_handler("prompts/get", types.GetPromptRequestParams, get)
    server.add_request_handler("completion/complete", types.CompleteRequestParams, completed)
