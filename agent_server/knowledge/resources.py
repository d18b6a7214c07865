"""The content as MCP clients read it."""

from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

from pydantic import Field

from agent_server.changes import RESOURCES, Changes
from agent_server.knowledge.passages import OwnPassages
from agent_server.knowledge.tools import KNOWLEDGE
from agent_server.late import Late
from agent_server.resource import resource
from agent_server.tool import ToolContext

if TYPE_CHECKING:
    from agent_server.knowledge import search
    from agent_server.knowledge.ingest import IngestReport
else:
    search = Late("agent_server.knowledge.search")

SCHEME = "content://"
"""What the address of a document begins with. Its path follows."""


def document_uri(path: str) -> str:
    """The address of a document."""
    return SCHEME + quote(path)


def announce_pages(changes: Changes, report: "IngestReport") -> None:
    """Tell the clients that watch pages which of them are others by now."""
    for path in report.paths:
        changes.announce(document_uri(path))
    if report.added or report.removed:
        changes.announce(RESOURCES)


@resource("passage://{id}", scope=KNOWLEDGE, mime_type="text/markdown")
async def passage(context: ToolContext, id: Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]) -> str:
    """A passage of the content or of a document of the user's own, by the id that a search or a citation gives."""
    own: OwnPassages | None = context.resources.get(OwnPassages)
    found = await own.find(context.session, context.caller, id) if own is not None else None
    found = found or await search.get_passage(context.session, id)
    return f"{found.text}\n\n(From {found.document}, {found.heading or found.title})\n"
