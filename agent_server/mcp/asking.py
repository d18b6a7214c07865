"""Ask the user of a client before something is lost for good.

This is `InputRequiredResult` of the protocol of 2026.

The first answer to a destructive call is a question with a `requestState`; the client puts it to its user and calls
again with both. The state is the id of the question's row, the same on every replica. It is not sealed, because it
holds nothing: the row names its caller, tool and arguments, expires, and is used up in the transaction of the call.
"""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from agent_server.caller import Caller
from agent_server.calls.call import Runtime, ask_first, json_arguments
from agent_server.calls.confirmations import Changed, Confirmation, Question
from agent_server.calls.consent import confirm_call, decline_call, get_open_confirmation
from agent_server.errors import Conflict, InvalidInput, NotFound
from agent_server.mcp.errors import error_data
from agent_server.tool import Tool

_ANSWER = "confirm"


def can_ask(context: ServerRequestContext[Any, Any]) -> bool:
    """Whether the client can put a form to its user and call again.

    Others are not refused: such a client asks its user by itself, by the `destructiveHint`.
    """
    capabilities = context.session.client_capabilities
    elicitation = capabilities.elicitation if capabilities else None
    # A client that names no kind of elicitation can show a form: that is what the protocol had first.
    form = elicitation is not None and (elicitation.form is not None or elicitation.url is None)
    # An older client can be asked on an open stream only, which a server of several replicas does not have.
    return form and context.protocol_version in MODERN_PROTOCOL_VERSIONS


async def ask(
    runtime: Runtime, tool: Tool[..., Any], arguments: Mapping[str, Any], caller: Caller
) -> types.InputRequiredResult:
    """The question in place of the call. Raises Forbidden and InvalidInput, as the call would."""
    return _put(await ask_first(runtime, tool, arguments, caller=caller, surface="mcp"))


def _put(question: Question) -> types.InputRequiredResult:
    form = types.ElicitRequestFormParams(
        message=f"{question.question} This cannot be undone.",
        requested_schema={
            "type": "object",
            "properties": {_ANSWER: {"type": "boolean", "title": question.title, "default": False}},
            "required": [_ANSWER],
        },
    )
    return types.InputRequiredResult(
        request_state=question.id, input_requests={_ANSWER: types.ElicitRequest(params=form)}
    )


async def answer_call(
    runtime: Runtime, tool: Tool[..., Any], params: types.CallToolRequestParams, caller: Caller
) -> Any | types.CallToolResult | types.InputRequiredResult:
    """The output of the call that the client's user was asked about. It may be a result that says it was not made, or a
    new question where the call would lose something else by now.

    Raises MCPError for a state that is not this caller's for this call, or is used up or has expired, and as
    `call_tool`.
    """
    row = await _find_confirmation(runtime, tool, params, caller)
    response = (params.input_responses or {}).get(_ANSWER)
    if not isinstance(response, types.ElicitResult):
        raise MCPError(types.INVALID_PARAMS, f"inputResponses.{_ANSWER}: send what the user answered to the question")
    # Only a plain yes is one: a client may send the form back as it was, or a text in the place of the boolean.
    if response.action == "accept" and (response.content or {}).get(_ANSWER) is True:
        try:
            return await confirm_call(runtime, {tool.name: tool}, row.id, caller=caller, surface="mcp")
        except Changed as changed:
            if changed.question is None:
                raise
            return _put(changed.question)
    await decline_call(runtime, row.id, caller=caller, surface="mcp")
    said_no = f"declined: the user did not confirm it, so {tool.name} was not called. Do not call it again for this"
    return types.CallToolResult(content=[types.TextContent(text=said_no)], is_error=True)


async def _find_confirmation(
    runtime: Runtime, tool: Tool[..., Any], params: types.CallToolRequestParams, caller: Caller
) -> Confirmation:
    try:
        row = await get_open_confirmation(runtime, UUID(params.request_state), caller)
        # The client sends the arguments again, and could have its user asked about one call and then make another.
        if row.tool != tool.name or row.arguments != json_arguments(tool, tool.validate(params.arguments or {})):
            raise InvalidInput("requestState: is of another call; call again as at first, without it")
    except ValueError:
        raise MCPError(types.INVALID_PARAMS, "requestState: not one of this server's; call without it") from None
    except (NotFound, Conflict, InvalidInput) as error:
        data = error_data(error).model_copy(update={"code": types.INVALID_PARAMS})
        raise MCPError.from_error_data(data) from error
    return row
