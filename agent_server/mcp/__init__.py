"""The tools and the knowledge over the Model Context Protocol.

Both generations of it are spoken, over HTTP and stdio.

Nothing is kept between two requests: any replica may answer any of them. Importing this package imports the MCP SDK,
which is heavy: do it where it is needed.
"""

from agent_server.mcp.http import McpApp, mcp_app
from agent_server.mcp.metadata import canonical_address
from agent_server.mcp.resources import Document, Documents
from agent_server.mcp.server import create_mcp_server
from agent_server.mcp.stdio import serve_stdio

__all__ = ["Document", "Documents", "McpApp", "canonical_address", "create_mcp_server", "mcp_app", "serve_stdio"]
