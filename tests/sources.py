"""A copy of this repository's sources, for tests that change them."""

import shutil
from pathlib import Path

from tests.conftest import ROOT

_COPIED = ("agent_server", "migrations", "tests", "tools", "prompts", "content", "pyproject.toml")


def copy_sources(folder: Path) -> Path:
    """Copy what the tests run on to `folder`, and return it."""
    for name in _COPIED:
        source, target = ROOT / name, folder / name
        if source.is_dir():
            # What npm installs for one test has more files than all the rest.
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("node_modules"))
        else:
            shutil.copy2(source, target)
    return folder
