"""The one tool of the measured turn."""

from agent_server import ToolContext, tool

PAGE = ("To reset your password open Settings, Security, Reset. " * 20)[:1000]


@tool(scope="docs:read", effect="read")
async def search_docs(context: ToolContext, query: str) -> str:
    """Search the product documentation."""
    return PAGE
