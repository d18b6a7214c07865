"""Every route of a running server, and bytes that no HTTP client would send."""

import asyncio
from typing import Any
from uuid import UUID

from tests.server import Client

ELSEWHERE = "https://elsewhere.example"
BODIES: dict[str, Any] = {
    "/api/chat": {"message": ""},
    "/api/conversations/{id}": {"title": "t"},
    "/api/session/{id}": {"profile": {}},
}
"""What a route has to be sent so that it asks who is calling."""


async def routes(client: Client) -> list[tuple[str, str]]:
    """Method and path, as the OpenAPI document has it, of every route; and MCP's."""
    paths = (await client.http.get("/openapi.json")).json()["paths"]
    documented = [(method.upper(), path) for path, operations in paths.items() for method in operations]
    assert len(documented) > 20
    return [*documented, ("POST", "/mcp"), ("POST", "/mcp/")]


def filled(path: str) -> str:
    return path.format_map(_Anything())


class _Anything(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return str(UUID(int=7))


async def raw(client: Client, text: str) -> bytes:
    """What the server says to bytes that no HTTP client would send, until it ends the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", client.http.base_url.port)
    writer.write(text.encode("latin-1"))
    answer = await reader.read()
    writer.close()
    return answer
