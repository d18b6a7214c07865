"""The secrets of outside servers, from the environment and from `.env` files."""

from collections.abc import Mapping
from pathlib import Path

from agent_server.variables import read_variables

PREFIX = "MCP_"


def list_variables(workspace: Path) -> Mapping[str, str]:
    """The variables that begin with MCP_."""
    return {name: value for name, value in read_variables(workspace).items() if name.startswith(PREFIX)}
