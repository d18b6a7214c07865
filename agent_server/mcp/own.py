"""Tools that are of MCP alone: they are about the surface itself and no work of a workspace.

They are listed and called as the others are, but not by `call_tool`: `find_tools` is a list, as `tools/list` is, and what
`ask_agent` begins is a turn, with a record of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import mcp_types as types

from agent_server.caller import Caller
from agent_server.errors import InvalidInput
from agent_server.mcp.listening import Heard


@dataclass(frozen=True)
class Call:
    """A call of such a tool. `key` is what its client may send it again with."""

    arguments: Mapping[str, Any]
    caller: Caller
    heard: Heard
    key: str | None = None


class OwnTool(Protocol):
    """A tool of MCP's own. `call` raises as `call_tool`."""

    @property
    def entry(self) -> types.Tool: ...

    def may(self, caller: Caller) -> bool:
        """Whether a caller is listed it."""
        ...

    async def call(self, call: Call) -> types.CallToolResult: ...


def read_text(arguments: Mapping[str, Any], name: str) -> str | None:
    """An argument that is a text. None where it is not given. Raises InvalidInput."""
    value = arguments.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidInput(f"{name}: must be a text")
    return value
