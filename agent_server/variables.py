"""What a workspace reads from the environment, beside the settings of the server."""

import os
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values

from agent_server.settings import find_env_files


def read_variables(folder: Path) -> Mapping[str, str]:
    """The variables of the workspace in `folder` that are not empty. They are read as the settings are: the environment
    goes before the `.env` files."""
    found: dict[str, str] = {}
    for file in reversed(find_env_files(folder)):
        if file.is_file():  # a pipe can be read once only, which the settings have done
            found.update({name: value for name, value in dotenv_values(file, encoding="utf-8-sig").items() if value})
    return {**found, **{name: value for name, value in os.environ.items() if value}}
