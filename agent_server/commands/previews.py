"""The request that would be sent now, in a command."""

from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr

from agent_server.app import create_orchestrator
from agent_server.commands.context import CommandContext
from agent_server.commands.requests import print_request
from agent_server.models.providers import Models
from agent_server.preview import preview_request
from agent_server.requests.rebuild import SentRequest


async def preview(
    context: CommandContext,
    agent: str,
    message: str,
    profile: Mapping[str, Any] | None,
    conversation: str | None,
    inputs: Mapping[str, Any],
) -> SentRequest:
    """The request for a message of the command's caller. Nobody is asked, so no key is needed."""
    settings = context.settings
    if settings.model is not None and settings.openai_api_key is None:
        settings = settings.model_copy(update={"openai_api_key": SecretStr("none")})
    server, caller = await context.server(), await context.caller()
    models = Models(settings)
    try:
        orchestrator = create_orchestrator(server.runtime, context.workspace, models)
        given: Any = {"agent": agent, "conversation": conversation, "profile": profile, "inputs": inputs}
        return await preview_request(server, orchestrator, caller, message, **given)
    finally:
        await models.close()
        await server.close_models()


async def show_preview(
    context: CommandContext,
    agent: str,
    message: str,
    profile: Mapping[str, Any] | None,
    conversation: str | None,
    inputs: Mapping[str, Any],
    *,
    as_json: bool,
) -> None:
    """Print the request."""
    print_request(await preview(context, agent, message, profile, conversation, inputs), as_json=as_json)
