"""Prompts of the workspace as MCP clients list and get them.

A prompt is rendered as an agent's is, with the arguments as its inputs, and becomes messages of the user. A line that is
nothing but `![title](address)`, of a resource that the caller may read, stands for that resource.
"""

import json
import re
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from agent_server.arguments import read_as_meant
from agent_server.caller import Caller
from agent_server.calls.call import Runtime
from agent_server.errors import InvalidInput, name_fields, name_known, quote_value
from agent_server.identity.profiles import read_profile
from agent_server.knowledge.resources import SCHEME
from agent_server.log import without_secrets
from agent_server.mcp.asking import find_client
from agent_server.mcp.offers import Offers
from agent_server.mcp.resources import ReadContents, read_resource
from agent_server.prompts import AgentPrompt
from agent_server.prompts.inputs import Input
from agent_server.readable import Documents

_EMBEDDED = re.compile(r'^!\[[^\]\n]*\]\(("(?:[^"\\\n]|\\.)+"|[^)\s]+)\)[ \t]*$', re.MULTILINE)
_IN_FORMS = ("string", "integer", "number", "boolean")
"""Types that a form can ask for."""
_FORM = "inputs"


def describe_prompt(prompt: AgentPrompt) -> types.Prompt:
    """The entry of a prompt in a list."""
    arguments = [
        types.PromptArgument(name=name, description=_explain(declared), required=declared.default is None)
        for name, declared in prompt.inputs.items()
    ]
    return types.Prompt(
        name=prompt.name, title=prompt.title, description=prompt.description, arguments=arguments or None
    )


async def get_prompt(
    runtime: Runtime,
    documents: Documents | None,
    offers: Offers,
    caller: Caller,
    context: ServerRequestContext[Any, Any],
    params: types.GetPromptRequestParams,
) -> types.GetPromptResult | types.InputRequiredResult:
    """The messages of a prompt. A client that can ask its user is asked for what is missing.

    Raises Forbidden, and MCPError for a prompt that is not there and for arguments that are missing or wrong, all of
    them at once.
    """
    prompt = require_prompt(offers, params.name, caller)
    given: dict[str, Any] = {**(params.arguments or {}), **_read_answers(params)}
    for name in given:
        if name not in prompt.inputs:
            raise wrong(f"{quote_value(name)} is no argument of {prompt.name}; {name_known(name, prompt.inputs)}")
    values = read_as_meant(given, {"properties": {name: {"type": each.type} for name, each in prompt.inputs.items()}})
    async with runtime.database.transaction(caller.id, scopes=caller.scopes) as session:
        profile = await read_profile(session, caller)
    missing = {
        name: declared
        for name, declared in prompt.inputs.items()
        if declared.default is None and values.get(name) is None and profile.get(name) is None
    }
    if missing and _can_ask_for(missing, context) and not params.input_responses:
        return _ask_for(prompt, missing)
    try:
        text = prompt.render(profile=profile, today=datetime.now(UTC).date().isoformat(), inputs=values)
    except InvalidInput as error:
        named = name_fields(error.fields, len(error.fields))
        raise wrong(f"The arguments of {prompt.name} are not complete: {named}") from None
    messages = [
        types.PromptMessage(role="user", content=block)
        async for block in _split(runtime, documents, offers, caller, text)
    ]
    return types.GetPromptResult(description=prompt.description, messages=messages)


def require_prompt(offers: Offers, name: str, caller: Caller) -> AgentPrompt:
    """The prompt of a name. Raises Forbidden, and MCPError where there is none."""
    name = name[:80]
    prompt = offers.find_prompt(name, caller)
    if prompt is None:
        known = [each.name for each in offers.list_prompts(caller)]
        raise wrong(f"There is no prompt {quote_value(name)}; {name_known(name, known)}")
    return prompt


def wrong(message: str) -> MCPError:
    """An error of the parameters of a request."""
    return MCPError(types.INVALID_PARAMS, without_secrets(message))


def _explain(declared: Input) -> str | None:
    parts = [] if declared.description is None else [declared.description]
    if declared.enum:
        parts.append(f"One of {', '.join(map(str, declared.enum))}.")
    return " ".join(parts) or None


def _can_ask_for(missing: Mapping[str, Input], context: ServerRequestContext[Any, Any]) -> bool:
    is_modern = context.protocol_version in MODERN_PROTOCOL_VERSIONS
    return (
        is_modern and "forms" in find_client(context).can and all(each.type in _IN_FORMS for each in missing.values())
    )


def _ask_for(prompt: AgentPrompt, missing: Mapping[str, Input]) -> types.InputRequiredResult:
    properties = {
        name: {
            "type": each.type,
            **({"description": each.description} if each.description else {}),
            **({"enum": each.enum} if each.enum and each.type == "string" else {}),
        }
        for name, each in missing.items()
    }
    form = types.ElicitRequestFormParams(
        message=f"{prompt.title} needs {', '.join(missing)}.",
        requested_schema={"type": "object", "properties": properties, "required": list(missing)},
    )
    return types.InputRequiredResult(input_requests={_FORM: types.ElicitRequest(params=form)})


def _read_answers(params: types.GetPromptRequestParams) -> Mapping[str, Any]:
    """What the client's user has filled in."""
    answer = (params.input_responses or {}).get(_FORM)
    if not isinstance(answer, types.ElicitResult) or answer.action != "accept":
        return {}
    return answer.content or {}


async def _split(
    runtime: Runtime, documents: Documents | None, offers: Offers, caller: Caller, text: str
) -> AsyncIterator[types.ContentBlock]:
    """The parts of a rendered prompt: texts, and the resources that stand between them."""
    at = 0
    for found in _EMBEDDED.finditer(text):
        uri = found[1]
        # An input is written as JSON.
        if uri.startswith('"'):
            uri = json.loads(uri)
        is_document = documents is not None and uri.startswith(SCHEME)
        if not is_document and offers.find_resource(uri) is None:
            continue
        if before := text[at : found.start()].strip():
            yield types.TextContent(text=before)
        yield _embed(await read_resource(runtime, documents, offers, caller, uri))
        at = found.end()
    if rest := text[at:].strip():
        yield types.TextContent(text=rest)


def _embed(read: ReadContents) -> types.ContentBlock:
    kind = (read.mime_type or "").partition("/")[0]
    if isinstance(read, types.BlobResourceContents) and kind in ("image", "audio"):
        block = types.ImageContent if kind == "image" else types.AudioContent
        return block(data=read.blob, mime_type=read.mime_type or "")
    return types.EmbeddedResource(resource=read)
