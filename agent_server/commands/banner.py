"""What `serve` says when it listens: where it is, who may ask, which model answers and what it was set by."""

import json
import os
import sys

from agent_server.api.health import describe_model
from agent_server.commands.env_files import tell_env_files
from agent_server.server import Server
from agent_server.settings import ENV_FILE, Settings


def show_banner(server: Server, key: str | None, port: int) -> None:
    """Print the addresses, the model and the settings' files on standard error. `key` is the local user's."""
    base = _find_base(server.settings, port)
    _print(f"\n  {_embolden(server.settings.title)} is ready\n")
    _print(f"  Page    {base}")
    if key is not None:
        # Before the next: scripts take the first address with a key.
        _print(f"  As you  {base}/#key={key}")
        if server.settings.environment == "development":
            _print(f"  Develop {base}/dev#key={key}")
    _print(f"  MCP     {base}/mcp")
    _print(f"  API     {base}/docs")
    _print(f"  Model   {tell_model(server)}")
    _print(f"  {ENV_FILE}    {tell_env_files(server.settings)}\n")
    bearer = key or "<API key: agent-server key create>"
    entry = {"type": "http", "url": f"{base}/mcp", "headers": {"Authorization": f"Bearer {bearer}"}}
    _print("  For an MCP client:")
    _print(f"  {json.dumps({'mcpServers': {'agent-server': entry}})}\n")


async def show_model(server: Server) -> None:
    """Print the model's name once its server has said it, and before that what keeps the server from it."""
    if await server.served.wait() is None:
        _print(f"  Model   not known yet. {server.served.problem}\n")
        await server.served.wait_for_name()
    _print(f"  Model   {tell_model(server)}\n")


def show_restart(server: Server, key: str | None, port: int) -> None:
    """Print in one line that a server which was there before is there again."""
    _print(f"  Ready again: {_find_base(server.settings, port)}{f'/#key={key}' if key else ''}\n")


def tell_model(server: Server) -> str:
    """The model that answers, and the one that takes over, in words."""
    model = describe_model(server)
    if model.offline:
        return "no model key is set: answers are quoted from content/ (set OPENAI_API_KEY or another to change that)"
    return f"{model.name}; while it fails, {model.fallback}" if model.fallback else model.name


def _find_base(settings: Settings, port: int) -> str:
    host = settings.host
    return f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{port}"  # noqa: S104  # compared, not bound


def _embolden(text: str) -> str:
    return f"\x1b[1m{text}\x1b[0m" if sys.stderr.isatty() and not os.environ.get("NO_COLOR") else text


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201  # the start's message
