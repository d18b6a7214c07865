"""No address that a caller gives is ever asked for anything."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.api.routes import raw
from tests.server import Client


@dataclass
class Canary:
    """A server that must not be asked for anything."""

    url: str
    connections: list[Any] = field(default_factory=list)


@asynccontextmanager
async def listening() -> AsyncIterator[Canary]:
    canary = Canary("")

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        canary.connections.append(await reader.readline())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        canary.url = f"http://127.0.0.1:{port}/canary.png"
        yield canary


def everywhere_in(schema: Mapping[str, Any], url: str, definitions: Mapping[str, Any]) -> Any:
    """A value of `schema` with `url` in each place that takes a text."""
    if "$ref" in schema:
        return everywhere_in(definitions[schema["$ref"].rsplit("/", 1)[1]], url, definitions)
    if "enum" in schema or "const" in schema or ("default" in schema and schema["default"] is not None):
        return schema.get("const", schema.get("default", schema.get("enum", [None])[0]))
    for option in schema.get("anyOf", ()):
        if option.get("type") != "null":
            return everywhere_in(option, url, definitions)
    match schema.get("type"):
        case "object":
            named = {n: everywhere_in(s, url, definitions) for n, s in schema.get("properties", {}).items()}
            return named or {"url": url}
        case "array":
            return [everywhere_in(schema.get("items", {}), url, definitions)]
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case _:
            return url


async def test_no_address_that_a_caller_gives_is_fetched(client: Client) -> None:
    async with listening() as canary:
        url = canary.url
        markdown = f"Read {url} and ![this]({url}), then tell me what {url}?q=nitrox says"
        for message in (url, markdown, f"How deep may I dive on nitrox 32? See {url}"):
            await client.chat(message, **{"X-Render": "html"})
        parts: list[dict[str, Any]] = [
            {"type": "file", "url": url, "mediaType": "image/png", "filename": url},
            {"type": "image", "image": url, "url": url},
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "source-url", "sourceId": "1", "url": url, "title": url},
            {"type": "source-document", "sourceId": "1", "mediaType": url, "title": url, "filename": url},
            {"type": "data-link", "data": {"url": url}},
            {
                "type": "tool-fetch",
                "toolCallId": "1",
                "state": "output-available",
                "input": {"url": url},
                "output": url,
            },
        ]
        for part in parts:
            said = {"role": "user", "parts": [{"type": "text", "text": markdown}, part], "metadata": {"url": url}}
            body = {"id": url[:100], "messages": [said], "stream": False, "messageId": url}
            status = (await client.http.post("/api/chat", json=body, headers=client.auth)).status_code
            assert status == (422 if part["type"] == "file" else 200), part
        made = await client.http.post("/api/session", json={"profile": {"avatar": url, "webhook": {"url": url}}})
        own = {"Authorization": f"Bearer {made.json()['token']}"}
        profile = {"profile": {"photo": url, url: url}}
        changed = await client.http.patch(f"/api/session/{made.json()['id']}", json=profile, headers=own)
        assert changed.json()["profile"]["photo"] == url
        for name, tool in client.server.workspace.tools.items():
            arguments = everywhere_in(tool.input_schema, url, tool.input_schema.get("$defs", {}))
            await client.http.post(f"/api/tools/{name}", json=arguments, headers=client.auth)
            if name == "capture_lead":
                await client.http.post("/api/lead", json=arguments)
            await _mcp(client, "tools/call", {"name": name, "arguments": arguments, "_meta": {"url": url}})
        found = await client.http.post("/api/tools/search_knowledge", json={"query": url}, headers=client.auth)
        assert found.status_code == 200
        await _mcp(client, "resources/read", {"uri": url})
        info = {"name": url, "version": "1", "websiteUrl": url, "icons": [{"src": url}]}
        await _mcp(client, "initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": info})
        host = url.removeprefix("http://")
        for header in (
            *("X-Forwarded-Host", "X-Forwarded-For", "X-Forwarded-Proto", "Forwarded", "Referer", "Origin", "Host"),
            *("X-Original-URL", "X-Rewrite-URL", "Link", "From", "User-Agent", "Idempotency-Key", "Last-Event-ID"),
            *("X-Request-Id", "X-Wap-Profile", "Destination", "Accept-Language", "traceparent", "SOAPAction"),
        ):
            for value in (url, host, host.split("/")[0], f"host={host};for={host}"):
                await client.http.get("/", headers={header: value})
                await client.http.post("/api/chat", json={"message": "Hi"}, headers={**client.auth, header: value})
        for path in (f"/{url}", f"/static/{url}", f"//{host}", f"/api/passages/{url}", f"/?url={url}&next={url}"):
            await client.http.get(str(client.http.base_url).rstrip("/") + path, headers=client.auth)
        await raw(client, f"GET {url} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        await raw(client, f"CONNECT {host.split('/')[0]} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert canary.connections == []
        async with httpx.AsyncClient() as http:
            await http.get(url)
        assert len(canary.connections) == 1


async def _mcp(client: Client, method: str, params: dict[str, Any]) -> None:
    headers = {
        **client.auth,
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2025-11-25",
    }
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    answer = await client.http.post("/mcp", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
