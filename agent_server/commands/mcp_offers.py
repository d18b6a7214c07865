"""agent-server mcp inspect: what an MCP client is offered"""

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from mcp import Client
from pydantic import BaseModel

from agent_server.commands.context import CommandContext
from agent_server.commands.terminal import say, show
from agent_server.conversations.budget import count_tokens
from agent_server.mcp.process import create_mcp

_HINTS = {
    "readOnlyHint": "reads",
    "destructiveHint": "destroys",
    "idempotentHint": "repeatable",
    "openWorldHint": "outside",
}


async def inspect(context: CommandContext, toolset: str | None, *, as_json: bool) -> None:
    server, caller = await context.server(), await context.caller()
    async with Client(create_mcp(server, caller, toolset)) as client:
        named = client.server_info
        offers: dict[str, Any] = {
            "server": None if named is None else _write(named),
            "protocol": client.protocol_version,
            "instructions": client.instructions,
            "tools": await _list_all(client.list_tools, "tools"),
            "prompts": await _list_all(client.list_prompts, "prompts"),
            "resources": await _list_all(client.list_resources, "resources"),
            "templates": await _list_all(client.list_resource_templates, "resource_templates"),
        }
    if as_json:
        show(offers)
        return
    _tell(offers)


def _write(value: BaseModel) -> dict[str, Any]:
    return value.model_dump(mode="json", by_alias=True, exclude_none=True)


async def _list_all(fetch: Callable[..., Awaitable[Any]], field: str) -> Sequence[dict[str, Any]]:
    """All pages of a list."""
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        page = await fetch(cursor=cursor)
        found += [_write(each) for each in getattr(page, field)]
        if (cursor := page.next_cursor) is None:
            return found


def _tell(offers: dict[str, Any]) -> None:
    about = offers["server"] or {}
    say(f"{about.get('name', '')} {about.get('version', '')}, MCP {offers['protocol']}")
    if offers["instructions"]:
        say(offers["instructions"])
    tokens = [count_tokens(json.dumps(tool, ensure_ascii=False)) for tool in offers["tools"]]
    say(f"\n{len(tokens)} tools, about {sum(tokens)} tokens:")
    for tool, cost in zip(offers["tools"], tokens, strict=True):
        hints = " ".join(word for hint, word in _HINTS.items() if tool.get("annotations", {}).get(hint))
        say(f"  {tool['name']:<28} {cost:>5}  {hints:<20} {_first_line(tool)}")
    for kind, key in (("prompts", "name"), ("resources", "uri"), ("templates", "uriTemplate")):
        say(f"\n{len(offers[kind])} {kind}:")
        for one in offers[kind]:
            say(f"  {one[key]:<44} {_first_line(one)}")


def _first_line(offer: dict[str, Any]) -> str:
    line: str = (offer.get("description") or offer.get("title") or "").partition("\n")[0]
    return line
