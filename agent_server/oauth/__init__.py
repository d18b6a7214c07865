"""The server's own authorisation server: users let MCP clients in that can only sign in through a browser."""
