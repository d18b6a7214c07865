"""Knowledge documents and resources of functions as MCP clients list and read them."""

import mcp_types as types
from mcp.shared.exceptions import MCPError

from agent_server.caller import Caller
from agent_server.calls.call import Runtime
from agent_server.errors import LONGEST_VALUE, AgentServerError, InvalidInput, NotFound, cut
from agent_server.knowledge.resources import document_uri
from agent_server.log import without_secrets
from agent_server.mcp.errors import error_data
from agent_server.mcp.offers import Offers
from agent_server.mcp.pages import PAGE, read_cursor, write_cursor
from agent_server.readable import DOCUMENT_TEMPLATE, MARKDOWN, Documents, read_contents
from agent_server.resource import Contents, Resource

ReadContents = types.TextResourceContents | types.BlobResourceContents


async def list_resources(
    documents: Documents | None, offers: Offers | None, caller: Caller, cursor: str | None = None
) -> tuple[list[types.Resource], str | None]:
    """A page of what `caller` may read, and the cursor of the next one.

    Resources of functions come first, then documents in the order of their paths. Raises MCPError for a cursor that is
    none of this server's.
    """
    after = read_cursor(cursor)
    own = [] if offers is None or after is not None else offers.list_resources(caller)
    listed = [_describe(resource) for resource in own if not resource.parameters]
    if documents is None or not caller.may(documents.scope):
        return listed, None
    found = await documents.list_documents(after, PAGE + 1)
    listed += [
        types.Resource(uri=document_uri(d.path), name=d.path, title=d.title, mime_type=MARKDOWN) for d in found[:PAGE]
    ]
    return listed, write_cursor(found[PAGE - 1].path) if len(found) > PAGE else None


def list_templates(documents: Documents | None, offers: Offers | None, caller: Caller) -> list[types.ResourceTemplate]:
    """The templates of addresses that `caller` may read."""
    listed = [_describe_template(each) for each in (offers.list_resources(caller) if offers else ()) if each.parameters]
    if documents is None or not caller.may(documents.scope):
        return listed
    document = types.ResourceTemplate(
        uri_template=DOCUMENT_TEMPLATE,
        name="document",
        title="Knowledge document",
        description="A Markdown document of the knowledge base, by its path.",
        mime_type=MARKDOWN,
    )
    return [document, *listed]


async def read_resource(
    runtime: Runtime, documents: Documents | None, offers: Offers | None, caller: Caller, uri: str
) -> ReadContents:
    """What is at an address. Raises Forbidden, and MCPError with the address for one where nothing is."""
    resources = () if offers is None else offers.workspace.resources
    try:
        return _render(uri, await read_contents(runtime, documents, resources, uri, caller=caller, surface="mcp"))
    except (NotFound, InvalidInput) as error:
        raise _missing(error, uri) from None


def _missing(error: AgentServerError, uri: str) -> MCPError:
    data = error_data(error, uri=without_secrets(cut(uri, LONGEST_VALUE)))
    return MCPError.from_error_data(data.model_copy(update={"code": types.INVALID_PARAMS}))


def _render(uri: str, read: Contents) -> ReadContents:
    if read.blob is not None:
        return types.BlobResourceContents(uri=uri, mime_type=read.mime_type, blob=read.blob)
    return types.TextResourceContents(uri=uri, mime_type=read.mime_type, text=read.text or "")


def _describe(resource: Resource) -> types.Resource:
    return types.Resource(
        uri=resource.uri,
        name=resource.name,
        title=resource.reader.title,
        description=resource.reader.description,
        mime_type=resource.mime_type,
        icons=list_icons(resource.icon),
    )


def _describe_template(resource: Resource) -> types.ResourceTemplate:
    return types.ResourceTemplate(
        uri_template=resource.uri,
        name=resource.name,
        title=resource.reader.title,
        description=resource.reader.description,
        mime_type=resource.mime_type,
        icons=list_icons(resource.icon),
    )


def list_icons(icon: str | None) -> list[types.Icon] | None:
    """The icon at an address, as the protocol has it."""
    return None if icon is None else [types.Icon(src=icon)]
