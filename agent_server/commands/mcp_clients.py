"""agent-server mcp install: this server in the configuration of an MCP client.

    claude-code      .mcp.json of a project
    claude-desktop   the user's file; it starts servers and reaches none by an address
    cursor           .cursor/mcp.json of the user or of a project
    vscode           mcp.json of the user, .vscode/mcp.json of a project

No key is written: where one is needed, the file names a variable, or the client asks for it.
"""

import asyncio
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agent_server.commands.context import CommandContext
from agent_server.commands.terminal import agree, fail, say
from agent_server.errors import InvalidInput, name_known

KEY = "AGENT_SERVER_KEY"
"""The variable that holds the API key for a server that is reached by an address."""
_INPUT = "agent-server-key"


@dataclass(frozen=True, kw_only=True)
class McpClient:
    """A client and its files. `servers` is the key of theirs that holds the servers; `secret` is how they name what is
    not written into them, None where the client reaches no server by an address. `typed` are the kinds of servers whose kind
    it reads. `afterwards` is what its user does next."""

    title: str
    servers: str
    user_file: Callable[[], Path] | None
    project_file: str | None
    secret: str | None
    typed: frozenset[str]
    afterwards: str

    @property
    def asks(self) -> bool:
        """Whether it asks its user for the key."""
        return self.secret is not None and "input:" in self.secret

    def write_entry(self, kind: str, entry: Mapping[str, Any]) -> dict[str, Any]:
        """A server as its files have it."""
        return {"type": kind, **entry} if kind in self.typed else dict(entry)


