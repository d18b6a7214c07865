"""agent-server mcp list, test and accept: the MCP servers of others"""

import asyncio
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from agent_server.commands.context import CommandContext
from agent_server.commands.terminal import fail, say, show
from agent_server.errors import NotFound, WorkspaceInvalid, name_known
from agent_server.log import without_secrets
from agent_server.outside.accepting import Comparison, compare, find_changes
from agent_server.outside.connections import Answered, Connection, Lost
from agent_server.outside.pages import Page, compare_pages, write_pages
from agent_server.outside.pins import FILE as LOCK
from agent_server.outside.pins import Declaration, Pin, read_pins, write_pins
from agent_server.outside.servers import FILE, OutsideServer, read_servers
from agent_server.wording import count, one_line, shorten

_LONGEST = 2_000
Accepted = dict[str, dict[str, Pin]]


async def list_servers(context: CommandContext, as_json: bool) -> int:
    servers, accepted = _read(context.root)
    listed: list[dict[str, Any]] = [
        {
            "server": server.name,
            "place": without_secrets(server.place),
            "tools": [_describe_tool(server, tool, pin) for tool, pin in sorted(accepted.get(name, {}).items())],
            "waiting": [tool for tool in server.tools or () if tool not in accepted.get(name, {})],
        }
        for name, server in servers.items()
    ]
    if as_json:
        show(listed)
        return 0
    if not listed:
        say(f"There is no {FILE}; `tickets:` and below it `url: https://tickets.example.com/mcp` name a first server.")
    for each in listed:
        say(f"{each['server']}: {each['place']}")
        for tool in each["tools"]:
            asked = ", asks first" if tool["confirm"] else ""
            say(f"  {tool['name']} ({tool['effect']}{asked}; scope {tool['scope']})")
        for tool in each["waiting"]:
            say(f"  {tool} is not accepted yet")
    return 0


async def test(context: CommandContext, server: str | None, as_json: bool) -> int:
    servers, accepted = _read(context.root)
    results = await asyncio.gather(
        *(_try(context.root, each, accepted.get(each.name, {})) for each in _choose(servers, server))
    )
    if as_json:
        show(results)
    else:
        for result in results:
            _tell(result)
    return 0 if all(result["error"] is None and not result["held_back"] for result in results) else 1


async def accept(context: CommandContext, server: str | None, tools: Sequence[str], yes: bool) -> int:
    root = context.root
    servers, accepted = _read(root)
    if not yes and not sys.stdin.isatty():
        raise typer.BadParameter("without a terminal to ask on, give --yes")
    failed = False
    kept: Accepted = {name: pins for name, pins in accepted.items() if name in servers}
    for each in _choose(servers, server):
        try:
            declared, pages = await _ask(root, each)
        except (Lost, Answered) as error:
            fail(f"{each.name}: {_explain(error)}; what was accepted of it stays")
            failed = True
            continue
        compared = compare(each, declared, kept.get(each.name, {}))
        if wrong := [name for name in tools if name not in {one.tool for one in compared}]:
            raise NotFound(f"{each.name} has no tool {wrong[0]!r}; {name_known(wrong[0], [c.tool for c in compared])}")
        pins = {one.tool: one.before for one in compared if one.before is not None}
        for one in compared:
            failed |= one.state == "unusable"
            if (not tools or one.tool in tools) and _settle(each, one, yes=yes):
                pins.pop(one.tool, None)
                if one.pin is not None:
                    pins[one.tool] = one.pin
        kept[each.name] = pins
        if not tools:
            _settle_pages(each, context.content, pages, yes=yes)
        write_pins(root, kept)  # after each server: what was accepted must not be lost with a later one
    say(f"{LOCK} holds {count(sum(map(len, kept.values())), 'tool')}.")
    return 1 if failed else 0


def _read(root: Path) -> tuple[Mapping[str, OutsideServer], Accepted]:
    """The servers and what is accepted of them. Raises WorkspaceInvalid for a file that cannot be read."""
    read = read_servers(root)
    pins, wrong = read_pins(root)
    if read.mistakes or (wrong and not pins):
        raise WorkspaceInvalid([*read.mistakes, *wrong])
    return read.servers, {name: dict(tools) for name, tools in pins.items()}


