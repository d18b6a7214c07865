"""Values for what a user has begun to type: of a prompt's argument or of a part of an address."""

from collections.abc import Sequence
from typing import Any

import mcp_types as types

from agent_server.caller import Caller
from agent_server.calls.call import Runtime, call_tool
from agent_server.errors import name_known, quote_value
from agent_server.identity.rights import require
from agent_server.mcp.offers import Offers
from agent_server.mcp.prompts import require_prompt, wrong
from agent_server.readable import DOCUMENT_TEMPLATE, Documents
from agent_server.resource import Resource

_MOST = 100
"""Values in an answer, as the protocol has it."""


async def complete(
    runtime: Runtime,
    documents: Documents | None,
    offers: Offers,
    caller: Caller,
    params: types.CompleteRequestParams,
) -> types.Completion:
    """The values that may be meant. Raises Forbidden, and MCPError for what there is nothing to complete of."""
    name, typed = params.argument.name, params.argument.value
    match params.ref:
        case types.PromptReference(name=prompt_name):
            prompt = require_prompt(offers, prompt_name, caller)
            if (declared := prompt.inputs.get(name)) is None:
                raise _unknown(name, list(prompt.inputs))
            values = [_write(value) for value in declared.enum or declared.examples or ()]
            return _complete(values, typed)
        case types.ResourceTemplateReference(uri=uri):
            return _answer(await _complete_address(runtime, documents, offers, caller, uri, name, typed))


async def _complete_address(
    runtime: Runtime,
    documents: Documents | None,
    offers: Offers,
    caller: Caller,
    uri: str,
    name: str,
    typed: str,
) -> Sequence[str]:
    if documents is not None and uri == DOCUMENT_TEMPLATE:
        documents.authorise(caller)
        if name != "path":
            raise _unknown(name, ["path"])
        # Postgres takes no NUL.
        found = await documents.list_documents(typed.replace("\x00", ""), _MOST + 1)
        # In the order of the paths, those that begin with what was typed come next after it.
        return [document.path for document in found if document.path.startswith(typed)]
    resource = next((each for each in offers.workspace.resources if each.uri == uri), None)
    if resource is None:
        raise wrong(f"There is no template {quote_value(uri)}; resources/templates/list shows which there are")
    require(caller, resource.scope, resource.name)
    if name not in resource.parameters:
        raise _unknown(name, resource.parameters)
    if (completer := resource.completers.get(name)) is None:
        return _begin_with(_list_choices(resource, name), typed)
    found_values: Sequence[str] = await call_tool(runtime, completer, {"value": typed}, caller=caller, surface="mcp")
    return found_values


def _list_choices(resource: Resource, name: str) -> list[str]:
    """The values of a parameter that has a few, by its type."""
    schema: dict[str, Any] = resource.reader.input_schema["properties"].get(name, {})
    if "$ref" in schema:
        schema = resource.reader.input_schema["$defs"][schema["$ref"].rpartition("/")[2]]
    return [_write(value) for value in schema.get("enum", ())]


def _complete(values: Sequence[str], typed: str) -> types.Completion:
    return _answer(_begin_with(values, typed))


def _begin_with(values: Sequence[str], typed: str) -> list[str]:
    return [value for value in values if value.casefold().startswith(typed.casefold())]


def _answer(values: Sequence[str]) -> types.Completion:
    return types.Completion(
        values=list(values[:_MOST]),
        total=len(values) if len(values) <= _MOST else None,
        has_more=len(values) > _MOST,
    )


def _write(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _unknown(name: str, known: Sequence[str]) -> Exception:
    return wrong(f"{quote_value(name[:80])} is no argument of it; {name_known(name[:80], known)}")
