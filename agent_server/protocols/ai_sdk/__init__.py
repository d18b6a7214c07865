"""The AI SDK's UI message stream as `useChat` and our page speak it."""

from agent_server.protocols.base import Protocol

# Its routes are in `api`, and its errors are the REST API's: this is the protocol that the server's own chat speaks.
PROTOCOL = Protocol(prefix="/api/chat")
