"""The tools and the knowledge over the Model Context Protocol.

Both generations of it are spoken, over HTTP and stdio.

Nothing is kept between two requests: any replica may answer any of them. `endpoint`, `server` and `stdio` import the MCP
SDK, which is heavy: import them where they are needed.
"""

from agent_server.mcp.http import McpApp, mcp_app
from agent_server.mcp.metadata import canonical_address
from agent_server.mcp.offers import Offers, Watching
from agent_server.mcp.open_calls import OpenCalls
from agent_server.readable import Document, Documents

__all__ = ["Document", "Documents", "McpApp", "Offers", "OpenCalls", "Watching", "canonical_address", "mcp_app"]
