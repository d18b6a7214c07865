"""Passages as MCP clients read them."""

from typing import Annotated

from pydantic import Field

from agent_server.knowledge.search import get_passage
from agent_server.knowledge.tools import KNOWLEDGE
from agent_server.resource import resource
from agent_server.tool import ToolContext


@resource("passage://{id}", scope=KNOWLEDGE, mime_type="text/markdown")
async def passage(context: ToolContext, id: Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]) -> str:
    """A passage of the content, by the id that a search or a citation gives."""
    found = await get_passage(context.session, id)
    return f"{found.text}\n\n(From {found.document}, {found.heading or found.title})\n"
