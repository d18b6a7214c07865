"""agent-server init"""

import shlex
import shutil
from importlib.resources import files
from pathlib import Path

from agent_server.commands.context import CommandContext
from agent_server.commands.terminal import say
from agent_server.errors import InvalidInput

ENV_EXAMPLE = ".env.example"
"""Every setting with its default, which a new workspace is given."""
BARE = (".gitignore", "pytest.ini", "tools/__init__.py")
"""What a workspace of a template has of the scaffold."""


async def init(context: CommandContext, folder: Path, template: str | None = None) -> None:
    package = Path(str(files("agent_server")))
    if template is None:
        _check_empty(folder)
        # __pycache__ is there when the package was imported before, and belongs to this machine's Python.
        shutil.copytree(package / "scaffold", folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        from agent_server.commands.templates import copy_template, find_template  # noqa: PLC0415  # heavy

        slice = find_template(package, template)
        _check_empty(folder)
        for name in BARE:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(package / "scaffold" / name, folder / name)
        copy_template(package, slice, folder)
    # Inside of an installed package, beside it in a checkout.
    shipped = package / ENV_EXAMPLE
    shutil.copyfile(shipped if shipped.is_file() else package.parent / ENV_EXAMPLE, folder / ENV_EXAMPLE)
    say(f"Made {folder}. Now run:\n\n  agent-server serve --workspace {shlex.quote(str(folder))} --reload")


def _check_empty(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidInput(f"{folder} is not empty; name a folder that is new or empty")