def _choose(servers: Mapping[str, OutsideServer], name: str | None) -> Iterable[OutsideServer]:
    if name is None:
        return servers.values()
    if name not in servers:
        raise NotFound(f"There is no server {name!r} in {FILE}; {name_known(name, servers)}")
    return [servers[name]]


async def _ask(root: Path, server: OutsideServer) -> tuple[Mapping[str, Declaration], Sequence[Page]]:
    """What a server declares, and the pages that its resources are. Raises Lost and Answered."""
    connection = Connection(server, root)
    try:
        return await connection.list_tools(), await connection.read_pages()
    finally:
        await connection.close()


async def _try(root: Path, server: OutsideServer, accepted: Mapping[str, Pin]) -> dict[str, Any]:
    result: dict[str, Any] = {"server": server.name, "error": None, "tools": [], "held_back": [], "pages": {}}
    try:
        declared, pages = await _ask(root, server)
    except (Lost, Answered) as error:
        return {**result, "error": _explain(error)}
    compared = compare(server, declared, accepted)
    result["pages"] = dict(compare_pages(server, root / "content", pages))
    result["tools"] = [{"tool": one.tool, "name": one.name, "state": one.state, "why": one.why} for one in compared]
    result["held_back"] = [one.tool for one in compared if one.before is not None and one.state != "accepted"]
    return result


def _explain(error: Lost | Answered) -> str:
    """Why a server could not be asked, with the last line of what it said."""
    said = error.said.strip().rpartition("\n")[2] if isinstance(error, Lost) else ""
    return without_secrets(f"{error}; it says: {shorten(one_line(said), 300)}" if said else str(error))


def _tell(result: Mapping[str, Any]) -> None:
    if result["error"] is not None:
        say(f"{result['server']}: {result['error']}")
        return
    say(f"{result['server']}: answers, {count(len(result['tools']), 'tool')}")
    for tool in result["tools"]:
        why = f": {tool['why']}" if tool["why"] else ""
        say(f"  {one_line(tool['tool'])} is {tool['state']}{why}")
    for file, change in result["pages"].items():
        say(f"  content/{file} is {change}")
    if result["held_back"]:
        say(f"  Read what has changed and accept it: agent-server mcp accept {result['server']}")


def _settle(server: OutsideServer, one: Comparison, *, yes: bool) -> bool:
    """Show what is new or different of a tool. Returns whether it is accepted."""
    tool = one_line(one.tool)
    if one.state == "accepted":
        return False
    if one.state == "unusable":
        say(f"{server.name}: {tool} cannot be used: {one.why}")
        return one.before is not None  # it is held back already
    if one.state == "gone":
        say(f"{server.name}: {tool} is not offered any more, and is taken out")
        return True
    assert one.pin is not None
    changed = f" (changed: {', '.join(find_changes(one.before.declared, one.pin.declared))})" if one.before else ""
    said = server.find_tool(one.tool)
    asked = ", asks first" if said.is_confirmed else ""
    say(f"{server.name}: {tool} is {one.state}{changed}; as {one.pin.name}, {said.has_effect}{asked}")
    for key, value in one.pin.declared.items():
        if key != "name":
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            say(f"    {key}: {shorten(one_line(text), _LONGEST)}")
    return yes or typer.confirm("Accept it?")


def _settle_pages(server: OutsideServer, content: Path, pages: Sequence[Page], *, yes: bool) -> None:
    """Show which pages are new, different or gone, and write them where that is accepted."""
    changes = compare_pages(server, content, pages)
    for file, change in changes.items():
        say(f"{server.name}: content/{file} is {change}")
    if changes and (yes or typer.confirm(f"Take {count(len(changes), 'page')}?")):
        write_pages(content, pages, changes)


def _describe_tool(server: OutsideServer, tool: str, pin: Pin) -> dict[str, Any]:
    said = server.find_tool(tool)
    return {
        "tool": tool,
        "name": pin.name,
        "effect": said.has_effect,
        "confirm": said.is_confirmed,
        "scope": server.scope_of(tool),
        "sha256": pin.sha,
    }