def _settings_folder(application: str) -> Path:
    """Where programs of this user have their settings."""
    match sys.platform:
        case "darwin":
            return Path.home() / "Library" / "Application Support" / application
        case "win32":
            return Path(os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming") / application
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / application


CLIENTS: Mapping[str, McpClient] = {
    "claude-code": McpClient(
        title="Claude Code",
        servers="mcpServers",
        user_file=None,
        project_file=".mcp.json",
        secret=f"${{{KEY}}}",
        typed=frozenset({"stdio", "http"}),
        afterwards="Start `claude` in that folder; it asks once whether you trust the server.",
    ),
    "claude-desktop": McpClient(
        title="Claude Desktop",
        servers="mcpServers",
        user_file=lambda: _settings_folder("Claude") / "claude_desktop_config.json",
        project_file=None,
        secret=None,
        typed=frozenset(),
        afterwards="Quit Claude Desktop and start it again.",
    ),
    "cursor": McpClient(
        title="Cursor",
        servers="mcpServers",
        user_file=lambda: Path.home() / ".cursor" / "mcp.json",
        project_file=".cursor/mcp.json",
        secret=f"${{env:{KEY}}}",
        typed=frozenset({"stdio"}),
        afterwards="Start Cursor again and switch the server on under Customize, MCPs.",
    ),
    "vscode": McpClient(
        title="VS Code",
        servers="servers",
        user_file=lambda: _settings_folder("Code") / "User" / "mcp.json",
        project_file=".vscode/mcp.json",
        secret=f"${{input:{_INPUT}}}",
        typed=frozenset({"stdio", "http"}),
        afterwards="Run `MCP: List Servers` in VS Code and start the server.",
    ),
}


async def install(
    context: CommandContext,
    client: str,
    url: str | None,
    name: str,
    project: Path | None,
    toolset: str | None,
    *,
    yes: bool,
) -> int:
    if client not in CLIENTS:
        raise InvalidInput(f"client: there is no client {client!r} here; {name_known(client, CLIENTS)}")
    if not name.strip():
        raise InvalidInput("--name: is empty; say what the client is to call the server")
    known = CLIENTS[client]
    file = _find_file(client, known, project).resolve()  # where it is a link, the link stays
    entry = _tell_url(known, url, toolset) if url else _tell_command(context, known, toolset)
    before = _read(file)
    whole, replaced = _add(file, before, known, name, entry)
    if whole is None:
        say(f"{file} has this server already.")
        return 0
    fail(f"{known.title}, {file}:\n{_write_json({known.servers: {name: entry}})}")
    if replaced:
        fail(f"It replaces the server {name!r} of that file.")
    if not yes and not await asyncio.to_thread(agree, "Write it?"):
        fail("Nothing was written.")
        return 1
    kept = _write(file, before, whole)
    say(f"Written. The file as it was is {kept}." if kept else "Written.")
    if url:
        where = "which it asks you for" if known.asks else f"which it reads from the variable {KEY}"
        say(f"It sends an API key, {where}: `agent-server key create --name {client}` makes one.")
    say(known.afterwards)
    return 0


def _find_file(name: str, client: McpClient, project: Path | None) -> Path:
    if project is not None:
        if client.project_file is None:
            raise InvalidInput(f"--project: {client.title} has no file in a project; leave --project out")
        if not project.is_dir():
            raise InvalidInput(f"--project: {project} is no folder; name the folder of a project")
        return project.resolve() / client.project_file
    if client.user_file is None:
        raise InvalidInput(f"--project: is missing; name the folder whose file {name} is to read")
    return client.user_file()


def _tell_command(context: CommandContext, client: McpClient, toolset: str | None) -> dict[str, Any]:
    """A server that the client starts."""
    program = Path(sys.executable).with_name("agent-server.exe" if sys.platform == "win32" else "agent-server")
    start = [str(program)] if program.exists() else [sys.executable, "-m", "agent_server"]
    # The whole path: clients start it in a folder of theirs.
    arguments = [*start[1:], "mcp", "--workspace", str(context.root.resolve())]
    arguments += ["--toolset", toolset] if toolset else []
    return client.write_entry("stdio", {"command": start[0], "args": arguments})


def _tell_url(client: McpClient, url: str, toolset: str | None) -> dict[str, Any]:
    """A server at an address."""
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        is_address = False
    if not is_address:
        raise InvalidInput(f"--url: {url!r} is no address; write it as in https://agents.example/mcp")
    if parts.username or parts.password:
        raise InvalidInput("--url: has a password in it, which the file would show; leave it out")
    if toolset:
        raise InvalidInput(f"--toolset: with --url, the address names it, as in {url.rstrip('/')}/{toolset}")
    if client.secret is None:
        raise InvalidInput(
            f"--url: {client.title} adds servers at an address in its own settings, under Connectors; "
            "without --url it starts one"
        )
    return client.write_entry("http", {"url": url, "headers": {"Authorization": f"Bearer {client.secret}"}})


def _read(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidInput(f"{file} cannot be read: {error.strerror}") from None


def _add(
    file: Path, before: bytes | None, client: McpClient, name: str, entry: dict[str, Any]
) -> tuple[dict[str, Any] | None, bool]:
    """The whole of the file with the server, None where it has it already; and whether another of that name goes."""
    by_hand = f"add this to it by hand:\n{_write_json({client.servers: {name: entry}})}"
    try:
        whole = json.loads(before) if before is not None and before.strip() else {}
    except (ValueError, RecursionError):
        # VS Code allows comments, which would be lost.
        raise InvalidInput(f"{file} is no plain JSON, and what else is in it would be lost; {by_hand}") from None
    servers = whole.setdefault(client.servers, {}) if isinstance(whole, dict) else None
    if not isinstance(servers, dict):
        raise InvalidInput(f"{file} has no object {client.servers!r} that a server can be added to; {by_hand}")
    found = servers.get(name)
    servers[name] = entry
    is_asked_for = "url" not in entry or not client.asks or _is_asked(file, whole, by_hand)
    return (None if found == entry and is_asked_for else whole), found is not None


def _is_asked(file: Path, whole: dict[str, Any], by_hand: str) -> bool:
    """Whether the file had the question for the key; it is put in where it had not."""
    inputs = whole.setdefault("inputs", [])
    if not isinstance(inputs, list):
        raise InvalidInput(f"{file} has no list 'inputs' that a question can be added to; {by_hand}")
    if any(isinstance(each, dict) and each.get("id") == _INPUT for each in inputs):
        return True
    about = "API key of the agent server"
    inputs.append({"type": "promptString", "id": _INPUT, "description": about, "password": True})
    return False


def _write(file: Path, before: bytes | None, whole: Mapping[str, Any]) -> Path | None:
    """Replace the file at once. Returns where it is kept as it was, if there was one."""
    if _read(file) != before:
        raise InvalidInput(f"{file} has changed since it was read; run this again")
    kept = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            new = Path(folder) / file.name
            new.write_text(_write_json(whole) + "\n", encoding="utf-8")
            if before is not None:
                kept = file.with_name(f"{file.name}.{datetime.now(UTC):%Y%m%d-%H%M%S-%f}.bak")
                shutil.copy2(file, kept)
                shutil.copymode(file, new)
            os.replace(new, file)
    except OSError as error:
        raise InvalidInput(f"{file} cannot be written: {error.strerror}") from None
    return kept


def _write_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
