"""Each tool as `POST /api/tools/{name}` with its own OpenAPI entry.

A form is also sent to the route that its tool declares, such as `/api/lead`.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from fastapi.responses import JSONResponse, Response

from agent_server.api.jobs import answer_long_call
from agent_server.arguments import allow_nulls
from agent_server.bodies import name_wrong_type
from agent_server.caller import Caller
from agent_server.calls.call import call_tool
from agent_server.calls.jobs import JobView
from agent_server.conversations.ids import LONGEST_ID
from agent_server.conversations.repository import ConversationRepository
from agent_server.errors import NotFound, quote_value
from agent_server.http.auth import CallerDep, ChatterDep, MemberDep, ServerDep
from agent_server.http.statuses import UnsupportedMediaType
from agent_server.identity.rights import require_member
from agent_server.server import Server
from agent_server.tool import Tool, describe
from agent_server.workspace import Workspace

REFUSED: dict[int | str, dict[str, Any]] = {404: {}, 409: {}, 504: {}}
"""What a tool may be refused with beyond what holds everywhere: what it names is not there, or it took too long."""
ConversationHeader = Annotated[
    str | None, Header(alias="X-Conversation-Id", max_length=LONGEST_ID, description="Where it was asked for.")
]


def create_router(workspace: Workspace) -> APIRouter:
    """The routes of this workspace's tools."""
    router = APIRouter(tags=["tools"])

    @router.get("/api/tools")
    async def list_tools(caller: MemberDep, server: ServerDep) -> list[dict[str, Any]]:
        """The tools that the caller may call."""
        return [describe(tool) for tool in server.workspace.tools.values() if caller.may(tool.scope)]

    for tool in workspace.tools.values():
        _add_route(router, tool)
        if tool.route is not None:
            _add_form_route(router, tool, tool.route)

    # After the tools' own routes, so that it takes what they leave.
    @router.post("/api/tools/{name}", include_in_schema=False)
    async def unknown_tool(name: str, caller: MemberDep, server: ServerDep) -> None:
        there = ", ".join(t.name for t in server.workspace.tools.values() if caller.may(t.scope))
        raise NotFound(f"There is no tool {quote_value(name)}; there are {there}")

    return router


def _add_route(router: APIRouter, tool: Tool[..., Any]) -> None:
    async def call(
        request: Request, caller: CallerDep, server: ServerDep, x_conversation_id: ConversationHeader = None
    ) -> Response:
        if not tool.form:
            require_member(caller)
        return await _call_by_rest(tool, request, caller, server, x_conversation_id)

    router.add_api_route(
        f"/api/tools/{tool.name}",
        call,
        methods=["POST"],
        name=tool.name,
        operation_id=tool.name,
        summary=tool.title,
        description=f"{tool.description}\n\nScope `{tool.scope}`, effect `{tool.effect}`.",
        response_class=JSONResponse,
        responses={**REFUSED, **({202: {"model": JobView}} if tool.is_job else {})},
        openapi_extra=_describe_operation(tool),
    )


def _add_form_route(router: APIRouter, tool: Tool[..., Any], path: str) -> None:
    async def send_form(
        request: Request, caller: ChatterDep, server: ServerDep, x_conversation_id: ConversationHeader = None
    ) -> Response:
        return await _call_by_rest(tool, request, caller, server, x_conversation_id)

    router.add_api_route(
        path,
        send_form,
        methods=["POST"],
        name=f"{tool.name}_form",
        summary=tool.title,
        description=f"{tool.form}\n\nThe form of the tool `{tool.name}`, for guests too.",
        response_class=JSONResponse,
        responses={**REFUSED, **({202: {"model": JobView}} if tool.is_job else {})},
        openapi_extra=_describe_operation(tool),
    )


async def _call_by_rest(
    tool: Tool[..., Any], request: Request, caller: Caller, server: Server, conversation: str | None
) -> Response:
    """Call the tool with the body as its arguments. Raises as `call_tool`, and NotFound for the conversation."""
    conversation_id = None
    if conversation is not None:
        async with server.database.transaction(caller.id) as session:
            # A tool must not run for a conversation of somebody else's.
            conversation_id = (await ConversationRepository(session, caller).get(conversation)).id
    # Bytes that are no UTF-8 come through as half characters, which the tool's own validation refuses by field.
    arguments = (await request.body()).decode("utf-8", "surrogateescape")
    # What is JSON is read whatever its type says; of something else the type is what is wrong.
    is_object = arguments.strip("\ufeff \t\r\n")[:1] in ("", "{")
    if not is_object and (wrong := name_wrong_type(request.headers)):
        raise UnsupportedMediaType(wrong)
    if tool.is_job:
        return await answer_long_call(
            tool, arguments, request=request, caller=caller, server=server, conversation_id=conversation_id
        )
    # As text and not parsed: `call_tool` checks arguments for all surfaces, and words the mistakes in one way.
    output = await call_tool(
        server.runtime,
        tool,
        arguments,
        caller=caller,
        surface="rest",
        conversation_id=conversation_id,
        idempotency_key=request.headers.get("Idempotency-Key"),
    )
    return JSONResponse(output)


def _describe_operation(tool: Tool[..., Any]) -> dict[str, Any]:
    """The operation's schemas in one piece."""
    # In the document of OpenAPI `#/$defs` is at its root, where a tool's definitions are not.
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": allow_nulls(inline_definitions(tool.input_schema))}},
        },
        "responses": {
            "200": {
                "description": "The result",
                "content": {"application/json": {"schema": inline_definitions(tool.output_schema)}},
            }
        },
    }


def inline_definitions(schema: dict[str, Any]) -> dict[str, Any]:
    """`schema` with each `#/$defs/X` replaced by what it stands for. A recursive one becomes any object."""
    definitions = schema.get("$defs", {})

    def walk(value: Any, path: tuple[str, ...]) -> Any:
        if isinstance(value, list):
            return [walk(item, path) for item in value]
        if not isinstance(value, dict):
            return value
        if (name := str(value.get("$ref", "")).removeprefix("#/$defs/")) in definitions:
            # A recursive schema has no end when it is written out.
            return {"type": "object"} if name in path else walk(definitions[name], (*path, name))
        return {key: walk(item, path) for key, item in value.items() if key != "$defs"}

    result: dict[str, Any] = walk(schema, ())
    return result
