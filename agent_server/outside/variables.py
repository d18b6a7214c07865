"""The secrets of outside servers, from the environment and from `.env` files."""

import os
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values

from agent_server.settings import find_env_files

PREFIX = "MCP_"


def list_variables(workspace: Path) -> Mapping[str, str]:
    """The variables that begin with MCP_, as the settings are read: the environment goes before the files."""
    found: dict[str, str] = {}
    for file in reversed(find_env_files(workspace)):
        if file.is_file():  # a pipe can be read once only, which the settings have done
            found.update({name: value for name, value in dotenv_values(file, encoding="utf-8-sig").items() if value})
    found.update({name: value for name, value in os.environ.items() if value})
    return {name: value for name, value in found.items() if name.startswith(PREFIX)}
