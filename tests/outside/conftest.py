"""Workspaces with outside servers, over both transports and in both generations of the protocol."""

import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from mcp.server.mcpserver import MCPServer

from agent_server.caller import Caller
from agent_server.calls.call import Runtime, call_tool
from agent_server.db import Database
from agent_server.errors import Mistake
from agent_server.outside.accepting import compare
from agent_server.outside.connections import Connection, Outside
from agent_server.outside.pins import read_pins, write_pins
from agent_server.outside.servers import read_servers
from agent_server.outside.tools import load_outside
from agent_server.settings import Settings
from agent_server.testing.serving import serving
from agent_server.tool import Tool
from tests.conftest import ROOT


def command(module: str, *arguments: str) -> list[str]:
    """The command of a server of these tests. It is started with hardly any environment, so it is told where it is."""
    script = f"import sys, runpy; sys.path.insert(0, {str(ROOT)!r}); sys.argv[1:] = {list(arguments)!r}; runpy.run_module({module!r}, run_name='__main__')"
    return [sys.executable, "-c", script]


@asynccontextmanager
async def serve_shop(server: MCPServer, **options: Any) -> AsyncIterator[str]:
    """The address of a server of the SDK."""
    app = server.streamable_http_app(**options)
    async with serving(app, uvicorn.Config(app, log_level="critical")) as base:
        yield f"{base}/mcp"


async def accept(root: Path) -> None:
    """Accept everything that the servers of a workspace declare now."""
    read, (pins, _) = read_servers(root), read_pins(root)
    assert read.mistakes == []
    kept = {name: dict(tools) for name, tools in pins.items()}
    for name, server in read.servers.items():
        connection = Connection(server, root)
        try:
            compared = compare(server, await connection.list_tools(), kept.get(name, {}))
        finally:
            await connection.close()
        kept[name] = {one.tool: one.pin for one in compared if one.pin is not None}
    write_pins(root, kept)


class Workshop:
    """A workspace with outside servers, and the calls of its tools by one caller."""

    def __init__(self, root: Path, database: Database, caller: Caller, settings: Settings) -> None:
        self.root, self.database, self.caller, self.settings = root, database, caller, settings
        self._outside: list[Outside] = []
        self.idle_seconds = 60.0

    def write(self, **servers: Mapping[str, Any]) -> None:
        """Write mcp.yaml. JSON is YAML as well."""
        (self.root / "mcp.yaml").write_text("\n".join(f"{name}: {json.dumps(said)}" for name, said in servers.items()))

    async def accept(self) -> None:
        await accept(self.root)

    @property
    def mistakes(self) -> list[Mistake]:
        return load_outside(self.root).mistakes

    def load(self) -> Mapping[str, Tool[..., Any]]:
        """The tools of the workspace, to be called as another replica would."""
        loaded = load_outside(self.root)
        assert loaded.mistakes == []
        self._outside.append(Outside(self.root, loaded.servers, self.idle_seconds))
        return {tool.name: tool for tool in loaded.tools}

    async def call(self, tool: Tool[..., Any], /, *, listener: Any = None, **arguments: Any) -> Any:
        runtime = Runtime(settings=self.settings, database=self.database, resources={Outside: self._outside[-1]})
        return await call_tool(runtime, tool, arguments, caller=self.caller, surface="rest", listener=listener)

    async def close(self) -> None:
        for outside in self._outside:
            await outside.close()


@pytest.fixture
async def workshop(tmp_path: Path, database: Database, me: Caller) -> AsyncIterator[Workshop]:
    workshop = Workshop(tmp_path, database, me, Settings(workspace=tmp_path))
    yield workshop
    await workshop.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of a workspace in which nothing is yet."""
    (tmp_path / "prompts").mkdir()
    return tmp_path
