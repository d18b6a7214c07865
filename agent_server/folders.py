"""The folder of a workspace and its files, by themselves."""

import os
import shutil
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from agent_server.errors import Mistake, WorkspaceInvalid

_OTHER_FOLDER = "name another with --workspace, or make one, as in `agent-server init my-agents`"


def find_root(folder: Path) -> Path:
    """Where the workspace is, in full. Raises WorkspaceInvalid where there is none."""
    root = folder.resolve()
    if not root.is_dir():
        raise WorkspaceInvalid([Mistake(str(root), None, f"there is no such folder; {_OTHER_FOLDER}")])
    if not any((root / name).is_dir() for name in ("tools", "prompts", "content")):
        raise WorkspaceInvalid(
            [Mistake(str(root), None, f"has none of tools/, prompts/ and content/; {_OTHER_FOLDER}")]
        )
    return root


def write_file(path: Path, data: bytes) -> None:
    """Write a file so that whoever reads it finds all of it, or all of what was there before. A link stays one."""
    path = path.resolve()
    # Not named as what it is to be, or what watches the folder would read it.
    beside = path.with_name(f".{path.name}-{uuid4().hex}")
    try:
        beside.write_bytes(data)
        with suppress(FileNotFoundError):
            shutil.copymode(path, beside)
        os.replace(beside, path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
