"""Knowledge documents as MCP resources: `content://safety/flying.md` is the file `safety/flying.md` under content/."""

from urllib.parse import quote, unquote

import mcp_types as types
from mcp.shared.exceptions import MCPError

from agent_server.caller import Caller
from agent_server.errors import LONGEST_VALUE, NotFound, cut
from agent_server.log import without_secrets
from agent_server.mcp.documents import Documents
from agent_server.mcp.errors import error_data
from agent_server.mcp.pages import PAGE, read_cursor, write_cursor

_SCHEME = "content://"
_MARKDOWN = "text/markdown"
_LONGEST_URI = 8_000


async def list_resources(
    documents: Documents, caller: Caller, cursor: str | None = None
) -> tuple[list[types.Resource], str | None]:
    """A page of what `caller` may read in the order of the paths, and the cursor of the next one.

    Raises MCPError for a cursor that is none of this server's.
    """
    after = read_cursor(cursor)
    if not caller.may(documents.scope):
        return [], None
    found = await documents.list_documents(after, PAGE + 1)
    page = [
        types.Resource(uri=_SCHEME + quote(d.path), name=d.path, title=d.title, mime_type=_MARKDOWN)
        for d in found[:PAGE]
    ]
    return page, write_cursor(found[PAGE - 1].path) if len(found) > PAGE else None


def list_templates(documents: Documents, caller: Caller) -> list[types.ResourceTemplate]:
    if not caller.may(documents.scope):
        return []
    return [
        types.ResourceTemplate(
            uri_template=_SCHEME + "{+path}",
            name="document",
            title="Knowledge document",
            description="A Markdown document of the knowledge base, by its path.",
            mime_type=_MARKDOWN,
        )
    ]


async def read_resource(documents: Documents, caller: Caller, uri: str) -> types.TextResourceContents:
    """The text of a document. Raises Forbidden, and MCPError with the address for one that is not there."""
    documents.authorise(caller)
    path = unquote(uri[:_LONGEST_URI].removeprefix(_SCHEME))
    try:
        # Postgres takes no NUL, and would fail on it.
        if len(uri) > _LONGEST_URI or not uri.startswith(_SCHEME) or "\x00" in path:
            raise NotFound(f"There is no document at this address; one looks like {_SCHEME}folder/file.md")
        text = await documents.read_document(path)
    except NotFound as error:
        raise MCPError.from_error_data(error_data(error, uri=without_secrets(cut(uri, LONGEST_VALUE)))) from None
    return types.TextResourceContents(uri=uri, mime_type=_MARKDOWN, text=text)
